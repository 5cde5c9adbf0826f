"""From a raw request path to an endpoint.

Repository names contain slashes and may look like endpoints (``/v2/manifests/manifests/latest`` is
one), so a path is read from its end.  It is percent-decoded once and only once, segment by segment:
an escaped slash, a second escape, a dot segment or a control character is refused, never interpreted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote

from fabric.driver.registry.errors import name_invalid, unsupported
from fabric.driver.registry.names import repository_name

PATH_CHARACTERS_MAX = 1024

_SEGMENT = re.compile(r"[!-~]*")
_HEX_PAIR = re.compile(r"%[0-9A-Fa-f]{2}")


class Endpoint(Enum):
    """The noun behind a path; its value says what the path looks like."""

    BASE = "/v2/"
    CATALOG = "/v2/_catalog"
    TAGS = "/v2/<name>/tags/list"
    MANIFEST = "/v2/<name>/manifests/<reference>"
    REFERRERS = "/v2/<name>/referrers/<digest>"
    BLOB = "/v2/<name>/blobs/<digest>"
    UPLOADS = "/v2/<name>/blobs/uploads/"
    UPLOAD = "/v2/<name>/blobs/uploads/<id>"
    PARTS = "/v2/<name>/_fabric/uploads/parts"
    EXTENSIONS = "/v2/_oci/ext/discover"
    """Also under ``/v2/<name>/``."""
    HEALTH = "/healthz"
    LEGACY = "/v1/"
    """All of the older protocol, which has routes of its own."""


@dataclass(frozen=True, slots=True)
class Route:
    """An endpoint, the repository it is about, and the last part of the path; empty when it has none."""

    endpoint: Endpoint
    name: str = ""
    reference: str = ""


def parse_path(raw_path: str) -> Route:
    """The route of a request target, its query already cut off.

    Raises RegistryError: NAME_INVALID (400) for what can hold no repository name, UNSUPPORTED (404) for
    an unknown endpoint.
    """
    if raw_path == "/healthz":
        return Route(Endpoint.HEALTH)
    if raw_path in ("/v2", "/v2/"):
        return Route(Endpoint.BASE)
    if not raw_path.startswith("/v2/"):
        raise unsupported(404, "there is nothing here; the API begins at /v2/")
    if len(raw_path) > PATH_CHARACTERS_MAX:
        raise name_invalid(f"a path has at most {PATH_CHARACTERS_MAX} characters", "")
    segments = [_segment(raw) for raw in raw_path.removeprefix("/v2/").split("/")]
    if segments == ["_catalog"]:
        return Route(Endpoint.CATALOG)
    if segments == ["_oci", "ext", "discover"]:
        return Route(Endpoint.EXTENSIONS)
    if any(segment in (".", "..") for segment in segments):
        raise name_invalid("a path has no dot segments", raw_path)
    if "" in segments[:-1]:
        raise name_invalid("a path has no empty segments", raw_path)
    return _repository_route(segments)


def _repository_route(segments: list[str]) -> Route:
    match segments:
        case [*name, "tags", "list"] if name:
            return Route(Endpoint.TAGS, _joined(name))
        case [*name, "blobs", "uploads"] | [*name, "blobs", "uploads", ""] if name:
            return Route(Endpoint.UPLOADS, _joined(name))
        case [*name, "blobs", "uploads", upload_id] if name:
            return Route(Endpoint.UPLOAD, _joined(name), upload_id)
        case [*name, "blobs", digest] if name and digest:
            return Route(Endpoint.BLOB, _joined(name), digest)
        case [*name, "manifests", reference] if name and reference:
            return Route(Endpoint.MANIFEST, _joined(name), reference)
        case [*name, "referrers", digest] if name and digest:
            return Route(Endpoint.REFERRERS, _joined(name), digest)
        case [*name, "_fabric", "uploads", "parts"] if name:
            return Route(Endpoint.PARTS, _joined(name))
        case [*name, "_oci", "ext", "discover"] if name:
            return Route(Endpoint.EXTENSIONS, _joined(name))
        case _:
            raise unsupported(404, "unknown endpoint")


def _joined(name: list[str]) -> str:
    return repository_name("/".join(name))


def _segment(raw: str) -> str:
    """One segment, decoded once.  What does not decode to visible ASCII is refused."""
    if _SEGMENT.fullmatch(raw) is None:
        raise name_invalid("a path has visible ASCII characters only", raw)
    if "%" not in raw:
        return raw
    if raw.count("%") != len(_HEX_PAIR.findall(raw)):
        raise name_invalid("a bad percent escape", raw)
    decoded = unquote(raw, encoding="latin-1")
    if "/" in decoded or "\\" in decoded or "%" in decoded or _SEGMENT.fullmatch(decoded) is None:
        raise name_invalid("an escape that is not allowed here", raw)
    return decoded
