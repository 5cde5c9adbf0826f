"""Quotas over HTTP: from the access file to the answers that clients get."""

from __future__ import annotations

import asyncio
from pathlib import Path
from unittest.mock import patch

from fabric.driver.registry.access.load import load_access
from fabric.driver.registry.quota import keeping
from fabric.driver.registry.quota.book import Book, read_book
from fabric.errors import Unavailable
from tests.unit.driver.registry.access.access_world import Guarded, guarded
from tests.unit.driver.registry.accounts_world import Recount
from tests.unit.driver.registry.harness import (
    Answer,
    Registry,
    asynchronous,
    image,
    refused,
    registry,
    sha256,
)
from tests.unit.driver.registry.memory_store import MemoryStore

DATA = b"d" * 600
OTHER = b"o" * 500
TEAM = '[[quota]]\nrepositories = "team/**"\nbytes = 1000\n'


async def counted(store: MemoryStore, repositories: str = "team/**", limit_bytes: int = 1000) -> Book:
    """Wait until the quota holds."""
    async with asyncio.timeout(10):
        while True:
            book = await read_book(store)
            if [(each.repositories, each.limit_bytes) for each in book.accounts if each.is_counted] == [
                (repositories, limit_bytes)
            ]:
                return book
            await asyncio.sleep(0.01)


def denied(answer: Answer, used: int, wanted: int, limit: int = 1000, account: str = "team/**") -> None:
    refused(403, "DENIED", answer)
    (error,) = answer.json["errors"]
    assert error["detail"] == {
        "account": account,
        "limit_bytes": limit,
        "used_bytes": used,
        "wanted_bytes": wanted,
    }
    assert "delete images" in error["message"]


def figures_are_right(store: MemoryStore) -> None:
    assert Recount(store).wrong() == []


@asynchronous
async def test_every_way_of_bringing_bytes_is_refused_when_there_is_no_room(tmp_path: Path) -> None:
    async with guarded(tmp_path, TEAM) as client:
        await counted(client.store)
        await client.push_blob(OTHER, "free")
        await client.push_blob(DATA, "team/app")
        before = Recount(client.store).used("team/**")

        location = await client.start_upload("team/app")
        assert (await client.call("PATCH", location, data=OTHER)).status == 202
        denied(await client.call("PUT", f"{location}?digest={sha256(OTHER)}"), 600, 500)
        query = f"mount={sha256(OTHER)}&from=free"
        denied(await client.call("POST", f"/v2/team/app/blobs/uploads/?{query}"), 600, 500)
        manifest = image(DATA, [], annotations={"note": "n" * 400})
        denied(await client.push_manifest(manifest, "v1", "team/app"), 600, len(manifest))

        assert Recount(client.store).used("team/**") == before == 600
        assert (await client.call("HEAD", f"/v2/team/app/blobs/{sha256(OTHER)}")).status == 404
        assert (await client.call("GET", "/v2/team/app/tags/list")).status == 404
        figures_are_right(client.store)


@asynchronous
async def test_a_refused_upload_can_be_ended_when_there_is_room(tmp_path: Path) -> None:
    async with guarded(tmp_path, TEAM) as client:
        await counted(client.store)
        await client.push_blob(DATA, "team/app")
        location = await client.start_upload("team/tool")
        await client.call("PATCH", location, data=OTHER)
        denied(await client.call("PUT", f"{location}?digest={sha256(OTHER)}"), 600, 500)

        client.path.write_text(TEAM.replace("1000", '"1.1 kB"'))
        client.gate.replace(load_access(client.path))
        await counted(client.store, limit_bytes=1100)

        assert (await client.call("PUT", f"{location}?digest={sha256(OTHER)}")).status == 201
        figures_are_right(client.store)


@asynchronous
async def test_what_cannot_end_well_is_refused_before_its_bytes_come(tmp_path: Path) -> None:
    async with guarded(tmp_path, TEAM) as client:
        await counted(client.store)
        await client.push_blob(DATA, "team/app")
        uploads = client.store.paths("uploads/")

        denied(
            await _announced(client, "POST", f"/v2/team/app/blobs/uploads/?digest={sha256(OTHER)}"), 600, 500
        )
        assert client.store.paths("uploads/") == uploads
        location = await client.start_upload("team/app")
        denied(await _announced(client, "PUT", f"{location}?digest={sha256(OTHER)}"), 600, 500)
        denied(await _announced(client, "PATCH", location, 1001), 600, 1001)

        assert client.store.calls["write"] == 1, "the blob's; nothing of the others was taken"


async def _announced(client: Registry, method: str, target: str, length: int = 500) -> Answer:
    """A request that promises bytes and sends none."""
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
    return await client.raw(head.encode())


@asynchronous
async def test_what_the_account_holds_is_taken_however_full_it_is(tmp_path: Path) -> None:
    async with guarded(tmp_path, TEAM) as client:
        await counted(client.store)
        await client.push_blob(DATA, "team/app")
        await client.push_blob(DATA, "team/tool")
        query = f"digest={sha256(DATA)}"
        answer = await client.call("POST", f"/v2/team/third/blobs/uploads/?{query}", data=DATA)
        assert answer.status == 201
        location = await client.start_upload("team/fourth")
        assert (await client.call("PATCH", location, data=DATA)).status == 202
        assert (await client.call("PUT", f"{location}?{query}")).status == 201
        assert Recount(client.store).used("team/**") == 600
        figures_are_right(client.store)


@asynchronous
async def test_a_registry_without_a_file_keeps_the_quota_too(tmp_path: Path) -> None:
    store = MemoryStore()
    async with registry(store) as plain:
        await plain.push_blob(DATA, "team/app")
        async with guarded(tmp_path, TEAM, store):
            await counted(store)
        location = await plain.start_upload("team/app")
        denied(await plain.call("PUT", f"{location}?digest={sha256(OTHER)}", data=OTHER), 600, 500)
        await plain.push_blob(OTHER, "team")
        figures_are_right(store)


@asynchronous
async def test_while_it_is_counting_nothing_is_refused(tmp_path: Path) -> None:
    store = MemoryStore()
    async with registry(store) as plain:
        await plain.push_blob(DATA, "team/app")
    store.fail("list", Unavailable("no walk yet"), times=1000)
    async with guarded(tmp_path, TEAM, store) as client:
        async with asyncio.timeout(10):
            while not (await read_book(store)).uncounted:
                await asyncio.sleep(0.01)
        await client.push_blob(OTHER, "team/app")


@asynchronous
async def test_a_count_that_fails_is_tried_again(tmp_path: Path) -> None:
    store = MemoryStore()
    async with registry(store) as plain:
        await plain.push_blob(DATA, "team/app")
    store.fail("put", Unavailable("not now"), times=2)
    with patch.object(keeping, "AGAIN_AFTER_ERROR_S", 0.01):
        async with guarded(tmp_path, TEAM, store):
            await counted(store)
    figures_are_right(store)
    assert Recount(store).used("team/**") == 600


@asynchronous
async def test_a_file_that_is_read_again_can_end_all_quotas_or_leave_them(tmp_path: Path) -> None:
    async with guarded(tmp_path, TEAM) as client:
        await counted(client.store)
        await _read_again(client, "read_only = false\n")
        await client.push_blob(DATA, "team/app")
        assert len((await read_book(client.store)).accounts) == 1
        await _read_again(client, "quota = []\n")
        async with asyncio.timeout(10):
            while (await read_book(client.store)).accounts or client.store.paths("accounts/"):
                await asyncio.sleep(0.01)
        await client.push_blob(OTHER, "team/app")


async def _read_again(client: Guarded, text: str) -> None:
    client.path.write_text(text)
    client.gate.replace(load_access(client.path))


@asynchronous
async def test_many_pushes_at_once_fill_an_account_exactly(tmp_path: Path) -> None:
    async with guarded(tmp_path, TEAM) as client:
        await counted(client.store)

        async def push(number: int) -> int:
            data = bytes([number]) * 100
            location = await client.start_upload(f"team/app{number % 3}")
            return (await client.call("PUT", f"{location}?digest={sha256(data)}", data=data)).status

        statuses = await asyncio.gather(*map(push, range(25)))
        assert (statuses.count(201), statuses.count(403)) == (10, 15)
        assert Recount(client.store).used("team/**") == 1000
        figures_are_right(client.store)
