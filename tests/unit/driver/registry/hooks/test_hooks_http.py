"""Registries and receivers over HTTP: down and up, slow, hostile, and processes that die in between."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from fabric.driver.registry.hooks import courier, schedule
from fabric.driver.registry.hooks.envelope import MEDIA_TYPE, SIGNATURE_HEADER, signature
from fabric.driver.registry.hooks.load import load_hooks
from fabric.driver.registry.hooks.schedule import State, state_of, state_path
from fabric.driver.registry.hooks.wishes import WISHES_PATH
from fabric.settings import MIB
from tests.unit.driver.registry.harness import Registry, asynchronous, sha256
from tests.unit.driver.registry.hooks.hooks_world import Carrier, Target, entries
from tests.unit.driver.registry.hooks.receiver import (
    PATIENCE_S,
    Receiver,
    hooks_file,
    receiver,
    telling,
)
from tests.unit.driver.registry.memory_store import MemoryStore
from tests.unit.driver.registry.world import Clock


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds takes a tenth of them."""
    monkeypatch.setattr(schedule, "DELAY_S_MIN", 0.05)
    monkeypatch.setattr(schedule, "DELAY_S_MAX", 0.2)
    monkeypatch.setattr(schedule, "LEASE_MARGIN_S", 0.2)
    monkeypatch.setattr(courier, "LEASE_MARGIN_S", 0.2)


def table(target: Receiver, name: str = "ci", more: str = "") -> str:
    return f'name = "{name}"\nurl = "{target.url}"\n{more}'


def told(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(event["action"], event["target"].get("tag", "")) for event in events]


def state(registry: Registry) -> State:
    return state_of(registry.store._info(state_path("ci")))


async def until_empty(store: MemoryStore, hook: str = "ci") -> None:
    async with asyncio.timeout(PATIENCE_S):
        while entries(store, hook):
            await asyncio.sleep(0.01)


@asynchronous
async def test_a_push_is_told_at_once_and_signed(tmp_path: Path) -> None:
    async with receiver() as target:
        more = 'secret_file = "secret"\nheaders = { Authorization = "Bearer abc" }'
        file = hooks_file(tmp_path, table(target, more=more), secret=b"s3cret\n")
        async with telling(file) as registry:
            manifest = await registry.push_image()
            began_s = time.monotonic()
            (event,) = await target.until_accepted(1)
            assert time.monotonic() - began_s < courier.POLL_S / 5, "nobody waited for a poll"
            await until_empty(registry.store)
    assert event["target"]["digest"] == sha256(manifest)
    assert event["target"]["url"] == (f"http://127.0.0.1:{registry.port}/v2/app/manifests/{sha256(manifest)}")
    assert event["request"]["method"] == "PUT"
    assert event["source"]["addr"] == "registry.test:5000"
    headers, body = target.requests[0]
    assert headers["Content-Type"] == MEDIA_TYPE
    assert headers["Authorization"] == "Bearer abc"
    assert headers[SIGNATURE_HEADER] == signature(b"s3cret", body)


@asynchronous
async def test_pulls_and_deletions_where_they_are_wanted(tmp_path: Path) -> None:
    async with receiver() as target, receiver() as other:
        everything = table(target, "all", 'events = ["push", "pull", "delete"]')
        file = hooks_file(tmp_path, everything, table(other, "team", 'repositories = ["team/*"]'))
        async with telling(file) as registry:
            manifest = await registry.push_image()
            await target.until_accepted(1)
            got = await registry.call("GET", "/v2/app/manifests/latest")
            await registry.call("HEAD", "/v2/app/manifests/latest")
            unchanged = {"If-None-Match": got.headers["ETag"]}
            assert (await registry.call("GET", "/v2/app/manifests/latest", headers=unchanged)).status == 304
            assert (await registry.call("GET", "/v2/app/manifests/none")).status == 404
            await registry.call("GET", f"/v2/app/manifests/{sha256(manifest)}")
            await target.until_accepted(3)
            await registry.call("DELETE", f"/v2/app/manifests/{sha256(manifest)}")
            await target.until_accepted(5)
            await registry.push_image(name="team/app")
            await other.until_accepted(1)
            await target.until_accepted(6)
    assert told(target.accepted) == [
        ("push", "latest"), ("pull", "latest"), ("pull", ""), ("delete", "latest"), ("delete", ""),
        ("push", "latest"),
    ]  # fmt: skip
    assert len({event["id"] for event in target.accepted}) == 6
    assert [event["target"]["repository"] for event in other.accepted] == ["team/app"]


@asynchronous
async def test_a_receiver_that_was_down_gets_all_in_order_once_it_is_up(tmp_path: Path) -> None:
    async with receiver() as target:
        file = hooks_file(tmp_path, table(target))
        await target.stop()
        async with telling(file) as registry:
            for tag in ("v1", "v2", "v3"):
                await registry.push_image(tag=tag)
            async with asyncio.timeout(PATIENCE_S):
                while not registry.store.paths("hooks/ci/state") or state(registry).failures < 2:
                    await asyncio.sleep(0.01)
            assert "refused" in state(registry).last_error or "connect" in state(registry).last_error
            await target.start()
            await target.until_accepted(3)
            await until_empty(registry.store)
            assert state(registry).delivered == 3
    assert told(target.accepted) == [("push", "v1"), ("push", "v2"), ("push", "v3")]


@pytest.mark.parametrize("status", [500, 503, 429, 400, 301, 307])
def test_any_answer_but_2xx_is_tried_again_under_the_same_id(tmp_path: Path, status: int) -> None:
    @asynchronous
    async def test() -> None:
        async with receiver() as target:
            target.statuses = [status, status, 202]
            async with telling(hooks_file(tmp_path, table(target))) as registry:
                await registry.push_image()
                await target.until_accepted(1)
                await until_empty(registry.store)
        assert len(target.requests) == 3, "redirects are not followed"
        ids = {json.loads(body)["events"][0]["id"] for _, body in target.requests}
        assert len(ids) == 1

    test()


@asynchronous
async def test_a_receiver_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    async with receiver() as hanging, receiver() as well:
        never = asyncio.Event()

        async def hang(request: web.Request) -> web.StreamResponse:
            await never.wait()
            raise AssertionError

        hanging.answer = hang
        events = 'events = ["push", "pull", "delete"]\ntimeout_s = 0.3'
        file = hooks_file(tmp_path, table(hanging, "ci", events), table(well, "well", events))
        began_s = time.monotonic()
        async with telling(file) as registry:
            for tag in ("v1", "v2"):
                await registry.push_image(tag=tag)
                await registry.call("GET", f"/v2/app/manifests/{tag}")
            await well.until_accepted(4)
            await hanging.until(lambda self: len(self.requests) >= 3)
            hanging.answer = None
            await hanging.until_accepted(4)
        assert time.monotonic() - began_s < 10
    assert "no answer within 0.3 s" in str(state(registry)) or state(registry).failures == 0


@asynchronous
async def test_an_answer_without_an_end_is_cut_off(tmp_path: Path) -> None:
    sent = 0

    async def pour(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(50):
            await response.write(b"x" * MIB)
            sent += MIB
        return response

    async with receiver() as target:
        target.answer = pour
        async with telling(hooks_file(tmp_path, table(target))) as registry:
            await registry.push_image()
            await target.until(lambda self: len(self.requests) == 1)
            await until_empty(registry.store)
            assert state(registry).delivered == 1
    assert sent < 10 * MIB


@asynchronous
async def test_what_a_killed_process_committed_another_delivers(tmp_path: Path) -> None:
    async with receiver() as target:
        file, store = hooks_file(tmp_path, table(target)), MemoryStore()
        await target.stop()
        async with telling(file, store) as registry:
            await registry.push_image(tag="v1")
        (entry,) = entries(store)
        await target.start()
        async with telling(file, store):
            await target.until_accepted(1)
    assert target.accepted[0]["id"] == f"{entry.token}-1"


@asynchronous
async def test_a_process_killed_while_it_delivers_is_succeeded(tmp_path: Path) -> None:
    async with receiver() as target:
        file, store = hooks_file(tmp_path, table(target, more="timeout_s = 0.2")), MemoryStore()
        async with telling(file, store) as alive:
            dead = Carrier(store, Clock(), Target(), "dead")
            dead.courier._lease_s = 0.3
            assert await dead.courier._take() == 0
            await alive.push_image(tag="v1")
            await alive.push_image(tag="v2")
            await target.until_accepted(2)
    assert told(target.accepted) == [("push", "v1"), ("push", "v2")]


async def _known(store: MemoryStore) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while WISHES_PATH not in store.entries:
            await asyncio.sleep(0.01)


@asynchronous
async def test_two_processes_deliver_each_event_once_and_in_order(tmp_path: Path) -> None:
    async with receiver() as target:
        file, store = hooks_file(tmp_path, table(target)), MemoryStore()
        async with telling(file, store) as one, telling(file, store) as two:
            manifest = await one.push_image(tag="v0")
            for number in range(1, 40):
                registry = (one, two)[number % 2]
                answer = await registry.push_manifest(manifest, f"v{number}")
                assert answer.status == 201
            await target.until_accepted(40)
            await until_empty(store)
    assert told(target.accepted) == [("push", f"v{number}") for number in range(40)]


@asynchronous
async def test_a_process_without_the_file_writes_for_those_that_have_it(tmp_path: Path) -> None:
    async with receiver() as target:
        file, store = hooks_file(tmp_path, table(target)), MemoryStore()
        async with telling(file, store):
            await _known(store)
        async with telling(None, store) as plain:
            await plain.push_image(tag="v1")
        assert len(entries(store)) == 1
        async with telling(file, store):
            await target.until_accepted(1)


@asynchronous
async def test_where_nobody_has_hooks_nothing_is_written(tmp_path: Path) -> None:
    async with telling(None) as plain:
        await plain.push_image()
        assert plain.store.paths("outbox/") == plain.store.paths("meta/") == []


@asynchronous
async def test_another_file_holds_from_the_next_commit_on(tmp_path: Path) -> None:
    async with receiver() as target, receiver() as other:
        file = hooks_file(tmp_path, table(target))
        async with telling(file) as registry:
            await registry.push_image(tag="v1")
            await target.until_accepted(1)
            hooks = registry.hooks  # type: ignore[attr-defined]
            hooks.replace(load_hooks(hooks_file(tmp_path, table(other, "other"))))
            hooks.replace(load_hooks(hooks_file(tmp_path, table(other, "other", 'events = ["push"]'))))
            await registry.push_image(tag="v2")
            await other.until_accepted(1)
            async with asyncio.timeout(PATIENCE_S):
                while b'"ci"' in registry.store.content(WISHES_PATH):
                    await asyncio.sleep(0.01)
    assert told(target.accepted) == [("push", "v1")]


@asynchronous
async def test_the_end_does_not_wait_for_a_receiver(tmp_path: Path) -> None:
    async with receiver() as target:
        never = asyncio.Event()

        async def hang(request: web.Request) -> web.StreamResponse:
            await never.wait()
            raise AssertionError

        target.answer = hang
        async with telling(hooks_file(tmp_path, table(target, more="timeout_s = 60"))) as registry:
            await registry.push_image()
            await target.until(lambda self: len(self.requests) == 1)
            began_s = time.monotonic()
        assert time.monotonic() - began_s < 5
    assert state(registry).holder == "", "its successor need not wait"
    assert len(entries(registry.store)) == 1


@asynchronous
async def test_a_pull_does_not_wait_and_is_not_refused_while_the_receiver_is_down(tmp_path: Path) -> None:
    async with receiver() as target:
        file = hooks_file(tmp_path, table(target, more='events = ["pull"]'))
        await target.stop()
        async with telling(file) as registry:
            await registry.push_image()
            assert registry.store.paths("outbox/") == []
            commits = len(registry.store.commits)
            for _ in range(50):
                assert (await registry.call("GET", "/v2/app/manifests/latest")).status == 200
            reasons = [step.path for commit in registry.store.commits[commits:] for step in commit]
            assert set(reasons) <= {WISHES_PATH}
        assert "hooks/ci/pulls" in registry.store.paths("hooks/"), "what was dropped is counted"
