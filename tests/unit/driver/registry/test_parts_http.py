"""Uploads in parts over HTTP: statuses, headers, who may, and what other requests see of them."""

from __future__ import annotations

import asyncio
import hashlib
import random

import pytest

from fabric.driver.registry import http_parts
from fabric.driver.registry.following import CLAIM
from fabric.driver.registry.part_order import PART_BYTES_MAX, PART_UNIT_BYTES, Claim
from fabric.driver.registry.routes import Endpoint, Route, parse_path
from fabric.errors import NoGoodCopy, Unavailable
from fabric.settings import Settings
from fabric.wire.messages import AppendOperation
from tests.unit.driver.registry.harness import Answer, Registry, asynchronous, refused, registry, sha256
from tests.unit.driver.registry.memory_store import MemoryStore

UNIT = PART_UNIT_BYTES
DATA = random.Random(3).randbytes(2 * UNIT + 17)
SPANS = [(0, UNIT), (UNIT, 2 * UNIT), (2 * UNIT, len(DATA))]


async def begin(served: Registry, name: str = "app", query: str = "") -> str:
    answer = await served.call("POST", f"/v2/{name}/_fabric/uploads/parts{query}")
    assert answer.status == 202, answer.body
    return str(answer.headers["Location"])


async def send(served: Registry, location: str, start: int, end: int, **headers: str) -> Answer:
    named = {"Content-Range": f"{start}-{end - 1}", **{k.replace("_", "-"): v for k, v in headers.items()}}
    return await served.call("PATCH", location, data=DATA[start:end], headers=named)


async def send_all(served: Registry, location: str) -> None:
    for start, end in reversed(SPANS):
        assert (await send(served, location, start, end)).status == 202


@asynchronous
async def test_parts_side_by_side_at_two_registries_make_a_blob() -> None:
    store = MemoryStore()
    async with registry(store) as first, registry(store) as second:
        answer = await first.call("POST", "/v2/app/_fabric/uploads/parts")
        assert answer.headers["Fabric-Part-Size-Min"] == str(UNIT)
        assert answer.headers["Fabric-Part-Size-Max"] == str(PART_BYTES_MAX)
        location = answer.headers["Location"]
        assert location == f"/v2/app/blobs/uploads/{answer.headers['Docker-Upload-UUID']}"
        sent = [
            send(served, location, *span) for span, served in zip(SPANS, (first, second, first), strict=True)
        ]
        assert [answer.status for answer in await asyncio.gather(*sent)] == [202] * 3

        digest = sha256(DATA)
        done = await first.call("PUT", f"{location}?digest={digest}&size={len(DATA)}")
        while done.status == 202:  # the other registry computes the digest
            await asyncio.sleep(0.05)
            done = await first.call("PUT", f"{location}?digest={digest}&size={len(DATA)}")
        assert (done.status, done.headers["Docker-Content-Digest"]) == (201, digest)
        assert (await second.call("GET", f"/v2/app/blobs/{digest}")).body == DATA
        assert store.paths("uploads/") + store.paths("parts/") == []
        again = await second.call("PUT", f"{location}?digest={digest}&size={len(DATA)}")
        assert again.status == 201, "safe to repeat"


@asynchronous
async def test_status_lists_what_is_here() -> None:
    async with registry() as served:
        location = await begin(served)
        await send(served, location, *SPANS[1])
        answer = await served.call("GET", location)
        assert (answer.status, answer.headers["Range"]) == (200, "0-0")
        assert answer.json == {"size": 0, "digested": 0, "waiting": [{"start": UNIT, "size": UNIT}]}
        accepted = await send(served, location, *SPANS[0])
        assert accepted.headers["Range"] == f"0-{2 * UNIT - 1}"
        answer = await served.call("GET", location)
        assert (answer.json["size"], answer.json["waiting"]) == (2 * UNIT, [])


@asynchronous
async def test_the_end_says_what_is_missing() -> None:
    async with registry() as served:
        location = await begin(served)
        await send(served, location, *SPANS[1])
        answer = await served.call("PUT", f"{location}?digest={sha256(DATA)}&size={len(DATA)}")
        refused(416, "BLOB_UPLOAD_INVALID", answer)
        missing = answer.json["errors"][0]["detail"]["missing"]
        assert missing == [{"start": 0, "size": UNIT}, {"start": 2 * UNIT, "size": 17}]
        await send_all(served, location)
        assert (await served.call("PUT", f"{location}?digest={sha256(DATA)}")).status == 201


@asynchronous
async def test_the_last_part_may_come_with_the_end() -> None:
    async with registry() as served:
        location = await begin(served)
        for span in SPANS[:2]:
            await send(served, location, *span)
        start, end = SPANS[2]
        headers = {"Content-Range": f"{start}-{end - 1}"}
        answer = await served.call(
            "PUT", f"{location}?digest={sha256(DATA)}", data=DATA[start:end], headers=headers
        )
        assert answer.status == 201


@asynchronous
async def test_sha512_is_said_at_the_beginning() -> None:
    digest = "sha512:" + hashlib.sha512(DATA).hexdigest()
    async with registry() as served:
        location = await begin(served, query="?digest-algorithm=sha512")
        await send_all(served, location)
        refused(400, "DIGEST_INVALID", await served.call("PUT", f"{location}?digest={sha256(DATA)}"))
        assert (await served.call("PUT", f"{location}?digest={digest}")).status == 201
        refused(
            400,
            "DIGEST_INVALID",
            await served.call("POST", "/v2/app/_fabric/uploads/parts?digest-algorithm=md5"),
        )


@pytest.mark.parametrize("declared", [None, "bytes 0-3/4", "3-0", "x"])
@asynchronous
async def test_a_part_needs_a_range(declared: str | None) -> None:
    async with registry() as served:
        location = await begin(served)
        headers = {"Content-Range": declared} if declared else {}
        refused(
            400, "BLOB_UPLOAD_INVALID", await served.call("PATCH", location, data=b"1234", headers=headers)
        )


@asynchronous
async def test_other_refusals() -> None:
    async with registry() as served:
        location = await begin(served)
        refused(416, "BLOB_UPLOAD_INVALID", await send(served, location, 1, 5))
        wrong = await send(served, location, 0, UNIT, Fabric_Part_Digest=sha256(b""))
        refused(400, "DIGEST_INVALID", wrong)
        refused(400, "DIGEST_INVALID", await send(served, location, 0, UNIT, Fabric_Part_Digest="nonsense"))
        headers = {"Content-Range": "0-9"}
        short = await served.call("PATCH", location, data=b"1234", headers=headers)
        refused(400, "SIZE_INVALID", short)
        for size in ("-1", "x", "1" * 20, "٣"):
            refused(
                400, "SIZE_INVALID", await served.call("PUT", f"{location}?digest={sha256(b'')}&size={size}")
            )
        assert served.store.paths("parts/") == []
        right = await send(served, location, 0, UNIT, Fabric_Part_Digest=sha256(DATA[:UNIT]))
        assert right.status == 202


@asynchronous
async def test_an_upload_in_parts_belongs_to_its_repository_and_can_be_cancelled() -> None:
    async with registry() as served:
        location = await begin(served)
        await send(served, location, *SPANS[1])
        elsewhere = location.replace("/v2/app/", "/v2/other/")
        refused(404, "BLOB_UPLOAD_UNKNOWN", await send(served, elsewhere, *SPANS[0]))
        refused(404, "BLOB_UPLOAD_UNKNOWN", await served.call("DELETE", elsewhere))
        assert (await served.call("DELETE", location)).status == 204
        assert served.store.paths("uploads/") + served.store.paths("parts/") == []
        refused(404, "BLOB_UPLOAD_UNKNOWN", await send(served, location, *SPANS[0]))


@asynchronous
async def test_while_another_process_computes_the_digest_the_end_is_put_off() -> None:
    async with registry() as served:
        location = await begin(served)
        path = location.removeprefix("/v2/app/blobs/")
        far = Claim("another", 2**62)
        served.store.run([AppendOperation(path, [], 0, {CLAIM: str(far)})])
        await send_all(served, location)
        answer = await served.call("PUT", f"{location}?digest={sha256(DATA)}")
        assert (answer.status, answer.headers["Fabric-Digested"], answer.headers["Retry-After"]) == (
            202, "0", "1",
        )  # fmt: skip
        served.store.run([AppendOperation(path, [], len(DATA), {CLAIM: "another 0"})])
        assert (await served.call("PUT", f"{location}?digest={sha256(DATA)}")).status == 201


@asynchronous
async def test_a_digest_that_takes_long_puts_the_end_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_parts, "FINISH_WAIT_S", 0.05)
    async with registry() as served:
        location = await begin(served)
        gate = asyncio.Event()
        open_at_once = served.store.open

        async def slow(*args: object) -> object:
            await gate.wait()
            return await open_at_once(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(served.store, "open", slow)
        await send_all(served, location)
        assert (await served.call("PUT", f"{location}?digest={sha256(DATA)}")).status == 202
        gate.set()
        monkeypatch.setattr(http_parts, "FINISH_WAIT_S", 5.0)
        assert (await served.call("PUT", f"{location}?digest={sha256(DATA)}")).status == 201


@asynchronous
async def test_a_store_that_fails_under_the_digest_is_heard_of_at_the_end() -> None:
    async with registry() as served:
        location = await begin(served)
        served.store.fail("open", Unavailable("later"), times=50)
        await send_all(served, location)
        for error in (Unavailable("later"), NoGoodCopy("chunk-1: rot")):
            served.store.fail("open", error, times=50)
            refused(503, error.code, await served.call("PUT", f"{location}?digest={sha256(DATA)}"))
        served.store.fail("open", error, times=0)
        assert (await served.call("PUT", f"{location}?digest={sha256(DATA)}")).status == 201


@asynchronous
async def test_a_plain_upload_takes_no_parts() -> None:
    async with registry() as served:
        location = await served.start_upload()
        refused(416, "BLOB_UPLOAD_INVALID", await send(served, location, *SPANS[1]))
        assert (await served.call("GET", location)).status == 204


@asynchronous
async def test_the_extension_can_be_found_and_switched_off() -> None:
    async with registry() as served:
        for path in ("/v2/_oci/ext/discover", "/v2/app/_oci/ext/discover"):
            answer = await served.call("GET", path)
            assert answer.status == 200
            (extension,) = answer.json["extensions"]
            assert (extension["name"], extension["endpoints"]) == ("_fabric", ["_fabric/uploads/parts"])
    async with registry(settings=Settings(parallel_uploads=False)) as served:
        assert (await served.call("GET", "/v2/_oci/ext/discover")).json == {"extensions": []}
        refused(404, "UNSUPPORTED", await served.call("POST", "/v2/app/_fabric/uploads/parts"))


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v2/_oci/ext/discover", Route(Endpoint.EXTENSIONS)),
        ("/v2/a/b/_oci/ext/discover", Route(Endpoint.EXTENSIONS, "a/b")),
        ("/v2/a/b/_fabric/uploads/parts", Route(Endpoint.PARTS, "a/b")),
    ],
)
def test_routes(path: str, route: Route) -> None:
    assert parse_path(path) == route
