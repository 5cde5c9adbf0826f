"""Which manifests are accepted, and what is read from them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric.driver.registry.errors import RegistryError
from fabric.driver.registry.manifests import (
    DEPTH_MAX,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    REFERENCES_MAX,
    parse_manifest,
)
from tests.unit.driver.registry.harness import descriptor, image, index, sha256

ARTIFACT = "application/vnd.example.thing+json"
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
NONDISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"


def digests(descriptors: Any) -> list[str]:
    return [str(each.digest) for each in descriptors]


def test_an_image() -> None:
    subject = descriptor(b"subject", OCI_MANIFEST)
    manifest = parse_manifest(
        image(b"config", [b"one", b"two"], subject=subject, annotations={"a": "b"}), OCI_MANIFEST
    )
    assert manifest.media_type == OCI_MANIFEST
    assert digests(manifest.blobs) == [sha256(b"config"), sha256(b"one"), sha256(b"two")]
    assert manifest.references == manifest.blobs
    assert manifest.required
    assert manifest.subject is not None and str(manifest.subject.digest) == sha256(b"subject")
    assert manifest.artifact_type == "application/vnd.oci.image.config.v1+json"
    assert manifest.annotations == {"a": "b"}


def test_an_index() -> None:
    manifest = parse_manifest(index([b"one", b"two"], artifactType="a/b"), OCI_INDEX)
    assert digests(manifest.children) == [sha256(b"one"), sha256(b"two")]
    assert (manifest.blobs, manifest.artifact_type) == ((), "a/b")
    assert parse_manifest(index([]), OCI_INDEX).references == ()


def test_docker_types() -> None:
    text = image(b"c", [b"l"]).replace(OCI_MANIFEST.encode(), DOCKER_MANIFEST.encode())
    assert digests(parse_manifest(text, DOCKER_MANIFEST).blobs) == [sha256(b"c"), sha256(b"l")]
    text = json.dumps(
        {"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [descriptor(b"m", DOCKER_MANIFEST)]}
    ).encode()
    assert digests(parse_manifest(text, DOCKER_LIST).children) == [sha256(b"m")]


@pytest.mark.parametrize("media_type", [FOREIGN, NONDISTRIBUTABLE])
def test_a_foreign_layer_with_urls_need_not_be_here(media_type: str) -> None:
    def layers(**more: Any) -> list[str]:
        layer = descriptor(b"foreign", media_type, **more)
        return digests(parse_manifest(image(b"c", [], layers=[layer]), OCI_MANIFEST).blobs[1:])

    assert layers(urls=["https://example.com/layer"]) == []
    assert layers(urls=[]) == layers() == [sha256(b"foreign")]


def test_urls_excuse_no_ordinary_layer() -> None:
    layer = descriptor(b"plain", "application/vnd.oci.image.layer.v1.tar", urls=["https://example.com/"])
    manifest = parse_manifest(image(b"c", [], layers=[layer]), OCI_MANIFEST)
    assert digests(manifest.blobs) == [sha256(b"c"), sha256(b"plain")]


def test_an_unknown_type_is_an_artifact() -> None:
    document = {
        "mediaType": ARTIFACT, "artifactType": "a/b", "blobs": [descriptor(b"x"), "not a descriptor", {}],
        "config": 7, "subject": descriptor(b"s"), "layers": "many", "annotations": ["not", "a", "map"],
    }  # fmt: skip
    manifest = parse_manifest(json.dumps(document).encode(), ARTIFACT)
    assert (digests(manifest.blobs), manifest.required) == ([sha256(b"x")], False)
    assert manifest.subject is not None
    assert (manifest.artifact_type, manifest.annotations) == ("a/b", {})


TYPES = [
    ({}, OCI_MANIFEST, OCI_MANIFEST),
    ({}, OCI_MANIFEST + "; charset=utf-8", OCI_MANIFEST),
    ({}, OCI_MANIFEST.upper(), OCI_MANIFEST),
    ({}, "", OCI_MANIFEST),
    (
        {"mediaType": "application/vnd.Some.Thing+JSON"},
        "application/vnd.some.thing+json",
        "application/vnd.Some.Thing+JSON",
    ),
    ({"mediaType": None}, OCI_MANIFEST, None),
    ({}, OCI_INDEX, None),
    ({}, "application/json", None),
    ({}, "application/octet-stream", None),
    ({"mediaType": "nonsense"}, "nonsense", None),
    ({"mediaType": "a/b c"}, "", None),
    ({"mediaType": 7}, OCI_MANIFEST, None),
]


@pytest.mark.parametrize(("change", "content_type", "expected"), TYPES)
def test_the_type_is_that_of_header_and_document(
    change: dict[str, Any], content_type: str, expected: str | None
) -> None:
    data = image(b"c", [b"l"], **change)
    if expected is None:
        with pytest.raises(RegistryError) as caught:
            parse_manifest(data, content_type)
        assert (caught.value.status, caught.value.code) == (400, "MANIFEST_INVALID")
    else:
        assert parse_manifest(data, content_type).media_type == expected


def test_without_media_type_the_header_or_the_shape_decides() -> None:
    document = json.loads(image(b"c", [b"l"]))
    del document["mediaType"]
    data = json.dumps(document).encode()
    assert parse_manifest(data, DOCKER_MANIFEST).media_type == DOCKER_MANIFEST
    assert parse_manifest(data, "").media_type == OCI_MANIFEST
    assert parse_manifest(b'{"schemaVersion": 2, "manifests": []}', "").media_type == OCI_INDEX
    for content_type in ("", ARTIFACT):
        with pytest.raises(RegistryError):
            parse_manifest(b'{"schemaVersion": 2}', content_type)


def nested(depth: int) -> bytes:
    return image(b"c", [b"l"], extra=[0]).replace(b"0\n", b"[" * depth + b"]" * depth + b"\n")


ONE = descriptor(b"x")
REFUSED = {
    "not JSON": b"hello",
    "nothing": b"",
    "cut": image(b"c", [b"l"])[:-20],
    "bad UTF-8": image(b"c", [b"l"]).replace(b"config", b"\xff\xfe"),
    "a list": b"[]",
    "a string": b'"x"',
    "NaN": b'{"schemaVersion": NaN}',
    "layers and manifests": image(b"c", [b"l"], manifests=[]),
    "index with layers": index([b"m"], layers=[]),
    "schema version 1": image(b"c", [b"l"], schemaVersion=1),
    "schema version text": image(b"c", [b"l"], schemaVersion="2"),
    "no config": image(b"c", [b"l"], config=None),
    "layers no list": image(b"c", [b"l"], layers={}),
    "index without manifests": index([], manifests=None),
    "descriptor no object": image(b"c", [], layers=["x"]),
    "descriptor without digest": image(b"c", [], layers=[{**ONE, "digest": None}]),
    "descriptor with bad digest": image(b"c", [], layers=[{**ONE, "digest": "sha256:../../x"}]),
    "descriptor of md5": image(b"c", [], layers=[{**ONE, "digest": "md5:" + "0" * 32}]),
    "descriptor without type": image(b"c", [], layers=[{**ONE, "mediaType": ""}]),
    "descriptor with negative size": image(b"c", [], layers=[{**ONE, "size": -1}]),
    "descriptor with true for a size": image(b"c", [], layers=[{**ONE, "size": True}]),
    "bad subject": image(b"c", [b"l"], subject={}),
    "deep": nested(DEPTH_MAX),
    "very deep": nested(100_000),
    "many layers": image(b"c", [b"l"] * REFERENCES_MAX),
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_what_is_refused(data: bytes) -> None:
    media_type = OCI_INDEX if OCI_INDEX.encode() in data else OCI_MANIFEST
    with pytest.raises(RegistryError) as caught:
        parse_manifest(data, media_type)
    assert (caught.value.status, caught.value.code) == (400, "MANIFEST_INVALID")


def test_the_limits_themselves_are_accepted() -> None:
    assert parse_manifest(nested(DEPTH_MAX - 2), OCI_MANIFEST)
    assert (
        len(parse_manifest(image(b"c", [b"l"] * (REFERENCES_MAX - 1)), OCI_MANIFEST).blobs) == REFERENCES_MAX
    )


def test_schema_1_is_refused_by_name() -> None:
    media_type = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    with pytest.raises(RegistryError, match="schema 1"):
        parse_manifest(json.dumps({"schemaVersion": 1, "mediaType": media_type}).encode(), media_type)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just(ONE["digest"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["digest", "mediaType", "size", "urls", "layers", "config", "subject"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["config", "layers", "manifests", "blobs", "subject", "annotations", "artifactType"]),
        JSON,
    ),
    st.sampled_from([OCI_MANIFEST, OCI_INDEX, ARTIFACT]),
)
def test_any_json_is_a_manifest_or_refused_as_invalid(fields: dict[str, Any], media_type: str) -> None:
    data = json.dumps({"schemaVersion": 2, "mediaType": media_type, **fields}).encode()
    try:
        manifest = parse_manifest(data, media_type)
    except RegistryError as error:
        assert error.code == "MANIFEST_INVALID"
    else:
        assert manifest.media_type == media_type
