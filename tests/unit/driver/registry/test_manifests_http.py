"""Manifests, tags, referrers and lists over HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import json

import pytest

from fabric.errors import NoGoodCopy, NoWritableGroup, Precondition
from fabric.settings import MIB
from tests.unit.driver.registry.harness import (
    OCI_INDEX,
    OCI_MANIFEST,
    asynchronous,
    descriptor,
    image,
    index,
    refused,
    registry,
    sha256,
)
from tests.unit.driver.registry.memory_store import MemoryStore


@asynchronous
async def test_the_exact_bytes_come_back_by_tag_and_by_digest() -> None:
    async with registry() as client:
        manifest = await client.push_image(tag="v1")
        digest = sha256(manifest)
        for reference in ("v1", digest):
            for method in ("GET", "HEAD"):
                answer = await client.call(method, f"/v2/app/manifests/{reference}")
                assert answer.status == 200
                assert answer.headers["Content-Type"] == OCI_MANIFEST
                assert answer.headers["Docker-Content-Digest"] == digest
                assert answer.headers["ETag"] == f'"{digest}"'
                assert answer.headers["Content-Length"] == str(len(manifest))
                assert answer.body == (manifest if method == "GET" else b"")
        same = await client.call("GET", "/v2/app/manifests/v1", headers={"If-None-Match": f'"{digest}"'})
        assert (same.status, same.body) == (304, b"")


@asynchronous
async def test_a_push_is_one_commit_with_everything_by_which_it_is_found() -> None:
    async with registry() as client:
        await client.push_blob(b"c")
        await client.push_blob(b"l")
        before = len(client.store.commits)
        manifest = image(b"c", [b"l"])

        answer = await client.push_manifest(manifest, "v1")

        assert answer.headers["Location"] == f"/v2/app/manifests/{sha256(manifest)}"
        assert answer.headers["Docker-Content-Digest"] == sha256(manifest)
        assert len(client.store.commits) == before + 1
        value = sha256(manifest).removeprefix("sha256:")
        assert set(client.store.paths()) >= {
            f"blobs/sha256/{value[:2]}/{value}",
            f"repositories/app/_manifests/sha256/{value}",
            "repositories/app/_tags/v1",
            "names/app",
        }


@asynchronous
async def test_a_failed_push_leaves_no_name() -> None:
    async with registry() as client:
        await client.push_blob(b"c")
        await client.push_blob(b"l")
        paths = client.store.paths()
        for step in ("stage", "commit"):
            client.store.fail(step, NoWritableGroup("none"))
            answer = await client.push_manifest(image(b"c", [b"l"]), "v1")
            refused(503, "NO_WRITABLE_GROUP", answer)
            assert "Retry-After" in answer.headers
            assert client.store.paths() == paths


@asynchronous
async def test_push_by_digest_with_tags() -> None:
    async with registry() as client:
        manifest = image(b"c", [])
        await client.push_blob(b"c")
        answer = await client.push_manifest(manifest, f"{sha256(manifest)}?tag=1&tag=1.2&tag=latest")
        assert (answer.status, answer.headers.getall("OCI-Tag")) == (201, ["1", "1.2", "latest"])
        assert (await client.call("GET", "/v2/app/tags/list")).json["tags"] == ["1", "1.2", "latest"]
        many = "&".join(f"tag=t{n}" for n in range(31))
        assert (await client.push_manifest(manifest, f"{sha256(manifest)}?{many}")).status == 414
        refused(400, "TAG_INVALID", await client.push_manifest(manifest, f"{sha256(manifest)}?tag=.x"))
        refused(400, "DIGEST_INVALID", await client.push_manifest(manifest, sha256(b"other")))

        sha512 = "sha512:" + hashlib.sha512(manifest).hexdigest()
        assert (await client.push_manifest(manifest, sha512)).headers["Docker-Content-Digest"] == sha512
        assert (await client.call("GET", f"/v2/app/manifests/{sha512}")).body == manifest


@asynchronous
async def test_every_missing_reference_is_named() -> None:
    async with registry() as client:
        await client.push_blob(b"here")
        await client.push_blob(b"elsewhere", "other")
        answer = await client.push_manifest(image(b"gone", [b"here", b"elsewhere"]), "v1")
        refused(404, "MANIFEST_BLOB_UNKNOWN", answer)
        missing = [entry["detail"]["digest"] for entry in answer.json["errors"]]
        assert missing == [sha256(b"gone"), sha256(b"elsewhere")]
        assert (await client.call("GET", "/v2/app/manifests/v1")).status == 404


@asynchronous
async def test_an_index_needs_its_manifests() -> None:
    async with registry() as client:
        child = await client.push_image(tag="child")
        await client.push_blob(b"cache layer")
        assert (await client.push_manifest(index([child]), "all", media_type=OCI_INDEX)).status == 201
        refused(
            404,
            "MANIFEST_BLOB_UNKNOWN",
            await client.push_manifest(index([child, b"gone"]), "all", media_type=OCI_INDEX),
        )
        # Build caches name blobs in an index.
        cache = index([child, b"cache layer"])
        assert (await client.push_manifest(cache, "cache", media_type=OCI_INDEX)).status == 201


@pytest.mark.parametrize("count", [199, 400])
@asynchronous
async def test_more_layers_than_one_commit_can_check(count: int) -> None:
    async with registry() as client:
        layers = [str(number).encode() for number in range(count)]
        for layer in layers:
            await client.push_blob(layer)
        assert (await client.push_manifest(image(layers[0], layers), "v1")).status == 201
        refused(
            404,
            "MANIFEST_BLOB_UNKNOWN",
            await client.push_manifest(image(layers[0], [*layers, b"missing"]), "v2"),
        )


@asynchronous
async def test_a_layer_deleted_between_look_and_push_is_noticed() -> None:
    store = MemoryStore()
    async with registry(store) as client:
        digest = await client.push_blob(b"l")
        await client.push_blob(b"c")
        stage = store.stage

        async def delete_first(data):  # type: ignore[no-untyped-def]
            store.stage = stage  # type: ignore[method-assign]
            assert (await client.call("DELETE", f"/v2/app/blobs/{digest}")).status == 202
            return await stage(data)

        store.stage = delete_first  # type: ignore[method-assign]
        refused(404, "MANIFEST_BLOB_UNKNOWN", await client.push_manifest(image(b"c", [b"l"]), "v1"))


@asynchronous
async def test_fifty_pushes_of_one_tag_leave_one_complete_manifest() -> None:
    async with registry() as client:
        texts = [f"layer {number % 10}" for number in range(50)]
        manifests = await asyncio.gather(*[client.push_image(text, "latest") for text in texts])

        answer = await client.call("GET", "/v2/app/manifests/latest")

        assert answer.body in manifests
        assert answer.headers["Docker-Content-Digest"] == sha256(answer.body)
        for layer in json.loads(answer.body)["layers"]:
            assert (await client.call("GET", f"/v2/app/blobs/{layer['digest']}")).status == 200
        assert len(client.store.paths("repositories/app/_manifests/")) == 10


@asynchronous
async def test_a_push_that_always_loses_its_race_says_try_again() -> None:
    async with registry() as client:
        await client.push_blob(b"c")
        client.store.fail("commit", Precondition("changed"), times=100)
        refused(503, "UNAVAILABLE", await client.push_manifest(image(b"c", []), "v1"))


def padded(size: int) -> bytes:
    manifest = image(b"c", [])
    return manifest + b" " * (size - len(manifest))


@asynchronous
async def test_size_limit() -> None:
    async with registry() as client:
        await client.push_blob(b"c")
        largest = padded(4 * MIB)
        assert (await client.push_manifest(largest, "v1")).status == 201
        assert (await client.call("GET", "/v2/app/manifests/v1")).body == largest
        refused(413, "SIZE_INVALID", await client.push_manifest(padded(4 * MIB + 1), "v1"))

        async def endless():  # type: ignore[no-untyped-def]
            for _ in range(6):
                yield b" " * MIB

        headers = {"Content-Type": OCI_MANIFEST}
        answer = await client.call("PUT", "/v2/app/manifests/v1", data=endless(), headers=headers)
        refused(413, "SIZE_INVALID", answer)


@asynchronous
async def test_refusals() -> None:
    async with registry() as client:
        await client.push_blob(b"c")
        refused(400, "MANIFEST_INVALID", await client.push_manifest(b"{}", "v1"))
        refused(400, "MANIFEST_INVALID", await client.push_manifest(image(b"c", [], manifests=[]), "v1"))
        refused(
            400, "MANIFEST_INVALID", await client.push_manifest(image(b"c", []), "v1", media_type=OCI_INDEX)
        )
        refused(400, "TAG_INVALID", await client.push_manifest(image(b"c", []), "-bad"))
        refused(400, "DIGEST_INVALID", await client.push_manifest(image(b"c", []), "sha256:xyz"))
        for method in ("GET", "HEAD", "DELETE"):
            for reference in ("latest", ".INVALID_NAME", sha256(b"x")):
                assert (await client.call(method, f"/v2/app/manifests/{reference}")).status == 404
        refused(404, "MANIFEST_UNKNOWN", await client.call("GET", "/v2/nowhere/manifests/latest"))
        refused(400, "DIGEST_INVALID", await client.call("GET", "/v2/app/manifests/sha256:" + "A" * 64))


@asynchronous
async def test_delete_by_tag_deletes_the_tag_alone() -> None:
    async with registry() as client:
        manifest = await client.push_image(tag="v1")
        await client.push_manifest(manifest, "v2")
        assert (await client.call("DELETE", "/v2/app/manifests/v1")).status == 202
        refused(404, "MANIFEST_UNKNOWN", await client.call("GET", "/v2/app/manifests/v1"))
        refused(404, "MANIFEST_UNKNOWN", await client.call("DELETE", "/v2/app/manifests/v1"))
        for reference in ("v2", sha256(manifest)):
            assert (await client.call("GET", f"/v2/app/manifests/{reference}")).status == 200


@asynchronous
async def test_delete_by_digest_deletes_its_tags_and_no_others() -> None:
    async with registry() as client:
        manifest = await client.push_image(tag="v1")
        other = await client.push_image("other", tag="other")
        for number in range(250):
            client.store.entries[f"repositories/app/_tags/t{number}"] = client.store.entries[
                "repositories/app/_tags/v1"
            ]
        assert (await client.call("DELETE", f"/v2/app/manifests/{sha256(manifest)}")).status == 202
        for reference in ("v1", "t0", "t249", sha256(manifest)):
            refused(404, "MANIFEST_UNKNOWN", await client.call("GET", f"/v2/app/manifests/{reference}"))
        assert (await client.call("GET", "/v2/app/tags/list")).json["tags"] == ["other"]
        assert (await client.call("GET", "/v2/app/manifests/other")).body == other


@asynchronous
async def test_a_tag_pushed_during_the_delete_of_its_manifest_never_dangles() -> None:
    store = MemoryStore()
    async with registry(store) as client:
        manifest = await client.push_image(tag="v1")
        commit = store.commit

        async def push_first(operations):  # type: ignore[no-untyped-def]
            store.commit = commit  # type: ignore[method-assign]
            assert (await client.push_manifest(manifest, "late")).status == 201
            return await commit(operations)

        store.commit = push_first  # type: ignore[method-assign]
        assert (await client.call("DELETE", f"/v2/app/manifests/{sha256(manifest)}")).status == 202
        assert store.paths("repositories/app/_tags/") == store.paths("repositories/app/_manifests/") == []


@asynchronous
async def test_committed_but_unreadable_is_never_absent() -> None:
    async with registry() as client:
        manifest = await client.push_image(tag="v1")
        client.store.fail("open", NoGoodCopy("fragment 7 of group 1: chunk-1, chunk-2, chunk-3"))
        answer = await client.call("GET", "/v2/app/manifests/v1")
        refused(503, "NO_GOOD_COPY", answer)
        assert "chunk-2" in answer.json["errors"][0]["message"]
        value = sha256(manifest).removeprefix("sha256:")
        del client.store.entries[f"blobs/sha256/{value[:2]}/{value}"]
        refused(500, "INTERNAL", await client.call("GET", "/v2/app/manifests/v1"))


# --- lists ----------------------------------------------------------------------------------------


@asynchronous
async def test_tags_in_pages() -> None:
    async with registry() as client:
        manifest = await client.push_image(tag="b")
        for tag in ("a", "Z", "c", "_x"):
            await client.push_manifest(manifest, tag)
        whole = await client.call("GET", "/v2/app/tags/list")
        assert whole.json == {"name": "app", "tags": ["Z", "_x", "a", "b", "c"]}
        assert "Link" not in whole.headers
        first = await client.call("GET", "/v2/app/tags/list?n=2")
        assert first.json["tags"] == ["Z", "_x"]
        assert first.headers["Link"] == '</v2/app/tags/list?n=2&last=_x>; rel="next"'
        second = await client.call("GET", "/v2/app/tags/list?n=2&last=_x")
        assert second.json["tags"] == ["a", "b"]
        third = await client.call("GET", "/v2/app/tags/list?n=2&last=b")
        assert third.json["tags"] == ["c"]
        assert "Link" not in third.headers
        assert (await client.call("GET", "/v2/app/tags/list?last=bb")).json["tags"] == ["c"]
        none = await client.call("GET", "/v2/app/tags/list?n=0")
        assert (none.json["tags"], "Link" in none.headers) == ([], False)
        for bad in ("n=-1", "n=x", "n=1.5", "n=", "n=%D9%A1"):
            refused(400, "UNSUPPORTED", await client.call("GET", f"/v2/app/tags/list?{bad}"))
        refused(400, "TAG_INVALID", await client.call("GET", "/v2/app/tags/list?last=../x"))
        refused(404, "NAME_UNKNOWN", await client.call("GET", "/v2/nowhere/tags/list"))
        for tag in ("a", "Z", "c", "_x", "b"):
            await client.call("DELETE", f"/v2/app/manifests/{tag}")
        assert (await client.call("GET", "/v2/app/tags/list")).json["tags"] == []


@asynchronous
async def test_catalog_in_pages_and_its_cap() -> None:
    async with registry() as client:
        for name in ("b", "a/b", "a-b", "a"):
            await client.push_image(name=name)
        assert (await client.call("GET", "/v2/_catalog")).json == {"repositories": ["a", "a-b", "a/b", "b"]}
        page = await client.call("GET", "/v2/_catalog?n=3")
        assert page.json["repositories"] == ["a", "a-b", "a/b"]
        assert page.headers["Link"] == '</v2/_catalog?n=3&last=a%2Fb>; rel="next"'
        assert (await client.call("GET", "/v2/_catalog?n=3&last=a%2Fb")).json["repositories"] == ["b"]
        for number in range(1100):
            client.store.entries[f"names/x{number:04}"] = client.store.entries["names/a"]
        huge = await client.call("GET", "/v2/_catalog?n=1000000000")
        assert len(huge.json["repositories"]) == 1000
        assert "n=1000&" in huge.headers["Link"]
        refused(400, "NAME_INVALID", await client.call("GET", "/v2/_catalog?last=..%2Fx"))


@asynchronous
async def test_a_head_of_a_list_has_the_headers_of_the_list() -> None:
    async with registry() as client:
        for name in ("app", "other"):
            manifest = await client.push_image(name=name, tag="v1")
            await client.push_manifest(manifest, "v2", name)
        for path in ("/v2/_catalog?n=1", "/v2/app/tags/list?n=1", f"/v2/app/referrers/{sha256(manifest)}"):
            got, headed = await client.call("GET", path), await client.call("HEAD", path)
            assert (headed.status, headed.body) == (200, b"")
            for header in ("Content-Length", "Content-Type", "Link"):
                assert headed.headers.get(header) == got.headers.get(header)


@asynchronous
async def test_referrers() -> None:
    async with registry() as client:
        subject = await client.push_image(tag="v1")
        about = descriptor(subject, OCI_MANIFEST)
        path = f"/v2/app/referrers/{sha256(subject)}"
        empty = await client.call("GET", path)
        assert (empty.status, empty.headers["Content-Type"], empty.json["manifests"]) == (200, OCI_INDEX, [])
        await client.push_blob(b"{}")
        signature = image(b"{}", [], subject=about, artifactType="a/signature", annotations={"by": "me"})
        plain = image(b"{}", [], subject=about)
        for manifest in (signature, plain):
            answer = await client.push_manifest(manifest, sha256(manifest))
            assert (answer.status, answer.headers["OCI-Subject"]) == (201, sha256(subject))

        listed = {one["digest"]: one for one in (await client.call("GET", path)).json["manifests"]}
        assert listed[sha256(signature)] == {
            "mediaType": OCI_MANIFEST,
            "size": len(signature),
            "digest": sha256(signature),
            "artifactType": "a/signature",
            "annotations": {"by": "me"},
        }
        assert listed[sha256(plain)]["artifactType"] == "application/vnd.oci.image.config.v1+json"
        filtered = await client.call("GET", f"{path}?artifactType=a/signature")
        assert [one["digest"] for one in filtered.json["manifests"]] == [sha256(signature)]
        assert filtered.headers["OCI-Filters-Applied"] == "artifactType"
        refused(400, "DIGEST_INVALID", await client.call("GET", "/v2/app/referrers/sha256:x"))

        await client.call("DELETE", f"/v2/app/manifests/{sha256(signature)}")
        assert len(client.store.paths("repositories/app/_referrers/")) == 1
        assert [one["digest"] for one in (await client.call("GET", path)).json["manifests"]] == [
            sha256(plain)
        ]


@asynchronous
async def test_referrers_in_pages() -> None:
    async with registry() as client:
        await client.push_blob(b"{}")
        about = descriptor(b"later", OCI_MANIFEST)
        pushed = []
        for number in range(60):
            manifest = image(b"{}", [], subject=about, annotations={"n": str(number)})
            assert (await client.push_manifest(manifest, sha256(manifest))).status == 201
            pushed.append(sha256(manifest))
        path, seen = f"/v2/app/referrers/{about['digest']}", []
        while path:
            answer = await client.call("GET", path)
            seen += [one["digest"] for one in answer.json["manifests"]]
            path = answer.headers.get("Link", "<>").partition(">")[0][1:]
        assert sorted(seen) == sorted(pushed)
