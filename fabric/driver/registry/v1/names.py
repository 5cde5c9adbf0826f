"""Names of the v1 protocol, and where each thing lies in the store::

    v1/images/<id>/json                    what the client says of the image; the image exists
    v1/images/<id>/{layer,ancestry,files}  its bytes, itself and its ancestors, the names in its layer
    v1/images/<id>/links                   grows in generation with each link that is made
    v1/owners/<id>/<name>                  the repository has the image
    v1/repositories/<name>/_images/<id>    the same, from the other side
    v1/repositories/<name>/_tags/<tag>     a tag, in its attributes the image
    v1/names/<name>                        the repository exists
    v1/key                                 what sessions are signed with
    uploads/v1/<id>/…                      an image that is being pushed

A push lies under ``uploads/``, where garbage collection discards what does not grow any more.
"""

from __future__ import annotations

import re

from fabric.driver.registry.errors import RegistryError
from fabric.driver.registry.names import is_tag, repository_name

OFFICIAL = "library/"
"""Docker's client puts this before a name of one component, in some of its requests and not in others."""

KEY_PATH = "v1/key"
NAMES_PREFIX = "v1/names/"

_IMAGE_ID = re.compile(r"[0-9a-f]{64}|[0-9a-f]{16}")


def refused(status: int, message: str, **headers: str) -> RegistryError:
    """An answer other than success.  ``_`` in a header's name stands for ``-``."""
    return RegistryError(
        status, "UNSUPPORTED", message, None, {name.replace("_", "-"): text for name, text in headers.items()}
    )


def is_image_id(text: str) -> bool:
    """Whether ``text`` is an id of an image: 64 hex digits, or 16 of the oldest clients."""
    return _IMAGE_ID.fullmatch(text) is not None


def image_id(text: str) -> str:
    """``text``, if it is an image's id.  Raises RegistryError 404."""
    if not is_image_id(text):
        raise refused(404, "Invalid image ID")
    return text


def canonical_name(text: str) -> str:
    """The repository that a client means: ``library/app`` and ``app`` are one.

    So it has the same name as in the later protocol, and the same rules of access hold.
    Raises RegistryError 400.
    """
    name = repository_name(text)
    short = name.removeprefix(OFFICIAL)
    return name if "/" in short else short


def full_name(name: str) -> str:
    """Namespace and name, as tokens have it."""
    return name if "/" in name else OFFICIAL + name


def tag(text: str) -> str:
    """``text``, if it is a tag.  Raises RegistryError 400."""
    if not is_tag(text):
        raise refused(400, "Invalid tag name")
    return text


def json_path(image: str) -> str:
    """What the client says of an image."""
    return f"v1/images/{image}/json"


def layer_path(image: str) -> str:
    """The bytes of a layer, as they were sent."""
    return f"v1/images/{image}/layer"


def ancestry_path(image: str) -> str:
    """A JSON list: the image, its parent, and so on to the first."""
    return f"v1/images/{image}/ancestry"


def files_path(image: str) -> str:
    """A JSON list of what is in the layer; made when somebody asks."""
    return f"v1/images/{image}/files"


def links_path(image: str) -> str:
    """An object without bytes whose generation each new link raises."""
    return f"v1/images/{image}/links"


def owners_prefix(image: str) -> str:
    """All repositories that have an image."""
    return f"v1/owners/{image}/"


def owner_path(image: str, name: str) -> str:
    """That a repository has an image."""
    return f"{owners_prefix(image)}{name}"


def images_prefix(name: str) -> str:
    """All images of a repository."""
    return f"v1/repositories/{name}/_images/"


def image_path(name: str, image: str) -> str:
    """An image of a repository."""
    return f"{images_prefix(name)}{image}"


def tags_prefix(name: str) -> str:
    """All tags of a repository."""
    return f"v1/repositories/{name}/_tags/"


def tag_path(name: str, tag: str) -> str:
    """A tag of a repository."""
    return f"{tags_prefix(name)}{tag}"


def name_path(name: str) -> str:
    """That a repository exists."""
    return f"{NAMES_PREFIX}{name}"


def pushed_json_path(image: str) -> str:
    """What the client says of an image that is being pushed."""
    return f"uploads/v1/{image}/json"


def pushed_layer_path(image: str, push: str) -> str:
    """The whole layer of an image that is being pushed."""
    return f"uploads/v1/{image}/layer-{push}"


def stream_path(image: str, stream: str) -> str:
    """A layer that is arriving."""
    return f"uploads/v1/{image}/stream-{stream}"
