"""``fabric registry push-blob`` and its client, against a registry over a store in memory."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from fabric.cli import blob_push
from fabric.cli.blob_push import BlobPush, PushError, Span, new_session, parts_of
from fabric.cli.registry_push import parse_target
from fabric.cli.root import fabric
from fabric.driver.registry.http import serve
from fabric.settings import MIB, Settings
from tests.unit.driver.registry.harness import asynchronous, registry, sha256
from tests.unit.driver.registry.memory_store import MemoryStore

DATA = random.Random(4).randbytes(18 * MIB + 5)


class Served:
    """A registry on a thread of its own."""

    def __init__(self, settings: Settings) -> None:
        self.store = MemoryStore()
        self._settings = settings
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._ready.wait(10)

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        runner = await serve(self.store, self._settings, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        await self._over.wait()
        await runner.cleanup()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served(Settings())
    yield served
    served.close()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(blob_push, "ATTEMPTS_MAX", 2)
    path = tmp_path / "layer"
    path.write_bytes(DATA)
    return path


def call(*arguments: str) -> Result:
    return CliRunner().invoke(fabric, ["registry", "push-blob", *arguments])


def blob_of(store: MemoryStore, data: bytes) -> bytes:
    value = sha256(data).removeprefix("sha256:")
    return store.content(f"blobs/sha256/{value[:2]}/{value}")


def test_it_prints_the_digest_of_what_the_registry_has(served: Served, file: Path) -> None:
    result = call(f"{served.address}/team/model", str(file), "--part-mib", "4")
    assert (result.exit_code, result.output) == (0, sha256(DATA) + "\n")
    assert blob_of(served.store, DATA) == DATA
    assert list((file.parent / "cache" / "fabric" / "pushes").iterdir()) == []


def test_an_empty_file(served: Served, file: Path) -> None:
    file.write_bytes(b"")
    assert call(f"{served.address}/app", str(file)).output == sha256(b"") + "\n"


def test_started_again_it_sends_only_what_is_missing(served: Served, file: Path) -> None:
    from fabric.errors import DiskFailed

    arguments = (f"{served.address}/app", str(file), "--part-mib", "4", "--parallel", "1")
    served.store.fail("flush", DiskFailed("gone"), after=2, times=50)
    broken = call(*arguments)
    assert broken.exit_code == 1
    assert "start it again to go on" in broken.output
    served.store.fail("flush", DiskFailed("gone"), times=0)
    served.store.calls.clear()

    assert call(*arguments).output == sha256(DATA) + "\n"
    assert served.store.calls["flush"] == 3, "five parts, two of them were there"
    assert blob_of(served.store, DATA) == DATA


def test_a_file_that_changed_is_pushed_anew(served: Served, file: Path) -> None:
    from fabric.errors import DiskFailed

    served.store.fail("flush", DiskFailed("gone"), after=1, times=50)
    assert call(f"{served.address}/app", str(file), "--part-mib", "4", "--parallel", "1").exit_code == 1
    served.store.fail("flush", DiskFailed("gone"), times=0)
    changed = bytes(9 * MIB)
    file.write_bytes(changed)
    assert call(f"{served.address}/app", str(file)).output == sha256(changed) + "\n"


def test_an_upload_that_expired_is_begun_anew(served: Served, file: Path) -> None:
    from fabric.errors import DiskFailed

    served.store.fail("flush", DiskFailed("gone"), after=1, times=50)
    assert call(f"{served.address}/app", str(file), "--part-mib", "4", "--parallel", "1").exit_code == 1
    served.store.fail("flush", DiskFailed("gone"), times=0)
    for path in served.store.paths("uploads/") + served.store.paths("parts/"):
        del served.store.entries[path]
    assert call(f"{served.address}/app", str(file)).output == sha256(DATA) + "\n"


def test_a_registry_without_the_extension_is_one_line(file: Path) -> None:
    served = Served(Settings(parallel_uploads=False))
    try:
        result = call(f"{served.address}/app", str(file))
    finally:
        served.close()
    assert result.exit_code == 1
    assert "takes no uploads in parts" in result.output


@pytest.mark.parametrize(
    "arguments", [["x"], ["host/UPPER"], ["ftp://host/app"], ["host/app", "--part-mib=5"]]
)
def test_wrong_usage_is_status_2(file: Path, arguments: list[str]) -> None:
    assert call(arguments[0], str(file), *arguments[1:]).exit_code == 2


def test_targets() -> None:
    assert parse_target("localhost:5000/a/b") == ("http://localhost:5000", "a/b")
    assert parse_target("127.0.0.1:5000/a") == ("http://127.0.0.1:5000", "a")
    assert parse_target("registry.example/a") == ("https://registry.example", "a")
    assert parse_target("http://registry.example:80/a") == ("http://registry.example:80", "a")


def test_a_login_goes_with_every_request(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    real = blob_push.new_session

    def noted(connections: int, authorization: str = "") -> aiohttp.ClientSession:
        seen.append(authorization)
        return real(connections, authorization)

    monkeypatch.setattr(blob_push, "new_session", noted)
    monkeypatch.setattr(blob_push, "ATTEMPTS_MAX", 1)
    target = "127.0.0.1:1/app"
    monkeypatch.setenv("FABRIC_REGISTRY_PASSWORD", "open sesame")
    assert call(target, str(file), "--user", "alice").exit_code == 1
    monkeypatch.setenv("FABRIC_REGISTRY_TOKEN", "a.b.c")
    assert call(target, str(file)).exit_code == 1
    assert seen == ["Basic YWxpY2U6b3BlbiBzZXNhbWU=", "Bearer a.b.c"]


def test_spans_are_cut_at_multiples() -> None:
    cut = list(parts_of([Span(0, 4), Span(6, 9), Span(30, 1)], 4))
    assert cut == [Span(0, 4), Span(6, 2), Span(8, 4), Span(12, 3), Span(30, 1)]


async def push(urls: list[str], file: Path, counted: list[int]) -> str:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        async with new_session(3) as session:
            pushing = BlobPush(session, urls, "app", descriptor, len(DATA), counted.append)
            await pushing.begin()
            await pushing.send(3, 4 * MIB)
            await pushing.finish(sha256(DATA), lambda count: None)
            return pushing.location
    finally:
        os.close(descriptor)


@asynchronous
async def test_passing_failures_are_tried_again_and_parts_go_to_all_addresses(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fabric.errors import Busy, Unavailable

    monkeypatch.setattr(blob_push, "ATTEMPTS_MAX", 4)
    store = MemoryStore()
    counted: list[int] = []
    async with registry(store) as first, registry(store) as second:
        store.fail("flush", Busy("full"), after=1, times=1)
        store.fail("commit", Unavailable("no master"), after=3, times=2)
        await push([f"http://127.0.0.1:{each.port}" for each in (first, second)], file, counted)
    assert blob_of(store, DATA) == DATA
    assert sum(counted) == len(DATA), "what went again is not counted twice"


@asynchronous
async def test_without_a_registry_it_gives_up(file: Path) -> None:
    runner = web.AppRunner(web.Application())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    await runner.cleanup()
    with pytest.raises(PushError, match="given up after 2 attempts"):
        await push([f"http://127.0.0.1:{port}"], file, [])
