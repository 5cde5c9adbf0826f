"""The parts of the OCI distribution specification that are about requests, not about kinds of content."""

from __future__ import annotations

import json
import uuid
from urllib.parse import urlencode

import pytest

from tests.e2e.conftest import FabricUp
from tests.e2e.http_registry import HttpRegistry, digest_of
from tests.e2e.oci_content import ALGORITHMS, OCI_IMAGE, Content, digest_by

MIB = 1024 * 1024
DATA = bytes(range(256)) * 12
THIRD = len(DATA) // 3


@pytest.fixture
def registry(shared_fabric: FabricUp) -> HttpRegistry:
    return HttpRegistry(shared_fabric.registry)


def test_the_base_says_that_this_is_a_registry(registry: HttpRegistry) -> None:
    for method in ("GET", "HEAD"):
        answer = registry.ask(method, "/v2/")
        assert (answer.status, answer.headers["docker-distribution-api-version"]) == (200, "registry/2.0")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("closing", ["PATCH", "PUT"])
def test_chunks_out_of_order_are_refused_and_the_upload_goes_on(
    registry: HttpRegistry, closing: str, algorithm: str
) -> None:
    digest = digest_by(algorithm, DATA)
    location = registry.begin("order/app")
    upload_id = location.rpartition("/")[2]
    assert str(uuid.UUID(upload_id)) == upload_id
    for start in (0, THIRD, 2 * THIRD):
        for wrong in {0, THIRD, 2 * THIRD, start + 1} - {start}:
            span = f"{wrong}-{wrong + THIRD - 1}"
            for method, query in (("PATCH", ""), ("PUT", f"?{urlencode({'digest': digest})}")):
                refused = registry.ask(
                    method, location + query, DATA[wrong : wrong + THIRD], Content_Range=span
                )
                assert (refused.status, refused.codes) == (416, ["BLOB_UPLOAD_INVALID"])
                assert registry.local(refused.headers["location"]) == location
                assert refused.headers["range"] == f"0-{max(0, start - 1)}"
        status = registry.ask("GET", location)
        assert (status.status, status.body) == (204, b"")
        assert registry.local(status.headers["location"]) == location
        assert status.headers["range"] == f"0-{max(0, start - 1)}"
        span, part = f"{start}-{start + THIRD - 1}", DATA[start : start + THIRD]
        if start == 2 * THIRD and closing == "PUT":
            path = f"{location}?{urlencode({'digest': digest})}"
            assert registry.ask("PUT", path, part, Content_Range=span).status == 201
        else:
            assert registry.ask("PATCH", location, part, Content_Range=span).status == 202
    if closing == "PATCH":
        assert registry.finish(location, digest).status == 201
    assert registry.get_blob("order/app", digest).body == DATA


def test_a_cancelled_upload_is_gone(registry: HttpRegistry) -> None:
    location = registry.begin("cancel/app")
    assert registry.ask("PATCH", location, DATA).status == 202
    assert registry.ask("DELETE", location).status == 204
    for method in ("DELETE", "GET", "PATCH"):
        answer = registry.ask(method, location, b"" if method == "PATCH" else None)
        assert (answer.status, answer.codes) == (404, ["BLOB_UPLOAD_UNKNOWN"])
    assert registry.finish(location, digest_of(DATA)).status == 404


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_mounts(registry: HttpRegistry, algorithm: str) -> None:
    digest = digest_by(algorithm, DATA)
    source, target = f"mount/from-{algorithm}", f"mount/to-{algorithm}"
    assert registry.finish(registry.begin(source), digest, DATA).status == 201
    uploads = f"/v2/{target}/blobs/uploads/"
    answer = registry.ask("POST", f"{uploads}?{urlencode({'mount': digest, 'from': 'mount/nobody'})}", b"")
    assert answer.status == 202, "an upload begins in its place"
    assert registry.ask("GET", answer.headers["location"]).status == 204
    assert registry.get_blob(target, digest).status == 404

    for query in ({"mount": digest, "from": source}, {"mount": digest}):
        answer = registry.ask("POST", f"{uploads}?{urlencode(query)}", b"")
        assert (answer.status, answer.headers["docker-content-digest"]) == (201, digest)
        assert registry.ask("GET", registry.local(answer.headers["location"])).body == DATA
        if "from" in query:
            assert registry.ask("DELETE", f"/v2/{target}/blobs/{digest}").status == 202
    assert registry.ask("DELETE", f"/v2/{source}/blobs/{digest}").status == 202
    assert registry.get_blob(target, digest).body == DATA


RANGES = [
    ("bytes=500-1499", 206, "bytes 500-1499/3072", DATA[500:1500]),
    ("bytes=500-", 206, "bytes 500-3071/3072", DATA[500:]),
    ("bytes=-500", 206, "bytes 2572-3071/3072", DATA[-500:]),
    ("bytes=3000-5000", 206, "bytes 3000-3071/3072", DATA[3000:]),
    ("bytes=0-0", 206, "bytes 0-0/3072", DATA[:1]),
    ("bytes=500-0", 416, "bytes */3072", None),
    ("bytes=5000-10000", 416, "bytes */3072", None),
    ("lines=1-2", 200, None, DATA),
]


@pytest.mark.parametrize(("header", "status", "content_range", "body"), RANGES)
def test_ranges(
    registry: HttpRegistry, header: str, status: int, content_range: str | None, body: bytes | None
) -> None:
    registry.put_blob("ranges/app", DATA)
    answer = registry.get_blob("ranges/app", digest_of(DATA), Range=header)
    assert (answer.status, answer.headers.get("content-range")) == (status, content_range)
    if body is not None:
        assert (answer.body, answer.headers["content-length"]) == (body, str(len(body)))


def test_what_is_not_there(registry: HttpRegistry) -> None:
    missing = digest_of(b"nobody has this")
    registry.push_image("there/app", "latest", [b"layer"])
    for name, manifest_code in (("there/app", "MANIFEST_UNKNOWN"), ("not/there", "MANIFEST_UNKNOWN")):
        for path, code in (
            (f"manifests/{missing}", manifest_code),
            ("manifests/no-such-tag", manifest_code),
            (f"blobs/{missing}", "BLOB_UNKNOWN"),
            (f"blobs/uploads/{uuid.UUID(int=1)}", "BLOB_UPLOAD_UNKNOWN"),
        ):
            for method in ("GET", "DELETE"):
                answer = registry.ask(method, f"/v2/{name}/{path}")
                assert (answer.status, answer.codes) == (404, [code])
        referrers = registry.ask("GET", f"/v2/{name}/referrers/{missing}")
        assert (referrers.status, json.loads(referrers.body)["manifests"]) == (200, [])
    answer = registry.ask("GET", "/v2/not/there/tags/list")
    assert (answer.status, answer.codes) == (404, ["NAME_UNKNOWN"])


def test_manifests_that_are_refused(registry: HttpRegistry) -> None:
    content = Content("sha256", "refused")
    content.image(1)
    ((digest, data),) = content.manifests.items()
    name = "refused/app"
    answer = registry.put_manifest(name, "latest", data)
    assert (answer.status, set(answer.codes)) == (404, {"MANIFEST_BLOB_UNKNOWN"})
    assert len(answer.codes) == len(content.blobs), "one error for each that is missing"
    for blob in content.blobs.values():
        registry.put_blob(name, blob)
    for reference, body, status, code in (
        (digest, data + b" ", 400, "DIGEST_INVALID"),
        ("sha256:baddigeststring", data, 400, "DIGEST_INVALID"),
        ("md5:" + "0" * 32, data, 400, "DIGEST_INVALID"),
        ("latest", b"not json", 400, "MANIFEST_INVALID"),
        ("latest", data + b" " * 4 * MIB, 413, "SIZE_INVALID"),
        ("-latest", data, 400, "TAG_INVALID"),
    ):
        answer = registry.put_manifest(name, reference, body)
        assert (answer.status, answer.codes) == (status, [code])
        assert registry.get_manifest(name, "latest").status == 404
    answer = registry.put_manifest(name, "latest", data, f"{OCI_IMAGE}; charset=utf-8")
    assert (answer.status, answer.headers["docker-content-digest"]) == (201, digest)
    assert registry.get_manifest(name, "latest").headers["content-type"] == OCI_IMAGE


def test_tags_in_pages(registry: HttpRegistry) -> None:
    name = "tags/app"
    digest, data = registry.push_image(name, "b", [b"layer"])
    tags = ["10", "2", "B", "_x", "a", "a.b", "b", "v1"]
    query = urlencode([("tag", tag) for tag in tags])
    assert registry.put_manifest(name, f"{digest}?{query}", data).status == 201

    path, found = f"/v2/{name}/tags/list?n=3", []
    while path:
        answer = registry.ask("GET", path)
        page = json.loads(answer.body)
        assert page["name"] == name and 0 < len(page["tags"]) <= 3
        found += page["tags"]
        link = answer.headers.get("link", "")
        assert not link or link.endswith('; rel="next"')
        path = link.partition(">")[0][1:]
    assert found == sorted(tags)

    for query, expected in (
        ("", sorted(tags)),
        ("?n=100", sorted(tags)),
        ("?n=0", []),
        ("?last=a.b", ["b", "v1"]),
        ("?n=1&last=a.b", ["b"]),
        ("?n=2&last=nothere", ["v1"]),
        ("?last=v1", []),
    ):
        answer = registry.ask("GET", f"/v2/{name}/tags/list{query}")
        assert (answer.status, json.loads(answer.body)["tags"]) == (200, expected)
        assert ("link" in answer.headers) == (query == "?n=1&last=a.b")


def test_the_catalog_in_pages(registry: HttpRegistry) -> None:
    names = [f"catalog/{letter}" for letter in "abcde"]
    for name in names:
        registry.push_image(name, "latest", [])
    path, found = "/v2/_catalog?n=2&last=catalog", []
    while path and "catalog/e" not in found:
        answer = registry.ask("GET", path)
        page = json.loads(answer.body)["repositories"]
        assert len(page) <= 2
        found += page
        path = answer.headers.get("link", "").partition(">")[0][1:]
    assert [name for name in found if name.startswith("catalog/")] == names


def test_bad_digests_are_bad_requests(registry: HttpRegistry) -> None:
    for digest in ("sha256:short", "sha256:" + "A" * 64, "md5:" + "0" * 32, "nonsense"):
        query = urlencode({"digest": digest})
        location = registry.begin("bad/app")
        for answer in (
            registry.ask("POST", f"/v2/bad/app/blobs/uploads/?{query}", b"x"),
            registry.ask("PUT", f"{location}?{query}", b"x"),
            registry.ask("GET", f"/v2/bad/app/blobs/{digest}"),
            registry.ask("GET", f"/v2/bad/app/referrers/{digest}"),
        ):
            assert (answer.status, answer.codes) == (400, ["DIGEST_INVALID"])
