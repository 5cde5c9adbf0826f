"""Pushes and pulls of the first protocol, over HTTP, with a store in memory."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from fabric.driver.registry.background import garbage_collection
from fabric.driver.registry.bookkeeping import Stamper
from fabric.errors import NoWritableGroup, Precondition
from fabric.settings import FRAGMENT_BYTES_MAX, Settings
from tests.unit.driver.registry.harness import Answer, asynchronous
from tests.unit.driver.registry.v1.docker import Docker, Image, chain, layer_of, legacy

BASE, APP = chain(2)


def refused(status: int, message: str, answer: Answer) -> None:
    assert (answer.status, message in answer.json["error"]) == (status, True), answer.body


def visible(docker: Docker) -> list[str]:
    return [path for path in docker.registry.store.paths("v1/") if path.startswith("v1/images/")]


@asynchronous
async def test_what_was_pushed_is_pulled() -> None:
    async with legacy() as docker:
        assert await docker.push("app", "latest", [BASE, APP]) == 2
        pulled = await docker.pull("app", "latest")
        assert list(pulled) == [APP.id, BASE.id]
        assert pulled == {image.id: (image.json, image.layer) for image in (APP, BASE)}
        assert docker.registry.store.paths("uploads/") == []


@asynchronous
async def test_images_that_are_there_are_not_sent_again() -> None:
    async with legacy() as docker:
        await docker.push("app", "1", [BASE, APP])
        other = Image("other", BASE.id, layer_of({"other": b""}))
        assert await docker.push("team/app", "1", [BASE, other]) == 1
        assert list(await docker.pull("team/app", "1")) == [other.id, BASE.id]


@asynchronous
async def test_the_ends_of_a_push_by_hand() -> None:
    async with legacy() as docker:
        answer = await docker.announce("team/app", [BASE])
        assert (answer.status, answer.body) == (200, b'""')
        assert answer.headers["X-Docker-Endpoints"] == f"127.0.0.1:{docker.registry.port}"
        token = answer.headers["X-Docker-Token"]
        assert 'repository="team/app",access=write' in token
        assert answer.headers["WWW-Authenticate"] == f"Token {token}"
        answer = await docker.open("GET", "repositories/team/app/images")
        assert (answer.json, "access=read" in answer.headers["X-Docker-Token"]) == ([], True)


# --- every step may go wrong ----------------------------------------------------------------------


@asynchronous
async def test_an_image_is_nowhere_before_its_checksum_holds() -> None:
    async with legacy() as docker:
        await docker.announce("app", [BASE])
        assert (await docker.put_json(BASE)).status == 200
        assert (await docker.put_layer(BASE)).status == 200
        for noun in ("json", "layer", "ancestry", "checksum", "files"):
            refused(404, "Image not found", await docker.ask("GET", f"images/{BASE.id}/{noun}"))
        refused(404, "Image not found", await docker.put_tag("app", "latest", BASE))
        wrong = "sha256:" + "0" * 64
        refused(400, "Checksum mismatch", await docker.put_checksum(BASE, X_Docker_Checksum_Payload=wrong))
        assert visible(docker) == []
        assert (await docker.put_checksum(BASE)).status == 200
        assert (await docker.ask("GET", f"images/{BASE.id}/json")).body == BASE.json


@asynchronous
async def test_a_layer_that_breaks_off_leaves_nothing_and_can_be_sent_again() -> None:
    async with legacy() as docker:
        await docker.announce("app", [BASE])
        await docker.put_json(BASE)
        head = f"PUT /v1/images/{BASE.id}/layer HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n"
        _, writer = await asyncio.open_connection("127.0.0.1", docker.registry.port)
        writer.write(head.encode() + b"x" * 100_000)
        await writer.drain()
        store = docker.registry.store
        async with asyncio.timeout(10):
            while not any("/stream-" in path for path in store.paths("uploads/")):
                await asyncio.sleep(0.01)
            writer.close()
            while any("/stream-" in path for path in store.paths("uploads/")):
                await asyncio.sleep(0.01)
        assert store.paths("uploads/") == [f"uploads/v1/{BASE.id}/json"]
        refused(400, "has not been pushed", await docker.put_checksum(BASE))
        assert (await docker.put_layer(BASE)).status == 200
        assert (await docker.put_checksum(BASE)).status == 200


@asynchronous
async def test_a_store_that_fails_is_told_and_leaves_nothing() -> None:
    async with legacy() as docker:
        await docker.announce("app", [BASE])
        await docker.put_json(BASE)
        docker.registry.store.fail("flush", NoWritableGroup("chunk-2 is OFFLINE"))
        answer = await docker.put_layer(BASE)
        refused(503, "chunk-2 is OFFLINE", answer)
        assert answer.headers["Retry-After"]
        assert docker.registry.store.paths("uploads/") == [f"uploads/v1/{BASE.id}/json"]


@asynchronous
async def test_an_image_never_changes() -> None:
    async with legacy() as docker:
        await docker.push("app", "latest", [BASE])
        refused(409, "Image already exists", await docker.put_json(BASE))
        refused(409, "Image already exists", await docker.put_layer(BASE))
        other = "sha256:" + "0" * 64
        refused(409, "already exists", await docker.put_checksum(BASE, X_Docker_Checksum_Payload=other))
        assert (await docker.put_checksum(BASE)).status == 200, "the answer to the first may be lost"
        assert (await docker.ask("GET", f"images/{BASE.id}/json")).body == BASE.json


@asynchronous
async def test_a_layer_never_meets_a_json_that_it_was_not_sent_for() -> None:
    """Another JSON between the layer and the checksum begins the push anew."""
    async with legacy() as docker:
        await docker.put_json(BASE)
        await docker.put_layer(BASE)
        await docker.ask("PUT", f"images/{BASE.id}/json", data=BASE.json + b" ")
        refused(400, "has not been pushed", await docker.put_checksum(BASE))
        assert visible(docker) == []


@asynchronous
async def test_a_commit_that_meets_a_rival_is_tried_again() -> None:
    async with legacy() as docker:
        await docker.put_json(BASE)
        await docker.put_layer(BASE)
        docker.registry.store.fail("commit", Precondition("rival"), times=2)
        assert (await docker.put_checksum(BASE)).status == 200
        assert (await docker.ask("GET", f"images/{BASE.id}/layer")).body == BASE.layer


@asynchronous
async def test_garbage_collection_discards_what_does_not_go_on_and_nothing_else() -> None:
    async with legacy() as docker:
        await docker.push("app", "latest", [BASE])
        await docker.put_json(APP)
        await docker.put_layer(APP)
        store = docker.registry.store
        for now_ms in (2**42, 2**42 + 10_000):
            stamper = Stamper(lambda now_ms=now_ms: now_ms, lambda: "0" * 32)  # type: ignore[misc]
            await garbage_collection(store, Settings(upload_expiry_s=5.0), stamper).run()
        assert store.paths("uploads/") == []
        refused(404, "Image not found", await docker.put_checksum(APP))
        assert await docker.put_image(APP)
        assert (await docker.put_tag("app", "2", APP)).status == 200
        assert list(await docker.pull("app", "2")) == [APP.id, BASE.id]


@asynchronous
async def test_garbage_collection_leaves_a_layer_that_has_just_begun_to_arrive() -> None:
    async with legacy() as docker:
        await docker.put_json(BASE)
        sent, goes_on = asyncio.Event(), asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield BASE.layer[:10]
            sent.set()
            await goes_on.wait()
            yield BASE.layer[10:]

        put = asyncio.create_task(docker.ask("PUT", f"images/{BASE.id}/layer", data=slow()))
        await sent.wait()
        store = docker.registry.store
        async with asyncio.timeout(10):
            while not any("/stream-" in path for path in store.paths("uploads/")):
                await asyncio.sleep(0.01)
        stamper = Stamper(lambda: time.time_ns() // 1_000_000, lambda: "0" * 32)
        await garbage_collection(store, Settings(), stamper).run()
        goes_on.set()
        assert (await put).status == 200
        assert (await docker.put_checksum(BASE)).status == 200


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "Invalid JSON"),
        (b"[]", "Invalid JSON"),
        (b'{"parent": "x"}', "Invalid JSON"),
        (b"[" * 100_000, "Invalid JSON"),
        (json.dumps({"id": APP.id}).encode(), "invalid id"),
        (json.dumps({"id": BASE.id, "parent": "../x"}).encode(), "invalid parent"),
        (json.dumps({"id": BASE.id, "parent": BASE.id}).encode(), "invalid parent"),
    ],
    ids=["empty", "a list", "no id", "deep", "another's id", "no id as parent", "its own parent"],
)
def test_a_json_that_is_not_an_image_is_refused(body: bytes, message: str) -> None:
    async def run() -> None:
        async with legacy() as docker:
            refused(400, message, await docker.ask("PUT", f"images/{BASE.id}/json", data=body))
            assert docker.registry.store.paths() == []

    asyncio.run(run())


@asynchronous
async def test_an_image_without_its_parent_is_refused() -> None:
    async with legacy() as docker:
        refused(404, "Image not found", await docker.put_json(APP))
        refused(404, "Image not found", await docker.put_layer(APP))
        refused(404, "Image not found", await docker.put_checksum(APP))


@asynchronous
async def test_a_checksum_must_be_there_and_of_a_known_kind() -> None:
    async with legacy() as docker:
        await docker.put_json(BASE)
        await docker.put_layer(BASE)
        refused(412, "missing", await docker.put_checksum(BASE, X_Other="1"))
        refused(400, "a checksum is", await docker.put_checksum(BASE, X_Docker_Checksum="md5:00"))


@asynchronous
async def test_large_jsons_and_lists_are_refused() -> None:
    async with legacy() as docker:
        answer = await docker.ask("PUT", f"images/{BASE.id}/json", data=b" " * (1024 * 1024 + 1))
        assert answer.status == 413
        answer = await docker.open("PUT", "repositories/app/", data=b" " * (4 * 1024 * 1024 + 1))
        assert answer.status == 413
        for bad in (b"{}", b'[{"Tag": "x"}]', b'[{"id": "../x"}]', b"\xff"):
            refused(400, "Invalid data", await docker.open("PUT", "repositories/app/", data=bad))
        assert docker.registry.store.paths() == []


@asynchronous
async def test_the_token_goes_to_a_host_or_nowhere() -> None:
    async with legacy() as docker:
        await docker.announce("app", [])
        answer = await docker.registry.raw(
            b"GET /v1/repositories/app/images HTTP/1.1\r\nHost: a,evil.example/\r\nConnection: close\r\n\r\n"
        )
        assert answer.status == 400
        assert "x-docker-token" not in answer.headers


# --- download -------------------------------------------------------------------------------------


@asynchronous
async def test_a_layer_is_resumed_with_a_range() -> None:
    async with legacy() as docker:
        big = Image("big", layer=bytes(range(256)) * 20_000)
        await docker.push("app", "latest", [big])
        path = f"images/{big.id}/layer"
        whole = await docker.ask("GET", path)
        assert (whole.status, whole.headers["Accept-Ranges"], whole.body) == (200, "bytes", big.layer)
        head = await docker.ask("HEAD", path)
        assert (head.status, head.headers["Content-Length"]) == (200, str(len(big.layer)))
        part = await docker.ask("GET", path, headers={"Range": "bytes=4194300-4194310"})
        assert (part.status, part.body) == (206, big.layer[4194300:4194311])
        assert part.headers["Content-Range"] == f"bytes 4194300-4194310/{len(big.layer)}"
        rest = await docker.ask("GET", path, headers={"Range": "bytes=5000000-"})
        assert (rest.status, rest.body) == (206, big.layer[5_000_000:])
        beyond = await docker.ask("GET", path, headers={"Range": f"bytes={len(big.layer)}-"})
        assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{len(big.layer)}")


@asynchronous
async def test_an_empty_layer_is_a_layer() -> None:
    async with legacy() as docker:
        empty = Image("empty")
        await docker.push("app", "latest", [empty])
        assert await docker.pull("app", "latest") == {empty.id: (empty.json, b"")}


@asynchronous
async def test_an_image_tells_its_checksums_and_an_entity_tag() -> None:
    async with legacy() as docker:
        await docker.push("app", "latest", [BASE])
        answer = await docker.ask("GET", f"images/{BASE.id}/json")
        assert answer.headers["X-Docker-Checksum-Payload"] == BASE.payload
        assert (await docker.ask("GET", f"images/{BASE.id}/checksum")).json == [BASE.payload]
        same = {"If-None-Match": answer.headers["ETag"]}
        assert (await docker.ask("GET", f"images/{BASE.id}/json", headers=same)).status == 304
        assert (await docker.ask("GET", f"images/{BASE.id}/layer", headers=same)).status == 304


@asynchronous
async def test_a_download_that_the_store_cannot_finish_is_cut() -> None:
    async with legacy() as docker:
        big = Image("big", layer=b"x" * (2 * FRAGMENT_BYTES_MAX))
        await docker.push("app", "latest", [big])
        docker.registry.store.fail("read", NoWritableGroup("gone"), after=1)
        with pytest.raises(aiohttp.ClientError):
            await docker.ask("GET", f"images/{big.id}/layer")
