"""What a hostile client tries, case by case; 4 to 6 are about access and stand with it."""

from __future__ import annotations

import asyncio
import json
import uuid

import pytest

import fabric.driver.registry.http as http_shell
import fabric.driver.registry.http_body as http_body
from fabric.settings import Settings
from tests.unit.driver.registry.harness import (
    OCI_INDEX,
    OCI_MANIFEST,
    Registry,
    asynchronous,
    descriptor,
    image,
    index,
    refused,
    registry,
    sha256,
)

DATA = b"some bytes"
BAD_DIGESTS = [
    "sha256:" + "0" * 64,
    "md5:" + "0" * 32,
    "blake3:" + "0" * 64,
    "sha256:" + "A" * 64,
    "SHA256:" + "a" * 64,
    "sha256:../../x",
    "sha256:..%2f..%2fx",
    "sha256:" + "a" * 63,
    "sha256:" + "a" * 63 + "/",
    "sha512:" + "a" * 64,
    "sha256",
    ":" + "a" * 64,
    "sha256:" + "a" * 64 + "\0",
]


@pytest.mark.parametrize("digest", BAD_DIGESTS)
@asynchronous
async def test_case_1_a_digest_that_is_not_that_of_the_bytes(digest: str) -> None:
    async with registry() as client:
        location = await client.start_upload()
        await client.call("PATCH", location, data=DATA)
        params = {"digest": digest}
        refused(400, "DIGEST_INVALID", await client.call("PUT", location, params=params))
        posted = await client.call("POST", "/v2/app/blobs/uploads/", params=params, data=DATA)
        refused(400, "DIGEST_INVALID", posted)
        stored = [path for path in client.store.paths() if not path.startswith("uploads/")]
        assert stored == []


@asynchronous
async def test_case_1_a_manifest_under_another_digest() -> None:
    async with registry() as client:
        await client.push_blob(b"c")
        before = client.store.paths()
        for digest in (sha256(b"other"), "sha256:" + "A" * 64, "md5:" + "0" * 32):
            refused(400, "DIGEST_INVALID", await client.push_manifest(image(b"c", []), digest))
        assert client.store.paths() == before


BAD_NAMES = [
    "..", "a/../b", "%2e%2e", "a/%2e%2e/b", "%2E%2E/a", "a%2fb", "a%2Fb", "a%5cb", "a%252fb", "%252e%252e",
    "%25252e%25252e", "a%00b", "a\0b", "a%0d%0ab", "A", "a//b", "_blobs", "a/_tags", "a" * 256,
    "/".join(["a" * 100] * 3), "a" * 5000, "é", "%c3%a9", "%c0%ae%c0%ae", "a%", "a%zz", ".", "a/./b", "-a",
    "a-",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
@asynchronous
async def test_case_2_a_name_that_is_not_one(name: str) -> None:
    async with registry() as client:
        for method, path in (
            ("GET", f"/v2/{name}/tags/list"),
            ("POST", f"/v2/{name}/blobs/uploads/"),
            ("PUT", f"/v2/{name}/manifests/latest"),
            ("GET", f"/v2/{name}/blobs/{sha256(DATA)}"),
            ("DELETE", f"/v2/{name}/manifests/latest"),
        ):
            answer = await client.raw_path(method, path)
            assert answer.status == 400, (path, answer.body)
        assert client.store.calls.total() == 0, "no path was built of it"


@pytest.mark.parametrize("name", ["../x", "a%2fb", "a\0b", "A", "a" * 256])
@asynchronous
async def test_case_2_names_in_a_query(name: str) -> None:
    async with registry() as client:
        mount = {"mount": sha256(DATA), "from": name}
        refused(400, "NAME_INVALID", await client.call("POST", "/v2/app/blobs/uploads/", params=mount))
        refused(400, "NAME_INVALID", await client.call("GET", "/v2/_catalog", params={"last": name}))
        assert client.store.calls.total() == 0


@asynchronous
async def test_case_3_upload_ids_belong_to_their_repository() -> None:
    async with registry() as client:
        locations = [await client.start_upload("mine") for _ in range(50)]
        ids = {location.rpartition("/")[2] for location in locations}
        assert len({uuid.UUID(one).int for one in ids}) == 50
        for location in (locations[0].replace("/mine/", "/yours/"), f"/v2/mine/blobs/uploads/{uuid.uuid4()}"):
            for method in ("GET", "PATCH", "DELETE", "PUT"):
                answer = await client.call(method, location, params={"digest": sha256(b"")})
                refused(404, "BLOB_UPLOAD_UNKNOWN", answer)
        assert len(client.store.paths("uploads/")) == 50


@pytest.mark.parametrize(
    "span", ["1-10", "9-0", "0-9-9", "bytes 0-9/10", "0-", "-9", "a-b", "0x0-0x9", "0-9,1-2"]
)
@asynchronous
async def test_case_3_a_bad_content_range(span: str) -> None:
    async with registry() as client:
        location = await client.start_upload()
        answer = await client.call("PATCH", location, data=DATA, headers={"Content-Range": span})
        refused(416, "BLOB_UPLOAD_INVALID", answer)
        assert (await client.call("PUT", f"{location}?digest={sha256(b'')}")).status == 201, "it is empty"


@asynchronous
async def test_case_3_of_two_patches_at_once_one_wins() -> None:
    async with registry() as client:
        location = await client.start_upload()
        span = {"Content-Range": "0-9"}
        answers = await asyncio.gather(
            *[client.call("PATCH", location, data=letter * 10, headers=span) for letter in (b"a", b"b", b"c")]
        )
        assert sorted(answer.status for answer in answers) == [202, 416, 416]
        content = client.store.content(client.store.paths("uploads/")[0])
        assert content in (b"a" * 10, b"b" * 10, b"c" * 10)


@asynchronous
async def test_case_7_pages_are_bounded_whatever_is_asked_for() -> None:
    async with registry() as client:
        await client.push_image(name="a")
        for number in range(1001):
            client.store.entries[f"names/b{number:04}"] = client.store.entries["names/a"]
            client.store.entries[f"repositories/a/_tags/t{number:04}"] = client.store.entries[
                "repositories/a/_tags/latest"
            ]
        for path, key in (("/v2/_catalog", "repositories"), ("/v2/a/tags/list", "tags")):
            for number in ("1000000000", "9" * 25):
                answer = await client.call("GET", f"{path}?n={number}")
                assert (answer.status, len(answer.json[key]), "Link" in answer.headers) == (200, 1000, True)
            assert (await client.call("GET", f"{path}?n={'9' * 5000}")).status == 400


def nested(depth: int) -> bytes:
    return image(b"c", [], extra=0).replace(b'"extra": 0', b'"extra": ' + b"[" * depth + b"]" * depth)


@asynchronous
async def test_case_7_manifests_are_bounded_in_size_depth_and_layers() -> None:
    async with registry(settings=Settings(manifest_bytes_max=500_000)) as client:
        await client.push_blob(b"c")
        before = client.store.paths()
        large = image(b"c", []) + b" " * 500_000
        refused(413, "SIZE_INVALID", await client.push_manifest(large, "x"))
        for depth in (100, 50_000):
            refused(400, "MANIFEST_INVALID", await client.push_manifest(nested(depth), "x"))
        many = image(b"c", [], layers=[descriptor(b"c")] * 1200)
        refused(400, "MANIFEST_INVALID", await client.push_manifest(many, "x"))
        assert client.store.paths() == before
        assert (await client.push_manifest(nested(10), "x")).status == 201


@pytest.mark.parametrize("head", [b"", b"GET /v2/ HT", b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX: "])
@asynchronous
async def test_case_7_a_client_without_a_whole_request_is_cut_off(
    head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_shell, "IDLE_TIMEOUT_S", 0.1)
    async with registry() as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        writer.write(head)
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@asynchronous
async def test_case_7_a_client_that_trickles_its_body_is_given_up(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_shell, "LINGER_S", 0.1)
    async with registry(settings=Settings(client_stall_timeout_s=0.4)) as client:
        path = "/v2/app/manifests/latest" if method == "PUT" else await client.start_upload()
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
        answer = await trickled(client, head.encode())
        assert answer.startswith(b"HTTP/1.1 408 ")


async def trickled(client: Registry, head: bytes) -> bytes:
    """A byte now and then, each well within the time that a client may be silent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)

    async def feed() -> None:
        writer.write(head)
        while True:
            writer.write(b" ")
            await asyncio.sleep(0.1)

    feeding = asyncio.ensure_future(feed())
    try:
        async with asyncio.timeout(10):
            return await reader.readuntil(b"\r\n\r\n")
    finally:
        feeding.cancel()
        writer.close()


TWO_FACED = [
    (image(b"c", []), OCI_INDEX),
    (index([]), OCI_MANIFEST),
    (image(b"c", [], manifests=[]), OCI_MANIFEST),
    (index([], layers=[]), OCI_INDEX),
    (image(b"c", [], mediaType="a/b", manifests=[]), "a/b"),
    (image(b"c", [], mediaType=OCI_INDEX), OCI_MANIFEST),
]


@pytest.mark.parametrize(("data", "content_type"), TWO_FACED)
@asynchronous
async def test_case_8_a_manifest_is_one_thing_to_everybody(data: bytes, content_type: str) -> None:
    async with registry() as client:
        await client.push_blob(b"c")
        before = client.store.paths()
        for reference in ("latest", sha256(data)):
            answer = await client.push_manifest(data, reference, media_type=content_type)
            refused(400, "MANIFEST_INVALID", answer)
        assert client.store.paths() == before


@asynchronous
async def test_case_9_fifty_pushes_of_one_tag_leave_one_complete_manifest() -> None:
    async with registry() as client:
        layers = [f"layer {number}".encode() for number in range(5)]
        for blob in (b"c", *layers):
            await client.push_blob(blob)
        manifests = [image(b"c", [layers[n % 5]], annotations={"n": str(n)}) for n in range(50)]

        answers = await asyncio.gather(*[client.push_manifest(one, "latest") for one in manifests])

        assert {answer.status for answer in answers} == {201}
        got = await client.call("GET", "/v2/app/manifests/latest")
        assert got.body in manifests and got.headers["Docker-Content-Digest"] == sha256(got.body)
        for layer in json.loads(got.body)["layers"]:
            assert (await client.call("GET", f"/v2/app/blobs/{layer['digest']}")).status == 200


FRAMINGS = {
    "length and encoding": b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "encoding and length": b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "two equal lengths": b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": b"Content-Length: 3, 3\r\n\r\nabc",
    "a length with a sign": b"Content-Length: +3\r\n\r\nabc",
    "a negative length": b"Content-Length: -3\r\n\r\nabc",
    "an empty length": b"Content-Length: \r\n\r\nabc",
    "a space before the colon": b"Content-Length : 3\r\n\r\nabc",
    "a folded header": b"X: a\r\n b\r\nContent-Length: 3\r\n\r\nabc",
    "chunked twice": b"Transfer-Encoding: chunked, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "an unknown encoding": b"Transfer-Encoding: xchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "a bad chunk size": b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
    "a negative chunk size": b"Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
    "a huge chunk size": b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "a chunk without its end": b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcXX0\r\n\r\n",
    "bare line feeds": b"Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n",
}


@pytest.mark.parametrize("rest", FRAMINGS.values(), ids=FRAMINGS)
@asynchronous
async def test_case_10_ambiguous_framing_is_refused_and_the_connection_closed(rest: bytes) -> None:
    async with registry() as client:
        location = await client.start_upload()
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        smuggled = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"
        writer.write(f"PATCH {location} HTTP/1.1\r\nHost: x\r\n".encode() + rest + smuggled)
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
        assert answer.split(b" ")[1] == b"400"
        assert b" 200 OK" not in answer, "what came after it was not taken for a request"
        assert (await client.call("GET", location)).headers["Range"] == "0-0"


@asynchronous
async def test_case_10_framing_that_breaks_in_mid_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_shell, "LINGER_S", 0.1)
    monkeypatch.setattr(http_body, "FRAMING_CHECK_S", 0.05)
    async with registry() as client:
        location = await client.start_upload()
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head.encode() + b"3\r\nabc\r\n")
        async with asyncio.timeout(10):
            while not client.store.calls["write"]:
                await asyncio.sleep(0.001)
            writer.write(b"zz\r\n")
            answer = await reader.read()
        writer.close()
        assert answer.split(b" ")[1] == b"400"
        assert b"\r\nConnection: close\r\n" in answer
