"""One request to a receiver: whom it trusts, and what it makes of what comes back."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest
from aiohttp import web

from fabric.driver.registry.hooks.config import HookTable
from fabric.driver.registry.hooks.envelope import ping
from fabric.driver.registry.hooks.load import Hook, load_hooks
from fabric.driver.registry.hooks.sender import ANSWER_BYTES_MAX, Answer, NoAnswer, Sender
from tests.unit.driver.registry.access.certificates import make_certificate
from tests.unit.driver.registry.harness import asynchronous
from tests.unit.driver.registry.hooks.hooks_world import SOURCE
from tests.unit.driver.registry.hooks.receiver import Receiver, hooks_file, receiver

EVENT = ping("id", 0, "operator", SOURCE)


async def ask(hook: Hook) -> Answer:
    sender = Sender(hook)
    try:
        return await sender.ask([EVENT])
    finally:
        await sender.close()


@asynchronous
async def test_a_certificate_of_ones_own_is_trusted_where_the_file_says_so(tmp_path: Path) -> None:
    make_certificate(tmp_path, "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    target = Receiver()
    await target.start(context)
    try:
        url = target.url.replace("http:", "https:")
        trusted = hooks_file(tmp_path, f'name = "ci"\nurl = "{url}"\nca_file = "server.crt"')
        assert (await ask(load_hooks(trusted).hooks[0])).error == ""
        with pytest.raises(NoAnswer, match="certificate verify failed"):
            await ask(Hook(HookTable("ci", url)))
    finally:
        await target.stop()
    assert len(target.requests) == 1


@asynchronous
async def test_a_long_answer_is_cut_and_not_unpacked() -> None:
    async def packed(request: web.Request) -> web.StreamResponse:
        return web.Response(
            status=500, body=b"\x1f\x8b" + b"x" * 100_000, headers={"Content-Encoding": "gzip"}
        )

    async with receiver() as target:
        target.answer = packed
        answer = await ask(Hook(HookTable("ci", target.url)))
    assert (answer.status, len(answer.text)) == (500, ANSWER_BYTES_MAX)
    assert len(answer.error) < 200 and answer.error.startswith("the receiver answered 500")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(200, "OK", "no"), ""),
        (Answer(299, "", ""), ""),
        (Answer(302, "Found", ""), "the receiver answered 302 Found (redirects are not followed)"),
        (Answer(503, "Busy", "come\n back later"), "the receiver answered 503 Busy: come back later"),
        (Answer(199, "", ""), "the receiver answered 199 "),
    ],
)
def test_only_2xx_is_good(answer: Answer, error: str) -> None:
    assert answer.error == error


@asynchronous
async def test_who_does_not_speak_http_or_nothing_at_all_gives_no_answer() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        with pytest.raises(NoAnswer, match=r"no answer within 0\.2 s"):
            await ask(Hook(HookTable("ci", f"http://127.0.0.1:{port}/", timeout_s=0.2)))
    with pytest.raises(NoAnswer):
        await ask(Hook(HookTable("ci", f"http://127.0.0.1:{port}/")))
