"""Downloads, and everything about HTTP that is not about one noun."""

from __future__ import annotations

import asyncio
import email
import email.policy
import json

import pytest

from fabric.errors import NoGoodCopy, Unavailable
from fabric.settings import MIB, Settings
from tests.unit.driver.registry.harness import asynchronous, refused, registry, sha256

DATA = bytes(range(256)) * 4


@asynchronous
async def test_get_and_head() -> None:
    async with registry() as client:
        digest = await client.push_blob(DATA)
        for method in ("GET", "HEAD"):
            answer = await client.call(method, f"/v2/app/blobs/{digest}")
            assert (answer.status, answer.body) == (200, DATA if method == "GET" else b"")
            assert answer.headers["Content-Length"] == str(len(DATA))
            assert answer.headers["Content-Type"] == "application/octet-stream"
            assert answer.headers["Docker-Content-Digest"] == digest
            assert answer.headers["ETag"] == f'"{digest}"'
            assert answer.headers["Accept-Ranges"] == "bytes"
            assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
        same = await client.call("GET", f"/v2/app/blobs/{digest}", headers={"If-None-Match": f'"{digest}"'})
        assert (same.status, same.body) == (304, b"")
        encoded = digest.replace(":", "%3A")
        assert (await client.raw_path("GET", f"/v2/app/blobs/{encoded}")).body == DATA


RANGES = [
    ("bytes=0-9", 206, DATA[:10], "bytes 0-9/1024"),
    ("bytes=1000-", 206, DATA[1000:], "bytes 1000-1023/1024"),
    ("bytes=-5", 206, DATA[-5:], "bytes 1019-1023/1024"),
    ("bytes=1000-5000", 206, DATA[1000:], "bytes 1000-1023/1024"),
    ("bytes=0-1,1024-", 206, DATA[:2], "bytes 0-1/1024"),
    ("nonsense", 200, DATA, None),
]


@pytest.mark.parametrize(("header", "status", "body", "content_range"), RANGES)
@asynchronous
async def test_ranges(header: str, status: int, body: bytes, content_range: str | None) -> None:
    async with registry() as client:
        digest = await client.push_blob(DATA)
        answer = await client.call("GET", f"/v2/app/blobs/{digest}", headers={"Range": header})
        assert (answer.status, answer.body) == (status, body)
        assert answer.headers.get("Content-Range") == content_range
        assert answer.headers["Content-Length"] == str(len(body))


@asynchronous
async def test_a_range_beyond_the_end_and_a_range_of_another_version() -> None:
    async with registry() as client:
        path = f"/v2/app/blobs/{await client.push_blob(DATA)}"
        answer = await client.call("GET", path, headers={"Range": "bytes=1024-"})
        assert (answer.status, answer.headers["Content-Range"]) == (416, "bytes */1024")
        assert (await client.call("GET", path, headers={"Range": "bytes=5-4"})).status == 416
        other = {"Range": "bytes=0-1", "If-Range": '"other"'}
        assert (await client.call("GET", path, headers=other)).status == 200


@asynchronous
async def test_several_ranges_come_as_one_multipart_body() -> None:
    async with registry() as client:
        digest = await client.push_blob(DATA)
        headers = {"Range": "bytes=0-1, 1000-1099, -3"}

        answer = await client.call("GET", f"/v2/app/blobs/{digest}", headers=headers)

        assert (answer.status, int(answer.headers["Content-Length"])) == (206, len(answer.body))
        assert "Content-Range" not in answer.headers
        assert (answer.headers["Docker-Content-Digest"], answer.headers["ETag"]) == (digest, f'"{digest}"')
        text = f"Content-Type: {answer.headers['Content-Type']}\r\n\r\n".encode() + answer.body
        message = email.message_from_bytes(text, policy=email.policy.HTTP)
        assert message.get_content_type() == "multipart/byteranges"
        parts = [(part["Content-Range"], part.get_payload(decode=True)) for part in message.iter_parts()]
        assert parts == [
            ("bytes 0-1/1024", DATA[:2]),
            ("bytes 1000-1023/1024", DATA[1000:]),
            ("bytes 1021-1023/1024", DATA[-3:]),
        ]


@asynchronous
async def test_an_error_between_two_parts_cuts_the_connection() -> None:
    async with registry() as client:
        digest = await client.push_blob(DATA)
        client.store.fail("open", NoGoodCopy("gone"), after=1)
        ask = f"GET /v2/app/blobs/{digest} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-9,20-29\r\n\r\n"
        answer = await client.raw(ask.encode())
        assert answer.status == 206
        assert DATA[:10] in answer.body and DATA[20:30] not in answer.body
        assert len(answer.body) < int(answer.headers["content-length"])


@asynchronous
async def test_a_range_is_for_get_only() -> None:
    async with registry() as client:
        path = f"/v2/app/blobs/{await client.push_blob(DATA)}"
        answer = await client.call("HEAD", path, headers={"Range": "bytes=0-1"})
        assert (answer.status, answer.headers["Content-Length"]) == (200, str(len(DATA)))


@asynchronous
async def test_ranges_over_fragments() -> None:
    data = b"".join(number.to_bytes(4, "big") for number in range(9 * MIB // 4))
    async with registry() as client:
        path = f"/v2/app/blobs/{await client.push_blob(data)}"
        for start, end in ((4 * MIB - 1, 4 * MIB), (3 * MIB, 8 * MIB + 5), (8 * MIB, 9 * MIB - 1)):
            answer = await client.call("GET", path, headers={"Range": f"bytes={start}-{end}"})
            assert answer.body == data[start : end + 1]


@asynchronous
async def test_a_blob_is_known_only_where_it_is_linked() -> None:
    async with registry() as client:
        digest = await client.push_blob(DATA, "mine")
        for method in ("GET", "HEAD", "DELETE"):
            assert (await client.call(method, f"/v2/yours/blobs/{digest}")).status == 404
        refused(404, "BLOB_UNKNOWN", await client.call("GET", f"/v2/yours/blobs/{digest}"))
        assert (await client.call("DELETE", f"/v2/mine/blobs/{digest}")).status == 202
        refused(404, "BLOB_UNKNOWN", await client.call("GET", f"/v2/mine/blobs/{digest}"))
        refused(404, "BLOB_UNKNOWN", await client.call("DELETE", f"/v2/mine/blobs/{digest}"))
        refused(400, "DIGEST_INVALID", await client.call("GET", "/v2/mine/blobs/latest"))


@asynchronous
async def test_committed_but_unreadable_is_never_absent() -> None:
    async with registry() as client:
        digest = await client.push_blob(DATA)
        path = f"/v2/app/blobs/{digest}"
        client.store.fail("open", NoGoodCopy("fragment 7: chunk-1, chunk-2, chunk-3"))
        answer = await client.call("GET", path)
        refused(503, "NO_GOOD_COPY", answer)
        assert "chunk-3" in answer.json["errors"][0]["message"]
        del client.store.entries[client.store.paths("blobs/")[0]]
        refused(500, "INTERNAL", await client.call("GET", path))


@asynchronous
async def test_a_blob_deleted_and_freed_while_it_is_opened_is_absent() -> None:
    async with registry() as client:
        digest = await client.push_blob(DATA)
        store, opened = client.store, client.store.open

        async def free_first(*arguments, **options):  # type: ignore[no-untyped-def]
            store.entries.clear()
            return await opened(*arguments, **options)

        store.open = free_first  # type: ignore[method-assign]
        refused(404, "BLOB_UNKNOWN", await client.call("GET", f"/v2/app/blobs/{digest}"))


@asynchronous
async def test_an_error_in_mid_stream_cuts_the_connection() -> None:
    data = bytes(12 * MIB)
    async with registry() as client:
        digest = await client.push_blob(data)
        client.store.fail("read", Unavailable("gone"), after=2)
        answer = await client.raw(f"GET /v2/app/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert (answer.status, answer.headers["content-length"]) == (200, str(len(data)))
        assert len(answer.body) < len(data)


@asynchronous
async def test_a_reader_that_stops_reading_is_given_up_and_its_place_is_free() -> None:
    settings = Settings(client_stall_timeout_s=0.2, registry_downloads_max=1)
    async with registry(settings=settings) as client:
        digest = await client.push_blob(bytes(40 * MIB))
        request = f"GET /v2/app/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port, limit=1024)
        writer.write(request)
        await reader.readuntil(b"\r\n\r\n")
        refused(429, "TOOMANYREQUESTS", await client.call("GET", f"/v2/app/blobs/{digest}"))
        async with asyncio.timeout(10):
            while (
                await client.call("GET", f"/v2/app/blobs/{digest}", headers={"Range": "bytes=0-0"})
            ).status != 206:
                await asyncio.sleep(0.05)
        writer.close()


@asynchronous
async def test_support_and_health() -> None:
    async with registry() as client:
        for path in ("/v2/", "/v2"):
            answer = await client.call("GET", path)
            assert (answer.status, answer.body) == (200, b"{}")
            assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
        assert (await client.call("GET", "/healthz")).status == 200
        assert client.store.calls.total() == 0, "being alive does not depend on the store"


WRONG = [
    ("POST", "/v2/", 405, "UNSUPPORTED"),
    ("DELETE", "/v2/app/tags/list", 405, "UNSUPPORTED"),
    ("PATCH", "/v2/app/manifests/x", 405, "UNSUPPORTED"),
    ("OPTIONS", "/v2/app/manifests/x", 405, "UNSUPPORTED"),
    ("GET", "/v2/app/nothing", 404, "UNSUPPORTED"),
    ("GET", "/favicon.ico", 404, "UNSUPPORTED"),
    ("GET", "/v2/app/../secret/tags/list", 400, "NAME_INVALID"),
    ("GET", "/v2/%2e%2e/etc/tags/list", 400, "NAME_INVALID"),
    ("GET", "/v2/a%2fb/tags/list", 400, "NAME_INVALID"),
    ("GET", "/v2/a%252fb/tags/list", 400, "NAME_INVALID"),
    ("GET", "/v2/a%00b/tags/list", 400, "NAME_INVALID"),
    ("GET", "/v2/a%0Ab/tags/list", 400, "NAME_INVALID"),
    ("POST", "/v2/APP/blobs/uploads/", 400, "NAME_INVALID"),
    ("POST", "/v2/" + "a" * 256 + "/blobs/uploads/", 400, "NAME_INVALID"),
    ("PUT", "/v2/_tags/manifests/x", 400, "NAME_INVALID"),
    ("GET", "/v2/app/blobs/sha256:../../../etc/passwd", 400, "NAME_INVALID"),
    ("POST", "/v2/app/blobs/uploads/?mount=sha256:" + "0" * 64 + "&from=../x", 400, "NAME_INVALID"),
]


@pytest.mark.parametrize(("method", "path", "status", "code"), WRONG)
@asynchronous
async def test_requests_that_reach_no_rule(method: str, path: str, status: int, code: str) -> None:
    async with registry() as client:
        answer = await client.raw_path(method, path)
        refused(status, code, answer)
        assert ("allow" in answer.headers) == (status == 405)
        assert client.store.calls.total() == 0


RAW = {
    "length and encoding": b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "a length with a sign": b"Content-Length: +3\r\n\r\nabc",
    "a bad chunk size": b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("rest", RAW.values(), ids=RAW)
@asynchronous
async def test_ambiguous_framing_is_refused_and_nothing_stored(rest: bytes) -> None:
    async with registry() as client:
        location = await client.start_upload()
        answer = await client.raw(f"PATCH {location} HTTP/1.1\r\nHost: x\r\n".encode() + rest)
        assert answer.status in (400, 408)
        assert (await client.call("GET", location)).headers["Range"] == "0-0"


@asynchronous
async def test_errors_are_small_and_json_whatever_the_client_sent() -> None:
    async with registry() as client:
        answer = await client.call("GET", "/v2/app/manifests/sha256:" + "x" * 700)
        refused(400, "DIGEST_INVALID", answer)
        assert len(answer.body) < 600
        assert answer.headers["Content-Type"] == "application/json"
        json.loads(answer.body)
        assert sha256(b"") not in answer.body.decode()
