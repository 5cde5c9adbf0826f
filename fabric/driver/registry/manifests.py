"""Manifests: what is accepted, and what it references.  The bytes are kept exactly as they came.

Sources: OCI image specification (manifest.md, image-index.md, descriptor.md) and Docker's image
manifest version 2, schema 2.  A type that we do not know is accepted as an artifact: it must be JSON
with a ``mediaType``, its descriptors are recorded where they have the usual names, and none of them is
required to exist.

One text must not be an image to one tool and an index to another (CVE-2021-41190): a ``mediaType`` must
be the Content-Type, and ``layers`` beside ``manifests`` is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import msgspec

from fabric.driver.registry.errors import RegistryError, manifest_invalid
from fabric.driver.registry.names import Digest, parse_digest

DEPTH_MAX = 32
"""Objects and arrays inside one another."""

REFERENCES_MAX = 1000
"""Descriptors in one manifest."""

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"

IMAGES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})

_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+"
_FOREIGN = (
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
)
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Content that a manifest names."""

    digest: Digest
    media_type: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest says about itself and about other content."""

    media_type: str
    blobs: tuple[Descriptor, ...] = ()
    """Config and layers that the registry must hold; foreign layers are not among them."""
    children: tuple[Descriptor, ...] = ()
    """Manifests that an index names."""
    subject: Descriptor | None = None
    """The manifest that this one is about; it may be absent."""
    required: bool = True
    """Whether blobs and children must exist for the manifest to be accepted."""
    artifact_type: str = ""
    """What the referrers list calls it; empty when it has none."""
    annotations: dict[str, str] = field(default_factory=dict)

    @property
    def references(self) -> tuple[Descriptor, ...]:
        """Everything it needs to be whole."""
        return self.blobs + self.children


def parse_manifest(data: bytes, content_type: str) -> Manifest:
    """Read and check a manifest.

    ``content_type`` is the request's header, parameters and all; empty when there is none.
    Raises RegistryError MANIFEST_INVALID (400).
    """
    document = _decode(data)
    media_type = _media_type(document, content_type)
    if "layers" in document and "manifests" in document:
        raise manifest_invalid("a manifest has layers or manifests, not both")
    known = media_type in IMAGES or media_type in INDEXES
    if known and document.get("schemaVersion") != 2:
        raise manifest_invalid("schemaVersion must be 2")
    if media_type in IMAGES:
        _need(document, "config", dict)
        _need(document, "layers", list)
    elif media_type in INDEXES:
        _need(document, "manifests", list)
    manifest = _read(document, media_type) if known else _read_artifact(document, media_type)
    if len(manifest.references) > REFERENCES_MAX:
        raise manifest_invalid(f"a manifest references at most {REFERENCES_MAX} descriptors")
    return manifest


def _decode(data: bytes) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise manifest_invalid(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise manifest_invalid("a manifest is a JSON object")
    _check_depth(document)
    return document


def _check_depth(document: object) -> None:
    level: list[object] = [document]
    for _ in range(DEPTH_MAX):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return
    raise manifest_invalid(f"a manifest nests at most {DEPTH_MAX} deep")


def _inside(value: object) -> list[object]:
    if isinstance(value, dict):
        return [inner for inner in value.values() if isinstance(inner, dict | list)]
    if isinstance(value, list):
        return [inner for inner in value if isinstance(inner, dict | list)]
    return []


def _media_type(document: dict[str, Any], content_type: str) -> str:
    """The one type that header and document agree on."""
    header = content_type.partition(";")[0].strip()
    declared = document.get("mediaType", "")
    if not isinstance(declared, str):
        raise manifest_invalid("mediaType must be a string")
    if header and declared and header.lower() != declared.lower():
        raise manifest_invalid(
            "Content-Type and mediaType differ", {"Content-Type": header[:200], "mediaType": declared[:200]}
        )
    chosen = declared or header or _type_by_shape(document)
    if _MEDIA_TYPE.fullmatch(chosen) is None:
        raise manifest_invalid("no valid media type in Content-Type or mediaType")
    if chosen.lower().startswith(_SCHEMA_1):
        raise manifest_invalid("schema 1 manifests are not supported; push schema 2 or OCI")
    if chosen.lower() in IMAGES | INDEXES:
        return chosen.lower()
    if not declared:
        raise manifest_invalid("a manifest of an unknown type must have a mediaType")
    return chosen


def _type_by_shape(document: dict[str, Any]) -> str:
    """OCI lets ``mediaType`` be absent: then the fields decide."""
    if "layers" in document and "config" in document:
        return OCI_MANIFEST
    return OCI_INDEX if "manifests" in document else ""


def _need(document: dict[str, Any], name: str, kind: type) -> None:
    if not isinstance(document.get(name), kind):
        raise manifest_invalid(f"{name} is missing or has the wrong type")


def _read(document: dict[str, Any], media_type: str) -> Manifest:
    config = [document["config"]] if media_type in IMAGES else []
    layers = document["layers"] if media_type in IMAGES else []
    children = document["manifests"] if media_type in INDEXES else []
    configs = tuple(_descriptor(value, "config") for value in config)
    artifact_type = _text(document, "artifactType") or "".join(each.media_type for each in configs)
    return Manifest(
        media_type=media_type,
        blobs=configs + tuple(_descriptor(value, "layers") for value in layers if not _is_foreign(value)),
        children=tuple(_descriptor(value, "manifests") for value in children),
        subject=_descriptor(document["subject"], "subject") if document.get("subject") is not None else None,
        artifact_type=artifact_type,
        annotations=_annotations(document),
    )


def _read_artifact(document: dict[str, Any], media_type: str) -> Manifest:
    """An unknown type: whatever looks like a descriptor under a usual name is taken for one."""
    blobs = [document.get("config"), *_as_list(document, "layers"), *_as_list(document, "blobs")]
    return Manifest(
        media_type=media_type,
        blobs=_plausible(blobs),
        children=_plausible(_as_list(document, "manifests")),
        subject=next(iter(_plausible([document.get("subject")])), None),
        required=False,
        artifact_type=_text(document, "artifactType"),
        annotations=_annotations(document),
    )


def _descriptor(value: object, where: str) -> Descriptor:
    if not isinstance(value, dict):
        raise manifest_invalid(f"{where}: a descriptor is a JSON object")
    digest, media_type, size = value.get("digest"), value.get("mediaType"), value.get("size")
    if not isinstance(digest, str) or not isinstance(media_type, str) or not media_type:
        raise manifest_invalid(f"{where}: a descriptor has a digest and a mediaType")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**63:
        raise manifest_invalid(f"{where}: a descriptor has a size in bytes")
    try:
        return Descriptor(parse_digest(digest), media_type, size)
    except RegistryError as error:
        raise manifest_invalid(f"{where}: {error.message}", error.detail) from error


def _plausible(values: list[object]) -> tuple[Descriptor, ...]:
    found = []
    for value in values:
        try:
            found.append(_descriptor(value, "artifact"))
        except RegistryError:
            continue  # an unknown type may mean something else by this name
    return tuple(found)


def _is_foreign(value: object) -> bool:
    """A layer that its owner serves from elsewhere."""
    if not isinstance(value, dict):
        return False
    media_type = value.get("mediaType")
    return isinstance(media_type, str) and media_type.startswith(_FOREIGN) and bool(value.get("urls"))


def _annotations(document: dict[str, Any]) -> dict[str, str]:
    annotations = document.get("annotations")
    if not isinstance(annotations, dict):
        return {}
    return {name: text for name, text in annotations.items() if isinstance(text, str)}


def _text(document: dict[str, Any], name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""


def _as_list(document: dict[str, Any], name: str) -> list[object]:
    value = document.get(name)
    return value if isinstance(value, list) else []
