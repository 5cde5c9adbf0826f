"""Blobs through a mirror: one transfer for all, whatever happens to clients and to the upstream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp
import pytest
from aiohttp import web

from fabric.driver.registry.bookkeeping import LEAVING
from fabric.driver.registry.mirror import decisions, transfer
from fabric.errors import NoSpace
from fabric.settings import MIB
from fabric.wire.messages import AppendOperation
from tests.unit.driver.registry.harness import Registry, asynchronous, refused, sha256
from tests.unit.driver.registry.memory_store import MemoryStore
from tests.unit.driver.registry.mirror.fake_upstream import (
    FakeUpstream,
    fake_upstream,
    mirror_of,
    random_bytes,
)

LARGE = random_bytes(20 * MIB + 12_345)
SMALL = b"a small blob"


def add(upstream: FakeUpstream, data: bytes) -> str:
    """Have it upstream; its path at the mirror."""
    upstream.blobs[sha256(data)] = data
    return f"/v2/hub/app/blobs/{sha256(data)}"


async def until(condition: Callable[[], object], what: str) -> None:
    """Look again until it holds; the test fails when it does not in 10 s."""
    end = asyncio.get_running_loop().time() + 10
    while not condition():
        assert asyncio.get_running_loop().time() < end, f"waited for {what}"
        await asyncio.sleep(0.01)


def is_linked(client: Registry, data: bytes) -> bool:
    return bool(client.store.paths(f"repositories/hub/app/_blobs/{sha256(data).replace(':', '/')}"))


@pytest.mark.parametrize("data", [SMALL, LARGE, b""], ids=["small", "large", "empty"])
@asynchronous
async def test_a_blob_comes_once(data: bytes) -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url) as client:
        path = add(upstream, data)
        for _ in range(2):
            answer = await client.call("GET", path)
            assert (answer.status, answer.body) == (200, data)
            assert answer.headers["Docker-Content-Digest"] == sha256(data)
            assert int(answer.headers["Content-Length"]) == len(data)
        assert dict(upstream.asked) == {"GET blobs": 1}
        assert client.store.content(client.store.paths("blobs/")[0]) == data
        assert not client.store.paths("uploads/")


@asynchronous
async def test_a_head_fetches_nothing() -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url) as client:
        path = add(upstream, LARGE)
        answer = await client.call("HEAD", path)
        assert (answer.status, answer.headers["Content-Length"]) == (200, str(len(LARGE)))
        assert (dict(upstream.asked), client.store.entries) == ({"HEAD blobs": 1}, {})


@asynchronous
async def test_fifty_clients_at_once_are_one_transfer() -> None:
    data = random_bytes(3 * MIB)
    async with fake_upstream() as upstream, mirror_of(upstream.url) as client:
        path = add(upstream, data)
        upstream.gate.clear()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            client.session = session
            calls = [asyncio.create_task(client.call("GET", path)) for _ in range(50)]
            await until(lambda: upstream.asked, "the transfer")
            upstream.gate.set()
            answers = await asyncio.gather(*calls)
        assert all(answer.body == data for answer in answers)
        assert dict(upstream.asked) == {"GET blobs": 1}


async def read_first(client: Registry, path: str, count: int) -> tuple[asyncio.StreamWriter, bytes]:
    """Ask for a blob over a connection of one's own, and read that many bytes of it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port, limit=4 * MIB)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    async with asyncio.timeout(10):
        await reader.readuntil(b"\r\n\r\n")
        return writer, await reader.readexactly(count)


@asynchronous
async def test_bytes_are_passed_on_while_the_rest_is_on_its_way() -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url) as client:
        path = add(upstream, LARGE)
        upstream.gate.clear()
        first, half = await read_first(client, path, 10 * MIB - 200_000)
        assert half == LARGE[: len(half)]
        # Who comes later begins at the beginning, which is in the store and no longer in memory.
        second, start = await read_first(client, path, 10 * MIB - 200_000)
        assert start == half
        upstream.gate.set()
        assert (await client.call("GET", path)).body == LARGE
        assert dict(upstream.asked) == {"GET blobs": 1}
        first.close()
        second.close()


@asynchronous
async def test_a_client_that_goes_away_ends_nothing_for_others() -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url) as client:
        path = add(upstream, LARGE)
        upstream.gate.clear()
        leader, _ = await read_first(client, path, 1000)
        follower = asyncio.create_task(client.call("GET", path))
        leader.transport.abort()
        await asyncio.sleep(0.1)
        upstream.gate.set()
        assert (await follower).body == LARGE
        assert dict(upstream.asked) == {"GET blobs": 1}


@asynchronous
async def test_a_client_that_reads_nothing_holds_up_nobody() -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url) as client:
        path = add(upstream, LARGE)
        sleeper, _ = await read_first(client, path, 1)
        assert (await client.call("GET", path)).body == LARGE
        await until(lambda: is_linked(client, LARGE), "the end of the transfer")
        sleeper.transport.abort()


@asynchronous
async def test_most_of_a_blob_is_brought_to_its_end_without_clients() -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url) as client:
        path = add(upstream, LARGE)
        upstream.gate.clear()
        only, _ = await read_first(client, path, 1000)
        only.transport.abort()
        upstream.gate.set()
        await until(lambda: is_linked(client, LARGE), "the end of the transfer")
        assert (await client.call("GET", path)).body == LARGE
        assert dict(upstream.asked) == {"GET blobs": 1}


@asynchronous
async def test_the_beginning_of_a_blob_is_given_up_without_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "FINISH_BYTES_MAX", 0)
    async with fake_upstream() as upstream, mirror_of(upstream.url, timeout_s=30.0) as client:
        path = add(upstream, LARGE)

        end = asyncio.Event()

        async def only_a_little(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            response.content_length = len(LARGE)
            await response.prepare(request)
            await response.write(LARGE[: 6 * MIB])
            await upstream.gate.wait()
            await response.write(LARGE[6 * MIB : 7 * MIB])
            await end.wait()
            return response

        upstream.answering = only_a_little
        upstream.gate.clear()
        only, _ = await read_first(client, path, 5 * MIB)
        await until(lambda: client.store.paths("uploads/"), "the upload")
        only.transport.abort()
        upstream.gate.set()  # the server learns that the client has gone when it writes
        await until(lambda: not client.store.paths("uploads/"), "the upload to be discarded")
        end.set()
        assert not is_linked(client, LARGE)
        upstream.answering = None
        assert (await client.call("GET", path)).body == LARGE


@pytest.mark.parametrize(
    ("header", "status", "body"),
    [
        ("bytes=0-9", 206, LARGE[:10]),
        ("bytes=12000000-12000099", 206, LARGE[12_000_000:12_000_100]),
        ("bytes=-5", 206, LARGE[-5:]),
        ("bytes=99999999-", 416, None),
    ],
)
@asynchronous
async def test_ranges_of_a_blob_on_its_way(header: str, status: int, body: bytes | None) -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url) as client:
        path = add(upstream, LARGE)
        answer = await client.call("GET", path, headers={"Range": header})
        assert answer.status == status
        assert body is None or answer.body == body
        assert dict(upstream.asked) == {"GET blobs": 1}
        assert (await client.call("GET", path)).body == LARGE


@asynchronous
async def test_an_upstream_that_breaks_off_is_asked_for_the_rest() -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url) as client:
        path = add(upstream, LARGE)
        cuts = [5 * MIB + 77, 11 * MIB]

        async def breaking(request: web.Request) -> web.StreamResponse:
            if cuts:
                return await upstream.send_blob(request, LARGE, cut_at=cuts.pop(0))
            return await upstream.usual(request)

        upstream.answering = breaking
        answer = await client.call("GET", path)
        assert answer.body == LARGE
        assert dict(upstream.asked) == {"GET blobs": 3}
        starts = [headers.get("Range") for headers in upstream.headers]
        assert starts[0] is None and all(start and start.startswith("bytes=") for start in starts[1:])


@asynchronous
async def test_an_upstream_that_dies_in_the_middle() -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url) as client:
        path = add(upstream, LARGE)

        async def dying(request: web.Request) -> web.StreamResponse:
            if "Range" in request.headers:
                return web.Response(status=503)
            return await upstream.send_blob(request, LARGE, cut_at=5 * MIB)

        upstream.answering = dying
        with pytest.raises(aiohttp.ClientPayloadError):
            await client.call("GET", path)
        assert not is_linked(client, LARGE)
        await until(lambda: not client.store.paths("uploads/"), "the upload to be discarded")
        upstream.answering = None
        assert (await client.call("GET", path)).body == LARGE


@asynchronous
async def test_an_upstream_that_hangs_in_the_middle_is_given_up() -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url, timeout_s=0.2) as client:
        path = add(upstream, LARGE)
        upstream.gate.clear()
        async with asyncio.timeout(8):
            with pytest.raises(aiohttp.ClientPayloadError):
                await client.call("GET", path)
        assert not is_linked(client, LARGE)


@pytest.mark.parametrize("size", [len(SMALL), 9 * MIB])
@asynchronous
async def test_wrong_bytes_are_never_a_whole_answer_and_never_stored(size: int) -> None:
    data = random_bytes(size)
    async with fake_upstream() as upstream, mirror_of(upstream.url) as client:
        path = f"/v2/hub/app/blobs/{sha256(b'other')}"
        upstream.blobs[sha256(b"other")] = data
        with pytest.raises(aiohttp.ClientPayloadError):
            await client.call("GET", path)
        assert not client.store.paths("blobs/") and not client.store.paths("uploads/")
        assert not client.store.paths("repositories/hub/app/_blobs/")


@asynchronous
async def test_wrong_lengths() -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url, blob_bytes_max=30 * MIB) as client:
        path = add(upstream, SMALL)

        async def without(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            response.enable_chunked_encoding()
            await response.prepare(request)
            await response.write(SMALL)
            return response

        async def larger_than_allowed(request: web.Request) -> web.StreamResponse:
            return await upstream.send_blob(request, SMALL, says=31 * MIB)

        async def longer_than_said(request: web.Request) -> web.StreamResponse:
            assert request.transport is not None
            request.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + SMALL)
            request.transport.close()
            return web.Response()

        for answering in (without, larger_than_allowed):
            upstream.answering = answering
            refused(502, "UPSTREAM_INVALID", await client.call("GET", path))
        upstream.answering = longer_than_said
        assert (await client.call("GET", path)).status == 503
        assert not client.store.paths("blobs/") and not client.store.paths("uploads/")
        upstream.answering = None
        assert (await client.call("GET", path)).body == SMALL


@asynchronous
async def test_an_absent_blob_is_remembered_for_a_moment() -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url) as client:
        path = f"/v2/hub/app/blobs/{sha256(b'nothing')}"
        for method in ("GET", "GET", "HEAD"):
            answer = await client.call(method, path)
            assert answer.status == 404
        refused(404, "BLOB_UNKNOWN", await client.call("GET", path))
        assert dict(upstream.asked) == {"GET blobs": 1}


@asynchronous
async def test_what_is_here_needs_no_upstream_and_what_is_not_is_told_so() -> None:
    store = MemoryStore()
    async with fake_upstream() as upstream, mirror_of(upstream.url, store=store) as client:
        path = add(upstream, LARGE)
        await client.call("GET", path)
    async with mirror_of("http://127.0.0.1:1", store=store) as client:
        assert (await client.call("GET", path)).body == LARGE
        other = f"/v2/hub/app/blobs/{sha256(b'other')}"
        refused(503, "UPSTREAM_UNAVAILABLE", await client.call("GET", other))
        assert (await client.call("HEAD", other)).status == 503


@asynchronous
async def test_bytes_that_another_repository_has_are_linked_and_not_sent_again() -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url) as client:
        path = add(upstream, LARGE)
        await client.push_blob(LARGE, "own")
        assert (await client.call("GET", path)).body == LARGE
        assert dict(upstream.asked) == {"HEAD blobs": 1}
        # Not without the upstream's word: a digest alone gives nothing away.
        secret = random_bytes(1000, seed=2)
        await client.push_blob(secret, "own")
        assert (await client.call("GET", f"/v2/hub/app/blobs/{sha256(secret)}")).status == 404


@asynchronous
async def test_a_store_that_is_full_is_told_as_such() -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url) as client:
        path = add(upstream, SMALL)
        client.store.fail("put", NoSpace("full"))
        upstream.gate.clear()
        call = asyncio.create_task(client.call("GET", path))
        with pytest.raises(aiohttp.ClientPayloadError):
            await call
        upstream.gate.set()
        assert (await client.call("GET", path)).body == SMALL


@asynchronous
async def test_memory_is_bounded_whatever_the_store_does(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0
    add_to_window = transfer.Window.add

    def watched(window: transfer.Window, data: bytes) -> None:
        nonlocal largest
        add_to_window(window, data)
        largest = max(largest, window.size)

    monkeypatch.setattr(transfer.Window, "add", watched)
    async with fake_upstream() as upstream, mirror_of(upstream.url) as client:
        path = add(upstream, LARGE)
        stored = asyncio.Event()
        stage = client.store.stage

        async def slow(data: bytes) -> object:
            if len(data) > MIB:
                await stored.wait()
            return await stage(data)

        client.store.stage = slow  # type: ignore[method-assign, assignment]
        call = asyncio.create_task(client.call("GET", path))
        await until(lambda: largest >= transfer.WINDOW_BYTES, "the window to be full")
        await asyncio.sleep(0.1)
        stored.set()
        assert (await call).body == LARGE
    assert largest <= transfer.WINDOW_BYTES + MIB


@asynchronous
async def test_a_blob_in_doubt_is_still_offered() -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url) as client:
        path = add(upstream, SMALL)
        await client.call("GET", path)
        (link,) = client.store.paths("repositories/hub/app/_blobs/")
        await client.store.commit([AppendOperation(link, [], 0, {LEAVING: "1"})])
        upstream.blobs.clear()
        assert (await client.call("HEAD", path)).headers["Content-Length"] == str(len(SMALL))
        assert (await client.call("GET", path)).body == SMALL
