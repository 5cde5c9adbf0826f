"""Names: what a repository, a tag, a digest and an upload id look like, and where each lies in the store.

The grammar is that of the OCI distribution specification.  Every path in the store is built here, from
values that were validated here, so that no text of a client reaches a path unread::

    blobs/<algorithm>/<2 digits>/<hex>                       bytes, shared by all repositories
    repositories/<name>/_blobs/<algorithm>/<hex>             this repository may read that blob
    repositories/<name>/_manifests/<algorithm>/<hex>         a manifest of this repository
    repositories/<name>/_tags/<tag>                          a tag, in its attributes the digest
    repositories/<name>/_referrers/<alg>/<hex>/<alg>/<hex>   the second manifest has the first as subject
    names/<name>                                             the repository exists
    uploads/<id>                                             an upload in progress
    parts/<id>/waiting/<start>                               a part of it whose turn has not come
    parts/<id>/incoming/<random id>                          a part of it that is being received

What garbage collection and undeletion need besides lies at paths that ``bookkeeping`` builds.

A component of a name never begins with ``_``, so a repository cannot lie inside another's folders.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fabric.driver.registry.errors import digest_invalid, name_invalid, tag_invalid

NAME_CHARACTERS_MAX = 255
TAG_CHARACTERS_MAX = 128

HEX_DIGITS = {"sha256": 64, "sha512": 128}
"""The digest algorithms we take, and the length of their values."""

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(rf"[a-zA-Z0-9_][a-zA-Z0-9._-]{{0,{TAG_CHARACTERS_MAX - 1}}}")
_HEX = re.compile(r"[0-9a-f]+")
_UPLOAD_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Digest:
    """An algorithm and a value, such as ``sha256:<64 hex digits>``."""

    algorithm: str
    value: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value}"


def repository_name(text: str) -> str:
    """``text``, if it is a repository name.  Raises RegistryError NAME_INVALID."""
    if len(text) > NAME_CHARACTERS_MAX:
        raise name_invalid(f"a repository name has at most {NAME_CHARACTERS_MAX} characters", "")
    if _NAME.fullmatch(text) is None:
        raise name_invalid("not a repository name", text)
    return text


def is_tag(text: str) -> bool:
    """Whether ``text`` is a tag by the specification's grammar."""
    return _TAG.fullmatch(text) is not None


def tag_name(text: str) -> str:
    """``text``, if it is a tag.  Raises RegistryError TAG_INVALID."""
    if not is_tag(text):
        raise tag_invalid(text)
    return text


def parse_digest(text: str) -> Digest:
    """The digest that ``text`` names.  Raises RegistryError DIGEST_INVALID, also for other algorithms."""
    algorithm, colon, value = text.partition(":")
    if not colon or algorithm not in HEX_DIGITS:
        raise digest_invalid(f"not a digest of {' or '.join(HEX_DIGITS)}", text)
    if len(value) != HEX_DIGITS[algorithm] or _HEX.fullmatch(value) is None:
        raise digest_invalid(f"a {algorithm} digest has {HEX_DIGITS[algorithm]} lower-case hex digits", text)
    return Digest(algorithm, value)


def parse_reference(text: str) -> Digest | str:
    """A digest when ``text`` has a colon, else the text, which may or may not be a tag.

    Raises RegistryError DIGEST_INVALID.
    """
    return parse_digest(text) if ":" in text else text


def is_upload_id(text: str) -> bool:
    """Whether ``text`` could be an id that we handed out: 128 bits in a UUID's form."""
    return _UPLOAD_ID.fullmatch(text) is not None


def blob_path(digest: Digest) -> str:
    """The bytes with that digest."""
    return f"blobs/{digest.algorithm}/{digest.value[:2]}/{digest.value}"


def blob_link_path(name: str, digest: Digest) -> str:
    """The link by which a repository owns a blob."""
    return f"repositories/{name}/_blobs/{digest.algorithm}/{digest.value}"


def manifest_links_prefix(name: str) -> str:
    """All manifests of a repository."""
    return f"repositories/{name}/_manifests/"


def manifest_link_path(name: str, digest: Digest) -> str:
    """The link by which a repository owns a manifest."""
    return f"{manifest_links_prefix(name)}{digest.algorithm}/{digest.value}"


def tags_prefix(name: str) -> str:
    """All tags of a repository, in ASCII order."""
    return f"repositories/{name}/_tags/"


def tag_path(name: str, tag: str) -> str:
    """A tag of a repository."""
    return f"{tags_prefix(name)}{tag}"


def referrers_prefix(name: str, subject: Digest) -> str:
    """All manifests of a repository that name ``subject``."""
    return f"repositories/{name}/_referrers/{subject.algorithm}/{subject.value}/"


def referrer_path(name: str, subject: Digest, digest: Digest) -> str:
    """That manifest ``digest`` names ``subject``."""
    return f"{referrers_prefix(name, subject)}{digest.algorithm}/{digest.value}"


NAMES_PREFIX = "names/"
"""All repositories, in the byte order of their names."""


def name_path(name: str) -> str:
    """A repository's entry in the list of all."""
    return f"{NAMES_PREFIX}{name}"


UPLOADS_PREFIX = "uploads/"
"""All uploads in progress."""


def upload_path(upload_id: str) -> str:
    """An upload in progress; the id must have passed ``is_upload_id``."""
    return f"{UPLOADS_PREFIX}{upload_id}"


PARTS_PREFIX = "parts/"
"""What has come of uploads out of order."""


def parts_prefix(upload_id: str) -> str:
    """Everything that an upload has besides its object; the id must have passed ``is_upload_id``."""
    return f"{PARTS_PREFIX}{upload_id}/"


def waiting_prefix(upload_id: str) -> str:
    """The complete parts of an upload that wait for those before them, in order."""
    return f"{parts_prefix(upload_id)}waiting/"


def waiting_path(upload_id: str, start: int) -> str:
    """The complete part that begins at byte ``start``."""
    return f"{waiting_prefix(upload_id)}{start:020d}"


def incoming_path(upload_id: str, part_id: str) -> str:
    """A part that one request brings."""
    return f"{parts_prefix(upload_id)}incoming/{part_id}"
