"""Content of every kind through its whole life: pushed, listed, looked at, pulled, deleted.

Each step of the OCI distribution specification with the statuses and headers that it demands, for
digests by sha256 and by sha512.
"""

from __future__ import annotations

import http.client
import json
import random
import re
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.e2e.conftest import FabricUp
from tests.e2e.http_registry import Answer, HttpRegistry
from tests.e2e.oci_content import ALGORITHMS, KINDS, OCI_INDEX, Content, content_of

CHUNKS = 3

LIVES = [(kind, "sha256") for kind in KINDS] + [
    (kind, "sha512")
    for kind in ("image", "nested index", "artifact", "subject", "subject of an index", "a blob of 0 bytes")
]


@pytest.fixture
def registry(shared_fabric: FabricUp) -> HttpRegistry:
    return HttpRegistry(shared_fabric.registry)


def push_blob(registry: HttpRegistry, name: str, digest: str, data: bytes, how: str) -> Answer:
    """Push a blob by one of the ways that there are."""
    uploads = f"/v2/{name}/blobs/uploads/"
    if how == "post":
        return registry.ask("POST", f"{uploads}?{urlencode({'digest': digest})}", data)
    query = f"?digest-algorithm={digest.partition(':')[0]}" if how == "announced" else ""
    started = registry.ask("POST", uploads + query, b"")
    assert started.status == 202
    location = started.headers["location"]
    if how == "stream":
        pieces = (data[start : start + 5] for start in range(0, len(data), 5))
        answer = registry.ask("PATCH", location, pieces)
        assert answer.status == 202
        location, data = answer.headers["location"], b""
    elif how == "chunks":
        step = len(data) // CHUNKS + 1
        for start in range(0, len(data), step):
            part = data[start : start + step]
            answer = registry.ask("PATCH", location, part, Content_Range=f"{start}-{start + len(part) - 1}")
            assert (answer.status, answer.headers["range"]) == (202, f"0-{start + len(part) - 1}")
            location = answer.headers["location"]
        data = b""
    return registry.finish(location, digest, data)


WAYS = ("post", "put", "announced", "stream", "chunks")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("how", WAYS)
def test_a_blob_pushed_in_every_way(registry: HttpRegistry, how: str, algorithm: str) -> None:
    for data in (b"", b"{}", random.Random(f"{how}{algorithm}").randbytes(1000)):
        content = Content(algorithm, "")
        digest = content.blob(data)["digest"]
        name, path = f"ways/{how}", f"/v2/ways/{how}/blobs/{digest}"
        assert registry.ask("GET", path).status == registry.ask("HEAD", path).status == 404
        answer = push_blob(registry, name, digest, data, how)
        assert (answer.status, answer.headers["docker-content-digest"]) == (201, digest)
        assert registry.ask("GET", registry.local(answer.headers["location"])).body == data
        check_blob(registry, path, digest, data)
        delete(registry, path)

        wrong = push_blob(registry, name, digest, data + b"oh no", how)
        assert (wrong.status, wrong.codes) == (400, ["DIGEST_INVALID"])
        assert registry.ask("HEAD", path).status == 404


def check_blob(registry: HttpRegistry, path: str, digest: str, data: bytes) -> None:
    for method, body in (("HEAD", b""), ("GET", data)):
        answer = registry.ask(method, path)
        assert (answer.status, answer.body) == (200, body)
        assert answer.headers["content-length"] == str(len(data))
        assert answer.headers["docker-content-digest"] == digest
        assert answer.headers["etag"] == f'"{digest}"'


def delete(registry: HttpRegistry, path: str) -> None:
    """202, and from then on it is not there."""
    assert registry.ask("DELETE", path).status == 202
    for method in ("GET", "HEAD", "DELETE"):
        assert registry.ask(method, path).status == 404


@pytest.mark.parametrize(("kind", "algorithm"), LIVES)
def test_content_through_its_life(registry: HttpRegistry, kind: str, algorithm: str) -> None:
    content = content_of(kind, algorithm)
    name = "life/" + re.sub("[^a-z0-9]+", "-", f"{kind} {algorithm}")
    for number, (digest, data) in enumerate(content.blobs.items()):
        assert push_blob(registry, name, digest, data, WAYS[number % len(WAYS)]).status == 201
    for digest, data in content.manifests.items():
        push_manifest(registry, name, content, digest, data)
    check_tags(registry, name, content)
    for reference, digest in {**content.tags, **{one: one for one in content.manifests}}.items():
        check_manifest(registry, f"/v2/{name}/manifests/{reference}", content, digest)
    for digest, data in content.blobs.items():
        check_blob(registry, f"/v2/{name}/blobs/{digest}", digest, data)
    for subject in content.referrers:
        check_referrers(registry, name, content, subject)

    for tag, digest in content.tags.items():
        delete(registry, f"/v2/{name}/manifests/{tag}")
        assert registry.ask("HEAD", f"/v2/{name}/manifests/{digest}").status == 200
    assert json.loads(registry.ask("GET", f"/v2/{name}/tags/list").body)["tags"] == []
    for digest in reversed(content.manifests):
        delete(registry, f"/v2/{name}/manifests/{digest}")
    for digest in content.blobs:
        delete(registry, f"/v2/{name}/blobs/{digest}")
    for subject in content.referrers:
        answer = registry.ask("GET", f"/v2/{name}/referrers/{subject}")
        assert (answer.status, json.loads(answer.body)["manifests"]) == (200, [])


def push_manifest(registry: HttpRegistry, name: str, content: Content, digest: str, data: bytes) -> None:
    """By its digest, together with all tags that name it."""
    tags = [tag for tag, named in content.tags.items() if named == digest] + ["also-this"]
    path = f"/v2/{name}/manifests/{digest}?{urlencode([('tag', tag) for tag in tags])}"
    connection = http.client.HTTPConnection(registry.netloc, timeout=60)
    try:
        connection.request("PUT", path, data, {"Content-Type": content.types[digest]})
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (201, b"")
    finally:
        connection.close()
    assert answer.headers["Docker-Content-Digest"] == digest
    assert answer.headers["Location"].endswith(f"/v2/{name}/manifests/{digest}")
    assert answer.headers.get_all("OCI-Tag") == tags
    subjects = [one for one, listed in content.referrers.items() if digest in [d["digest"] for d in listed]]
    assert answer.headers.get_all("OCI-Subject", []) == subjects
    content.tags["also-this"] = digest


def check_tags(registry: HttpRegistry, name: str, content: Content) -> None:
    answer = registry.ask("GET", f"/v2/{name}/tags/list")
    assert answer.status == 200
    assert json.loads(answer.body) == {"name": name, "tags": sorted(content.tags)}


def check_manifest(registry: HttpRegistry, path: str, content: Content, digest: str) -> None:
    data = content.manifests[digest]
    for method, body in (("HEAD", b""), ("GET", data)):
        answer = registry.ask(method, path, Accept=content.types[digest])
        assert (answer.status, answer.body) == (200, body)
        assert answer.headers["content-type"] == content.types[digest]
        assert answer.headers["content-length"] == str(len(data))
        assert answer.headers["docker-content-digest"] == digest
        assert answer.headers["etag"] == f'"{digest}"'
        assert registry.ask(method, path, If_None_Match=f'"{digest}"').status == 304


def by_digest(descriptor: dict[str, Any]) -> str:
    return str(descriptor["digest"])


def check_referrers(registry: HttpRegistry, name: str, content: Content, subject: str) -> None:
    expected = sorted(content.referrers[subject], key=by_digest)
    path = f"/v2/{name}/referrers/{subject}"
    answer = registry.ask("GET", path)
    assert (answer.status, answer.headers["content-type"]) == (200, OCI_INDEX)
    document = json.loads(answer.body)
    assert (document["schemaVersion"], document["mediaType"]) == (2, OCI_INDEX)
    assert sorted(document["manifests"], key=by_digest) == expected
    for kind in {one.get("artifactType", "") for one in expected} - {""}:
        answer = registry.ask("GET", f"{path}?{urlencode({'artifactType': kind})}")
        assert answer.headers["oci-filters-applied"] == "artifactType"
        listed = sorted(json.loads(answer.body)["manifests"], key=by_digest)
        assert listed == [one for one in expected if one.get("artifactType") == kind]
    answer = registry.ask("GET", f"{path}?artifactType=application/x-none")
    assert (answer.status, json.loads(answer.body)["manifests"]) == (200, [])
