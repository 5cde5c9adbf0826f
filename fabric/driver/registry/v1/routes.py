"""From a raw request path to an endpoint of the v1 protocol.

No name of this protocol needs a percent escape, so a path that has one is refused, never interpreted.
Docker's client ends the path of a repository with a slash and no other path; that tells a repository
called ``app/tags`` from the tags of ``app``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from fabric.driver.registry.routes import PATH_CHARACTERS_MAX
from fabric.driver.registry.v1.names import canonical_name, image_id, refused, tag

_PATH = re.compile(r"[A-Za-z0-9._/-]*")


class Endpoint(Enum):
    """The noun behind a path; its value says what the path looks like."""

    PING = "/v1/_ping"
    USERS = "/v1/users/"
    USER = "/v1/users/<user>/"
    SEARCH = "/v1/search"
    IMAGE_JSON = "/v1/images/<id>/json"
    IMAGE_LAYER = "/v1/images/<id>/layer"
    IMAGE_ANCESTRY = "/v1/images/<id>/ancestry"
    IMAGE_CHECKSUM = "/v1/images/<id>/checksum"
    IMAGE_FILES = "/v1/images/<id>/files"
    REPOSITORY = "/v1/repositories/<name>/"
    IMAGES = "/v1/repositories/<name>/images"
    TAGS = "/v1/repositories/<name>/tags"
    TAG = "/v1/repositories/<name>/tags/<tag>"
    PROPERTIES = "/v1/repositories/<name>/properties"
    AUTH = "/v1/repositories/<name>/auth"


OF_IMAGES = {
    "json": Endpoint.IMAGE_JSON,
    "layer": Endpoint.IMAGE_LAYER,
    "ancestry": Endpoint.IMAGE_ANCESTRY,
    "checksum": Endpoint.IMAGE_CHECKSUM,
    "files": Endpoint.IMAGE_FILES,
}
_OF_REPOSITORIES = {
    "images": Endpoint.IMAGES,
    "tags": Endpoint.TAGS,
    "properties": Endpoint.PROPERTIES,
    "auth": Endpoint.AUTH,
}


@dataclass(frozen=True, slots=True)
class Route:
    """An endpoint and what it is about; empty what it has not."""

    endpoint: Endpoint
    name: str = ""
    image: str = ""
    tag: str = ""


def is_legacy(raw_path: str) -> bool:
    """Whether a path belongs to this protocol."""
    return raw_path.startswith("/v1/") or raw_path == "/_ping"


def parse_path(raw_path: str) -> Route:
    """The route of a request target, its query already cut off.

    Raises RegistryError: 400 for what can be no name, 404 for an unknown endpoint.
    """
    if len(raw_path) > PATH_CHARACTERS_MAX or _PATH.fullmatch(raw_path) is None:
        raise refused(400, "not a path of this protocol")
    match raw_path.removeprefix("/v1").removeprefix("/").split("/"):
        case ["_ping"]:
            return Route(Endpoint.PING)
        case ["users"] | ["users", ""]:
            return Route(Endpoint.USERS)
        case ["users", user] | ["users", user, ""] if user:
            return Route(Endpoint.USER)
        case ["search"]:
            return Route(Endpoint.SEARCH)
        case ["images", text, noun] if noun in OF_IMAGES:
            return Route(OF_IMAGES[noun], image=image_id(text))
        case ["repositories", *rest] if rest:
            return _repository_route(rest)
    raise refused(404, "unknown endpoint")


def _repository_route(rest: list[str]) -> Route:
    match rest:
        case [*name, ""] if name:
            return Route(Endpoint.REPOSITORY, _joined(name))
        case [*name, "tags", text] if name:
            return Route(Endpoint.TAG, _joined(name), tag=tag(text))
        case [*name, noun] if name and noun in _OF_REPOSITORIES:
            return Route(_OF_REPOSITORIES[noun], _joined(name))
    return Route(Endpoint.REPOSITORY, _joined(rest))


def _joined(name: list[str]) -> str:
    return canonical_name("/".join(name))
