"""Uploads over HTTP: statuses and headers, and what is in the store after each."""

from __future__ import annotations

import asyncio
import hashlib
import uuid

import pytest

from fabric.errors import Busy, DeadlineExceeded, NoSpace, NoWritableGroup, Unavailable
from fabric.settings import MIB, Settings
from fabric.wire.messages import DeleteOperation
from tests.unit.driver.registry.harness import asynchronous, refused, registry, sha256
from tests.unit.driver.registry.memory_store import MemoryStore

DATA = bytes(range(256)) * 40


@asynchronous
async def test_post_then_put_makes_a_blob_and_leaves_no_upload() -> None:
    async with registry() as client:
        started = await client.call("POST", "/v2/a/b/blobs/uploads/")
        assert started.status == 202
        location = started.headers["Location"]
        assert started.headers["Range"] == "0-0"
        assert location == f"/v2/a/b/blobs/uploads/{started.headers['Docker-Upload-UUID']}"
        digest = sha256(DATA)

        done = await client.call("PUT", f"{location}?digest={digest}", data=DATA)

        assert done.status == 201
        assert done.headers["Location"] == f"/v2/a/b/blobs/{digest}"
        assert done.headers["Docker-Content-Digest"] == digest
        assert (await client.call("GET", done.headers["Location"])).body == DATA
        assert client.store.paths("uploads/") == []
        blob = client.store.entries[client.store.paths("blobs/")[0]]
        assert (blob.immutable, blob.digest, blob.attributes) == (True, digest, {})


@asynchronous
async def test_the_end_of_an_upload_is_one_commit() -> None:
    async with registry() as client:
        location = await client.start_upload()
        await client.call("PATCH", location, data=DATA)
        before = len(client.store.commits)

        await client.call("PUT", f"{location}?digest={sha256(DATA)}")

        assert len(client.store.commits) == before + 1


@asynchronous
async def test_chunks_in_order_then_put_with_the_last_one() -> None:
    async with registry() as client:
        location = await client.start_upload()
        first = await client.call("PATCH", location, data=DATA[:100], headers={"Content-Range": "0-99"})
        assert (first.status, first.headers["Range"]) == (202, "0-99")
        second = await client.call(
            "PATCH", first.headers["Location"], data=DATA[100:300], headers={"Content-Range": "100-299"}
        )
        assert (second.status, second.headers["Range"]) == (202, "0-299")
        status = await client.call("GET", location)
        assert (status.status, status.headers["Range"], status.body) == (204, "0-299", b"")
        assert status.headers["Location"] == location

        last = {"Content-Range": f"300-{len(DATA) - 1}"}
        done = await client.call("PUT", f"{location}?digest={sha256(DATA)}", data=DATA[300:], headers=last)

        assert done.status == 201
        assert (await client.call("GET", done.headers["Location"])).body == DATA
        assert client.store.calls["open"] == 1, "nothing was read again to hash it"


BAD_RANGES = [
    ("5-14", 416, "BLOB_UPLOAD_INVALID"),
    ("9-18", 416, "BLOB_UPLOAD_INVALID"),
    ("11-20", 416, "BLOB_UPLOAD_INVALID"),
    ("19-10", 416, "BLOB_UPLOAD_INVALID"),
    ("10", 416, "BLOB_UPLOAD_INVALID"),
    ("bytes 10-19/20", 416, "BLOB_UPLOAD_INVALID"),
    ("-10-19", 416, "BLOB_UPLOAD_INVALID"),
    ("10-99999999999999999999", 416, "BLOB_UPLOAD_INVALID"),
    ("10-29", 400, "SIZE_INVALID"),
    ("10-10", 400, "SIZE_INVALID"),
]


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize(("header", "status", "code"), BAD_RANGES)
@asynchronous
async def test_a_chunk_that_does_not_fit_changes_nothing(
    method: str, header: str, status: int, code: str
) -> None:
    async with registry() as client:
        location = await client.start_upload()
        await client.call("PATCH", location, data=b"0123456789")
        query = f"?digest={sha256(b'0123456789abcdefghij')}" if method == "PUT" else ""

        answer = await client.call(
            method, location + query, data=b"abcdefghij", headers={"Content-Range": header}
        )

        refused(status, code, answer)
        assert client.store.calls["write"] == 1, "refused before anything was written"
        if status == 416:
            assert (answer.headers["Range"], answer.headers["Location"]) == ("0-9", location)
        assert (await client.call("GET", location)).headers["Range"] == "0-9"
        assert client.store.paths("blobs/") == []


async def _streamed(*pieces: bytes):  # type: ignore[no-untyped-def]
    for piece in pieces:
        yield piece


@pytest.mark.parametrize("declared", ["0-3", "0-9"])
@asynchronous
async def test_a_stream_of_another_length_than_its_range_is_refused(declared: str) -> None:
    async with registry() as client:
        location = await client.start_upload()

        answer = await client.call(
            "PATCH", location, data=_streamed(b"abc", b"def"), headers={"Content-Range": declared}
        )

        refused(400, "SIZE_INVALID", answer)
        assert (await client.call("GET", location)).headers["Range"] == "0-0"


@asynchronous
async def test_a_stream_without_length_or_range_is_one_chunk() -> None:
    async with registry() as client:
        location = await client.start_upload()
        answer = await client.call("PATCH", location, data=_streamed(*[DATA] * 50))
        assert (answer.status, answer.headers["Range"]) == (202, f"0-{len(DATA) * 50 - 1}")

        done = await client.call("PUT", f"{location}?digest={sha256(DATA * 50)}")

        assert done.status == 201


@pytest.mark.parametrize("size", [0, 1, 65_536, 4 * MIB, 9 * MIB + 1])
@asynchronous
async def test_sizes(size: int) -> None:
    data = hashlib.shake_128(str(size).encode()).digest(size)
    async with registry() as client:
        digest = await client.push_blob(data)

        got = await client.call("GET", f"/v2/app/blobs/{digest}")

        assert (got.status, got.headers["Content-Length"], got.body) == (200, str(size), data)


@asynchronous
async def test_single_post_with_digest() -> None:
    async with registry() as client:
        digest = sha256(DATA)
        answer = await client.call("POST", f"/v2/app/blobs/uploads/?digest={digest}", data=DATA)
        assert (answer.status, answer.headers["Location"]) == (201, f"/v2/app/blobs/{digest}")
        assert (await client.call("GET", f"/v2/app/blobs/{digest}")).body == DATA

        wrong = await client.call("POST", f"/v2/app/blobs/uploads/?digest={sha256(b'x')}", data=DATA)

        refused(400, "DIGEST_INVALID", wrong)
        assert client.store.paths("uploads/") == []


@asynchronous
async def test_a_digest_mismatch_leaves_nothing() -> None:
    async with registry() as client:
        location = await client.start_upload()
        await client.call("PATCH", location, data=DATA)

        answer = await client.call("PUT", f"{location}?digest={sha256(b'other')}")

        refused(400, "DIGEST_INVALID", answer)
        assert client.store.paths() == []
        refused(404, "BLOB_UPLOAD_UNKNOWN", await client.call("GET", location))


BAD_DIGESTS = [
    "", "sha256", "sha256:", "md5:" + "0" * 32, "sha256:" + "0" * 63, "sha256:" + "0" * 65,
    "sha256:" + "A" * 64, "SHA256:" + "a" * 64, "sha512:" + "a" * 64, "sha256:../../x", "a" * 64,
    "sha256:" + "g" * 64, "sha256:" + "a" * 63 + "\n",
]  # fmt: skip


@pytest.mark.parametrize("digest", BAD_DIGESTS)
@asynchronous
async def test_a_malformed_digest_is_refused_and_the_upload_stays(digest: str) -> None:
    async with registry() as client:
        location = await client.start_upload()
        await client.call("PATCH", location, data=DATA)
        for method, path in (("PUT", location), ("POST", "/v2/app/blobs/uploads/")):
            refused(400, "DIGEST_INVALID", await client.call(method, path, params={"digest": digest}))
        refused(
            400,
            "DIGEST_INVALID",
            await client.call("POST", "/v2/app/blobs/uploads/", params={"mount": digest}),
        )
        refused(400, "DIGEST_INVALID", await client.call("PUT", location))

        assert (await client.call("GET", location)).headers["Range"] == f"0-{len(DATA) - 1}"
        assert len(client.store.paths("uploads/")) == len(client.store.paths()) == 1


@asynchronous
async def test_sha512_announced_and_not() -> None:
    digest = "sha512:" + hashlib.sha512(DATA).hexdigest()
    async with registry() as client:
        for query in ("?digest-algorithm=sha512", ""):
            location = await client.start_upload("app", query)
            await client.call("PATCH", location, data=DATA)
            assert (await client.call("PUT", f"{location}?digest={digest}")).status == 201
        assert (await client.call("GET", f"/v2/app/blobs/{digest}")).body == DATA
        refused(
            400, "DIGEST_INVALID", await client.call("POST", "/v2/app/blobs/uploads/?digest-algorithm=md5")
        )


@asynchronous
async def test_an_upload_belongs_to_its_repository() -> None:
    async with registry() as client:
        location = await client.start_upload("mine")
        await client.call("PATCH", location, data=DATA)
        elsewhere = location.replace("/mine/", "/yours/")
        digest = sha256(DATA)
        for method, path in (
            ("GET", elsewhere),
            ("PATCH", elsewhere),
            ("DELETE", elsewhere),
            ("PUT", f"{elsewhere}?digest={digest}"),
        ):  # fmt: skip
            refused(404, "BLOB_UPLOAD_UNKNOWN", await client.call(method, path))
        assert (await client.call("PUT", f"{location}?digest={digest}")).status == 201


UNKNOWN_IDS = [
    "x",
    "0" * 32,
    str(uuid.UUID(int=0)),
    str(uuid.UUID(int=7)) + "0",
    "A" * 8 + "-0000" * 3 + "-" + "0" * 12,
]


@pytest.mark.parametrize("upload_id", [*UNKNOWN_IDS, "..%2e"])
@asynchronous
async def test_ids_that_were_never_given(upload_id: str) -> None:
    async with registry() as client:
        answer = await client.call("GET", f"/v2/app/blobs/uploads/{upload_id}")
        refused(404, "BLOB_UPLOAD_UNKNOWN", answer)


@asynchronous
async def test_ids_are_128_random_bits() -> None:
    async with registry() as client:
        ids = {(await client.start_upload()).rpartition("/")[2] for _ in range(20)}
        assert len(ids) == 20
        assert {str(uuid.UUID(one)) for one in ids} == ids, "in the form of UUIDs"
        columns = zip(*(f"{uuid.UUID(one).int:0128b}" for one in ids), strict=True)
        changing = [bits for bits in columns if len(set(bits)) == 2]
        assert len(changing) > 120, "no bit of them is fixed"


@asynchronous
async def test_cancel() -> None:
    async with registry() as client:
        location = await client.start_upload()
        await client.call("PATCH", location, data=DATA)
        assert (await client.call("DELETE", location)).status == 204
        assert client.store.paths() == []
        for method in ("DELETE", "GET", "PATCH"):
            refused(404, "BLOB_UPLOAD_UNKNOWN", await client.call(method, location))


@asynchronous
async def test_a_put_repeated_after_its_answer_was_lost_succeeds_again() -> None:
    async with registry() as client:
        location = await client.start_upload()
        path = f"{location}?digest={sha256(DATA)}"
        answers = [await client.call("PUT", path, data=DATA) for _ in range(3)]
        assert [answer.status for answer in answers] == [201, 201, 201]

        refused(
            404,
            "BLOB_UPLOAD_UNKNOWN",
            await client.call("PUT", f"{location}?digest={sha256(b'x')}", data=b"x"),
        )


@asynchronous
async def test_a_blob_that_exists_is_linked_and_its_second_copy_dropped() -> None:
    async with registry() as client:
        await client.push_blob(DATA, "first")
        blobs = {path: client.store.entries[path] for path in client.store.paths("blobs/")}

        await client.push_blob(DATA, "second")

        assert {path: client.store.entries[path] for path in client.store.paths("blobs/")} == blobs
        assert client.store.paths("uploads/") == []
        assert (await client.call("GET", f"/v2/second/blobs/{sha256(DATA)}")).body == DATA


@asynchronous
async def test_two_patches_at_once_one_wins_and_the_blob_is_whole() -> None:
    """Both stream from byte 0; the second to end is told where the upload stands."""
    async with registry() as client:
        location = await client.start_upload()
        gate = asyncio.Event()

        async def slow(piece: bytes):  # type: ignore[no-untyped-def]
            yield piece
            await gate.wait()
            yield piece

        rivals = [
            asyncio.ensure_future(client.call("PATCH", location, data=slow(text))) for text in (b"a", b"b")
        ]
        await asyncio.sleep(0.05)
        gate.set()
        answers = sorted(await asyncio.gather(*rivals), key=lambda answer: answer.status)

        assert [answer.status for answer in answers] == [202, 416]
        assert [answer.headers["Range"] for answer in answers] == ["0-1", "0-1"]
        content = client.store.content(client.store.paths("uploads/")[0])
        assert content in (b"aa", b"bb")
        assert (await client.call("PUT", f"{location}?digest={sha256(content)}")).status == 201


@asynchronous
async def test_a_patch_between_the_hash_and_the_commit_of_a_put_cannot_slip_in() -> None:
    store = MemoryStore()
    async with registry(store) as client:
        location = await client.start_upload()
        await client.call("PATCH", location, data=b"good")
        commit = store.commit

        async def late_rival(operations):  # type: ignore[no-untyped-def]
            store.commit = commit  # type: ignore[method-assign]
            assert (await client.call("PATCH", location, data=b" and evil")).status == 202
            return await commit(operations)

        store.commit = late_rival  # type: ignore[method-assign]
        answer = await client.call("PUT", f"{location}?digest={sha256(b'good')}")

        refused(416, "BLOB_UPLOAD_INVALID", answer)
        assert store.paths("blobs/") == []


@asynchronous
async def test_nor_when_the_blob_exists_already() -> None:
    store = MemoryStore()
    async with registry(store) as client:
        await client.push_blob(b"good", "other")
        location = await client.start_upload()
        await client.call("PATCH", location, data=b"good")
        commit = store.commit

        async def late_rival(operations):  # type: ignore[no-untyped-def]
            if any(isinstance(operation, DeleteOperation) for operation in operations):
                store.commit = commit  # type: ignore[method-assign]
                assert (await client.call("PATCH", location, data=b" and more")).status == 202
            return await commit(operations)

        store.commit = late_rival  # type: ignore[method-assign]
        answer = await client.call("PUT", f"{location}?digest={sha256(b'good')}")

        refused(416, "BLOB_UPLOAD_INVALID", answer)
        assert answer.headers["Range"] == "0-12"


@asynchronous
async def test_a_mount_whose_source_is_deleted_meanwhile_begins_an_upload() -> None:
    store = MemoryStore()
    async with registry(store) as client:
        digest = await client.push_blob(DATA, "base")
        commit = store.commit

        async def delete_first(operations):  # type: ignore[no-untyped-def]
            store.commit = commit  # type: ignore[method-assign]
            assert (await client.call("DELETE", f"/v2/base/blobs/{digest}")).status == 202
            return await commit(operations)

        store.commit = delete_first  # type: ignore[method-assign]
        answer = await client.call("POST", f"/v2/app/blobs/uploads/?mount={digest}&from=base")

        assert answer.status == 202
        assert store.paths("repositories/app/") == []


@asynchronous
async def test_many_puts_of_one_blob_at_once() -> None:
    async with registry() as client:
        digests = await asyncio.gather(*[client.push_blob(DATA, f"app{n % 3}") for n in range(12)])
        assert set(digests) == {sha256(DATA)}
        assert len(client.store.paths("blobs/")) == 1
        assert client.store.paths("uploads/") == []
        assert len(client.store.paths("repositories/")) == 3


@asynchronous
async def test_another_process_continues_and_reads_again_what_it_did_not_see() -> None:
    store = MemoryStore()
    async with registry(store) as first, registry(store) as second, registry(store) as third:
        location = await first.start_upload()
        await first.call("PATCH", location, data=DATA[:1000])
        assert store.calls["open"] == 0
        headers = {"Content-Range": "1000-1999"}
        answer = await second.call("PATCH", location, data=DATA[1000:2000], headers=headers)
        assert (answer.status, answer.headers["Range"], store.calls["open"]) == (202, "0-1999", 1)
        # The first has a digest of the first 1000 bytes; it reads only the rest.
        await first.call("PATCH", location, data=DATA[2000:])
        assert store.calls["open"] == 2

        done = await third.call("PUT", f"{location}?digest={sha256(DATA)}")

        assert done.status == 201
        assert (await first.call("GET", done.headers["Location"])).body == DATA


@asynchronous
async def test_a_client_that_breaks_off_can_resume_from_what_arrived() -> None:
    store = MemoryStore()
    async with registry(store, Settings(registry_uploads_max=1)) as client:
        location = await client.start_upload()
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(DATA)}\r\n\r\n"
        writer.write(head.encode() + DATA[:5000])
        await writer.drain()
        while not store.calls["write"]:
            await asyncio.sleep(0.001)
        writer.close()
        await writer.wait_closed()
        rest = {"Content-Range": f"5000-{len(DATA) - 1}"}
        async with asyncio.timeout(10):
            # There is one place for a stream: it is free when all that arrived is stored and hashed.
            while (await client.call("PATCH", location, data=DATA[5000:], headers=rest)).status == 429:
                await asyncio.sleep(0.001)
        assert (await client.call("PUT", f"{location}?digest={sha256(DATA)}")).status == 201
        assert store.calls["open"] == 0, "the digest of what arrived was kept"
        del reader


@asynchronous
async def test_a_client_that_stalls_is_given_up_and_what_arrived_is_kept() -> None:
    async with registry(settings=Settings(client_stall_timeout_s=0.1)) as client:
        location = await client.start_upload()
        head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
        answer = await client.raw(head.encode() + b"0123456789")
        refused(408, "BLOB_UPLOAD_INVALID", answer)
        assert (await client.call("GET", location)).headers["Range"] == "0-9"


FAILURES = [
    (NoWritableGroup("no group is writable"), 503, "NO_WRITABLE_GROUP"),
    (NoSpace("full"), 503, "NO_SPACE"),
    (Unavailable("no proxy"), 503, "UNAVAILABLE"),
    (DeadlineExceeded("late"), 503, "DEADLINE"),
    (Busy("too much in flight"), 429, "TOOMANYREQUESTS"),
]


@pytest.mark.parametrize("step", ["write", "flush"])
@pytest.mark.parametrize(
    ("error", "status", "code"), FAILURES, ids=lambda value: getattr(value, "code", None)
)
@asynchronous
async def test_a_failed_write_says_try_again_and_the_upload_can_be_resumed(step, error, status, code) -> None:  # type: ignore[no-untyped-def]
    async with registry() as client:
        location = await client.start_upload()
        await client.call("PATCH", location, data=DATA[:1000])
        client.store.fail(step, error)

        answer = await client.call("PATCH", location, data=DATA[1000:])

        refused(status, code, answer)
        assert int(answer.headers["Retry-After"]) > 0
        assert (await client.call("GET", location)).headers["Range"] == "0-999"
        await client.call(
            "PATCH", location, data=DATA[1000:], headers={"Content-Range": f"1000-{len(DATA) - 1}"}
        )
        assert (await client.call("PUT", f"{location}?digest={sha256(DATA)}")).status == 201


@asynchronous
async def test_who_took_the_bytes_finishes_without_asking_how_the_upload_is() -> None:
    async with registry() as client:
        location = await client.start_upload()
        await client.call("PATCH", location, data=DATA)
        asked = client.store.calls["stat"]
        assert (await client.call("PUT", f"{location}?digest={sha256(DATA)}")).status == 201
        assert client.store.calls["stat"] == asked
        # What it remembered is gone with the upload, and the same again is answered the same.
        assert (await client.call("PUT", f"{location}?digest={sha256(DATA)}")).status == 201
        assert (await client.call("GET", f"/v2/app/blobs/{sha256(DATA)}")).body == DATA


@asynchronous
async def test_what_was_appended_elsewhere_since_counts() -> None:
    async with registry() as client, registry(client.store) as other:
        location = await client.start_upload()
        await client.call("PATCH", location, data=DATA[:500])
        await other.call("PATCH", location, data=DATA[500:])
        assert (await client.call("PUT", f"{location}?digest={sha256(DATA)}")).status == 201
        assert (await client.call("GET", f"/v2/app/blobs/{sha256(DATA)}")).body == DATA

        # Of a part that is no longer all of it no blob is made, and nothing is thrown away.
        location = await client.start_upload()
        await client.call("PATCH", location, data=b"good")
        await other.call("PATCH", location, data=b" and more")
        refused(416, "BLOB_UPLOAD_INVALID", await client.call("PUT", f"{location}?digest={sha256(b'good')}"))
        whole = sha256(b"good and more")
        assert (await client.call("PUT", f"{location}?digest={whole}")).status == 201


@asynchronous
async def test_what_was_cancelled_elsewhere_is_not_finished() -> None:
    async with registry() as client, registry(client.store) as other:
        location = await client.start_upload()
        await client.call("PATCH", location, data=DATA)
        assert (await other.call("DELETE", location)).status == 204
        refused(404, "BLOB_UPLOAD_UNKNOWN", await client.call("PUT", f"{location}?digest={sha256(DATA)}"))
        assert client.store.paths("blobs/") == []


@pytest.mark.parametrize("step", ["stat", "commit"])
@asynchronous
async def test_a_put_that_fails_in_the_store_can_be_repeated(step: str) -> None:
    async with registry() as other, registry(other.store) as client:
        # Who has not taken the bytes must ask how the upload is.
        location = await other.start_upload()
        await other.call("PATCH", location, data=DATA)
        client.store.fail(step, DeadlineExceeded("unknown outcome"))
        path = f"{location}?digest={sha256(DATA)}"
        refused(503, "DEADLINE", await client.call("PUT", path))
        assert client.store.paths("blobs/") == []
        assert (await client.call("PUT", path)).status == 201


@asynchronous
async def test_more_streams_than_allowed_are_told_to_come_back() -> None:
    async with registry(settings=Settings(registry_uploads_max=1)) as client:
        locations = [await client.start_upload() for _ in range(2)]
        held = asyncio.Event()

        async def slow():  # type: ignore[no-untyped-def]
            yield b"a"
            await held.wait()

        first = asyncio.ensure_future(client.call("PATCH", locations[0], data=slow()))
        while not client.store.calls["write"]:
            await asyncio.sleep(0.001)
        answer = await client.call("PATCH", locations[1], data=b"b")
        refused(429, "TOOMANYREQUESTS", answer)
        assert int(answer.headers["Retry-After"]) > 0
        held.set()
        assert (await first).status == 202
        assert (await client.call("PATCH", locations[1], data=b"b")).status == 202


@asynchronous
async def test_mount() -> None:
    async with registry() as client:
        digest = await client.push_blob(DATA, "library/base")
        mounted = await client.call("POST", f"/v2/app/blobs/uploads/?mount={digest}&from=library/base")
        assert (mounted.status, mounted.headers["Location"]) == (201, f"/v2/app/blobs/{digest}")
        assert mounted.headers["Docker-Content-Digest"] == digest
        assert (await client.call("GET", f"/v2/app/blobs/{digest}")).body == DATA
        assert client.store.paths("uploads/") == []


@asynchronous
async def test_a_mount_from_anywhere_finds_a_repository_that_has_the_blob() -> None:
    async with registry() as client:
        digest = await client.push_blob(DATA, "library/base")
        await client.push_blob(DATA, "another")
        await client.call("DELETE", f"/v2/another/blobs/{digest}")
        for query in (f"?mount={digest}", f"?mount={digest}&from="):
            mounted = await client.call("POST", f"/v2/app/blobs/uploads/{query}")
            assert (mounted.status, mounted.headers["Location"]) == (201, f"/v2/app/blobs/{digest}")
        assert (await client.call("GET", f"/v2/app/blobs/{digest}")).body == DATA
        await client.call("DELETE", f"/v2/app/blobs/{digest}")
        await client.call("DELETE", f"/v2/library/base/blobs/{digest}")
        gone = await client.call("POST", f"/v2/app/blobs/uploads/?mount={digest}")
        assert gone.status == 202, "those that have it have it in their trash"


@pytest.mark.parametrize("source", ["&from=library/other", "&from=app"])
@asynchronous
async def test_a_mount_that_is_not_possible_begins_an_upload(source: str) -> None:
    async with registry() as client:
        digest = await client.push_blob(DATA, "library/base")
        answer = await client.call("POST", f"/v2/app/blobs/uploads/?mount={digest}{source}")
        assert (answer.status, answer.headers["Range"]) == (202, "0-0")
        assert (await client.call("HEAD", f"/v2/app/blobs/{digest}")).status == 404
        done = await client.call("PUT", f"{answer.headers['Location']}?digest={digest}", data=DATA)
        assert done.status == 201


@asynchronous
async def test_a_compressed_body_is_stored_as_it_came() -> None:
    async with registry() as client:
        location = await client.start_upload()
        data = b"\x1f\x8b not really gzip"
        await client.call("PATCH", location, data=data, headers={"Content-Encoding": "gzip"})
        assert (await client.call("PUT", f"{location}?digest={sha256(data)}")).status == 201
