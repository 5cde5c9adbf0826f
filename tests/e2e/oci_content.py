"""Content of every kind that a registry must take: what it consists of, and what must be found afterwards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

OCI_IMAGE = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_FOREIGN_LAYER = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_IMAGE = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
EXAMPLE = "application/vnd.example.thing.v1"

ALGORITHMS = ("sha256", "sha512")

Descriptor = dict[str, Any]


def digest_by(algorithm: str, data: bytes) -> str:
    """The digest of these bytes."""
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


class Content:
    """Blobs, manifests in the order of pushing, and tags; every digest by one algorithm.

    ``salt`` makes the blobs differ from those of any other content.
    """

    def __init__(self, algorithm: str, salt: str) -> None:
        self.algorithm = algorithm
        self.salt = salt
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.types: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.referrers: dict[str, list[Descriptor]] = {}

    def blob(self, data: bytes, media_type: str = OCI_LAYER, /, **more: Any) -> Descriptor:
        """A blob to be pushed, and its descriptor."""
        digest = digest_by(self.algorithm, data)
        self.blobs[digest] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data), **more}

    def foreign(self, text: str) -> Descriptor:
        """A layer that is to be had elsewhere and is never pushed."""
        data = f"{self.salt} {text}".encode()
        digest = digest_by(self.algorithm, data)
        urls = [f"https://store.example.com/{digest}"]
        return {"mediaType": OCI_FOREIGN_LAYER, "digest": digest, "size": len(data), "urls": urls}

    def image(self, layers: int | list[Descriptor] = 2, *, tag: str = "", **fields: Any) -> Descriptor:
        """An image or artifact; ``fields`` are added to the manifest or replace its own."""
        if isinstance(layers, int):
            layers = [self.blob(f"{self.salt} layer {number}".encode()) for number in range(layers)]
        config = fields.pop("config", None) or self.blob(json.dumps({"os": self.salt}).encode(), OCI_CONFIG)
        document = {"schemaVersion": 2, "mediaType": OCI_IMAGE, "config": config, "layers": layers}
        return self._manifest({**document, **fields}, tag)

    def index(self, children: list[Descriptor], *, tag: str = "", **fields: Any) -> Descriptor:
        """An index of manifests."""
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}
        return self._manifest({**document, **fields}, tag)

    def _manifest(self, document: dict[str, Any], tag: str) -> Descriptor:
        data = json.dumps(document, indent=1).encode() + b"\n"
        digest = digest_by(self.algorithm, data)
        self.manifests[digest], self.types[digest] = data, document["mediaType"]
        if tag:
            self.tags[tag] = digest
        descriptor = {"mediaType": document["mediaType"], "digest": digest, "size": len(data)}
        subject = document.get("subject")
        if subject:
            kind = document.get("artifactType") or document.get("config", {}).get("mediaType")
            listed = {**descriptor, **({"artifactType": kind} if kind else {})}
            if "annotations" in document:
                listed["annotations"] = document["annotations"]
            self.referrers.setdefault(subject["digest"], []).append(listed)
        return descriptor


def _image(content: Content) -> None:
    content.image(tag="image")


def _docker(content: Content) -> None:
    image = content.image(mediaType=DOCKER_IMAGE, tag="docker")
    content.index([image], mediaType=DOCKER_LIST, tag="docker-list")


def _large(content: Content) -> None:
    content.image(annotations={f"note-{number}": "A" * 10_000 for number in range(390)}, tag="large")


def _index(content: Content) -> None:
    content.index([content.image(1, variant="a"), content.image(1, variant="b")], tag="index")


def _nested(content: Content) -> None:
    inner = [content.index([content.image(1, variant=str(number))]) for number in range(2)]
    content.index(inner, tag="nested")


def _empty_index(content: Content) -> None:
    content.index([], tag="empty")


def _artifact(content: Content) -> None:
    empty = content.blob(b"{}", OCI_EMPTY)
    content.image(1, config=empty, artifactType=EXAMPLE, tag="artifact")


def _artifact_index(content: Content) -> None:
    empty = content.blob(b"{}", OCI_EMPTY)
    child = content.image(1, config=empty, artifactType=EXAMPLE)
    content.index([child], artifactType=EXAMPLE, tag="artifact-index")


def _artifact_without_layers(content: Content) -> None:
    empty = content.blob(b"{}", OCI_EMPTY)
    content.image([empty], config=empty, artifactType=EXAMPLE, tag="bare")


def _subjects(content: Content) -> None:
    subject = content.image(tag="subject")
    empty = content.blob(b"{}", OCI_EMPTY)
    content.image(1, subject=subject)
    for number in range(2):
        notes = {"note": f"of {content.salt}", "number": str(number)}
        kind = f"{EXAMPLE}.{number}"
        content.image(
            1, config=empty, artifactType=kind, subject=subject, annotations=notes, tag=f"on{number}"
        )


def _index_subject(content: Content) -> None:
    subject = content.index([], tag="subject")
    content.index([], subject=subject, annotations={"a": "b"})
    content.index([], subject=subject, artifactType=EXAMPLE, tag="on-index")


def _missing_subject(content: Content) -> None:
    digest = digest_by(content.algorithm, b"nobody has this")
    content.image(1, subject={"mediaType": OCI_IMAGE, "digest": digest, "size": 15}, tag="early")


def _data_field(content: Content) -> None:
    content.image([content.blob(b"inline", data="aW5saW5l")], tag="data")


def _foreign_layers(content: Content) -> None:
    layers = [content.foreign("far"), content.foreign("farther"), content.blob(b"near")]
    content.image(layers, tag="foreign")


def _custom_fields(content: Content) -> None:
    content.index([content.image(extra={"deep": [1, {"er": None}]})], another="field", tag="custom")


def _no_layers(content: Content) -> None:
    content.image(0, tag="none")


def _empty_blob(content: Content) -> None:
    content.image([content.blob(b"")], tag="zero")


def _unknown_type(content: Content) -> None:
    content.image(1, mediaType=f"{EXAMPLE}+json", tag="unknown")


KINDS: dict[str, Callable[[Content], None]] = {
    "image": _image,
    "docker types": _docker,
    "large manifest": _large,
    "index": _index,
    "nested index": _nested,
    "empty index": _empty_index,
    "artifact": _artifact,
    "artifact index": _artifact_index,
    "artifact without layers": _artifact_without_layers,
    "subject": _subjects,
    "subject of an index": _index_subject,
    "missing subject": _missing_subject,
    "data in a descriptor": _data_field,
    "non-distributable layers": _foreign_layers,
    "custom fields": _custom_fields,
    "no layers": _no_layers,
    "a blob of 0 bytes": _empty_blob,
    "an unknown type": _unknown_type,
}


def content_of(kind: str, algorithm: str) -> Content:
    """Content of one of ``KINDS``."""
    content = Content(algorithm, f"{kind} by {algorithm}")
    KINDS[kind](content)
    return content
