"""The books: who links what, who needs what, and what has to be looked at again.

Garbage collection never walks over everything and never stops a push.  It can do that because every
commit that makes or ends a link writes an entry here, in the same commit::

    owners/<alg>/<hex>/<kind>/<name>                     the repository links these bytes as such a thing
    repositories/<name>/_uses/<alg>/<hex>/<alg>/<hex>    the second digest, a manifest, references the first
    repositories/<name>/_tagged/<alg>/<hex>/<tag>/<key>  a history entry of the tag names that manifest
    repositories/<name>/_history/tags/<tag>/<key>        what happened to a tag
    repositories/<name>/_trash/<kind>/<alg>/<hex>        a link that was deleted and can be restored

and one mark for each thing that may have become garbage::

    garbage/<alg>/<hex>            bytes that lost a link
    loose/<alg>/<hex>/<name>       a blob's link that no manifest may need: just made, or a use of it ended
    untagged/<alg>/<hex>/<name>    a manifest that no tag may name
    pending/<alg>/<hex>/<name>     a manifest too large for one commit is being pushed; its bytes
    retired/<key>/…                what can no longer be restored when that time is long past

A mark is a hint: whoever follows it looks again, and decides in a commit that fails when anything has
changed.  Four rules make that safe beside every push, without a lock:

- Bytes are removed only together with their ``garbage`` mark, at the generation it had before ``owners``
  was seen to be empty.  Whoever makes a link deletes the mark, and checks that the bytes exist.
- A link is removed only at the generation it had before ``_uses`` was seen to be empty.  A push of a
  manifest appends nothing to each link it needs: that demands the link and raises its generation.
- A mark is dropped only at the generation it was seen at; whoever gives a new reason writes it anew.
- What is in the trash is still owned, and its uses still count.  Linking again takes it out of the trash.

A mirrored manifest is there before what it references: its uses may name what is not linked yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fabric.driver.registry.names import (
    Digest,
    blob_link_path,
    manifest_link_path,
    parse_digest,
)
from fabric.wire.messages import (
    AnyOperation,
    AppendOperation,
    CheckOperation,
    DeleteOperation,
    ObjectInfo,
    PutOperation,
)

Kind = Literal["blob", "manifest"]
"""As what a repository links bytes; the same bytes may be both."""

GARBAGE_PREFIX = "garbage/"
LOOSE_PREFIX = "loose/"
UNTAGGED_PREFIX = "untagged/"
PENDING_PREFIX = "pending/"
RETIRED_PREFIX = "retired/"

SINCE = "since"
"""Attribute of a mark: wall clock in milliseconds, when its reason came up."""

LEAVING = "leaving"
"""Attribute of a blob's link, not empty: a client that asks is told to upload it again."""

MIRRORED = "mirrored"
"""Attribute of a manifest's link: it came from an upstream, and what it references may not be here yet."""

MUST_NOT_EXIST = 0
"""The generation that a ``CheckOperation`` names to say so."""

_KIND_FOLDERS: dict[Kind, str] = {"blob": "blobs", "manifest": "manifests"}


# --- when and who ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stamp:
    """When something was done, and by whom."""

    at_ms: int
    """Wall clock, milliseconds since 1970.  (The true order is that of the entries' generations.)"""
    who: str
    token: str
    """Random, so that two stamps of one millisecond differ."""

    @property
    def key(self) -> str:
        """Sorts by time."""
        return f"{self.at_ms:013d}-{self.token}"

    def attributes(self) -> dict[str, str]:
        """What an entry says of it."""
        return {"at": str(self.at_ms), "who": self.who}


@dataclass(frozen=True, slots=True)
class Stamper:
    """Makes stamps of now."""

    wall_ms: Callable[[], int]
    new_id: Callable[[], str]
    """A random text that ends with eight hex digits or more."""

    def stamp(self, who: str) -> Stamp:
        """Now, by ``who``."""
        return Stamp(self.wall_ms(), who, self.new_id()[-8:])


# --- paths ----------------------------------------------------------------------------------------


def _folder(digest: Digest) -> str:
    return f"{digest.algorithm}/{digest.value}"


def owners_prefix(digest: Digest) -> str:
    """All links to these bytes."""
    return f"owners/{_folder(digest)}/"


def owner_path(digest: Digest, kind: Kind, name: str) -> str:
    """That the repository links these bytes, or has them in its trash."""
    return f"{owners_prefix(digest)}{kind}/{name}"


def uses_prefix(name: str, digest: Digest) -> str:
    """All manifests of the repository that reference ``digest``."""
    return f"repositories/{name}/_uses/{_folder(digest)}/"


def use_path(name: str, digest: Digest, manifest: Digest) -> str:
    """That ``manifest`` references ``digest``."""
    return f"{uses_prefix(name, digest)}{_folder(manifest)}"


def tagged_prefix(name: str, digest: Digest) -> str:
    """All tags that name the manifest, or did within the time in which they can be restored."""
    return f"repositories/{name}/_tagged/{_folder(digest)}/"


def tagged_path(name: str, digest: Digest, tag: str, key: str) -> str:
    """That the history entry ``key`` of the tag names the manifest."""
    return f"{tagged_prefix(name, digest)}{tag}/{key}"


def histories_prefix(name: str) -> str:
    """The histories of all tags of a repository."""
    return f"repositories/{name}/_history/tags/"


def history_prefix(name: str, tag: str) -> str:
    """A tag's history, oldest first but for clocks that differ."""
    return f"{histories_prefix(name)}{tag}/"


def trash_prefix(name: str, kind: Kind) -> str:
    """What a repository can restore."""
    return f"repositories/{name}/_trash/{_KIND_FOLDERS[kind]}/"


def trash_path(name: str, kind: Kind, digest: Digest) -> str:
    """A link that was deleted."""
    return f"{trash_prefix(name, kind)}{_folder(digest)}"


def link_path(name: str, kind: Kind, digest: Digest) -> str:
    """A link of either kind."""
    return blob_link_path(name, digest) if kind == "blob" else manifest_link_path(name, digest)


def garbage_path(digest: Digest) -> str:
    """The mark of bytes that lost a link."""
    return f"{GARBAGE_PREFIX}{_folder(digest)}"


def loose_path(name: str, digest: Digest) -> str:
    """The mark of a blob that no manifest may need."""
    return f"{LOOSE_PREFIX}{_folder(digest)}/{name}"


def untagged_path(name: str, digest: Digest) -> str:
    """The mark of a manifest that no tag may name."""
    return f"{UNTAGGED_PREFIX}{_folder(digest)}/{name}"


def pending_path(name: str, digest: Digest) -> str:
    """The mark of a large manifest that is being pushed."""
    return f"{PENDING_PREFIX}{_folder(digest)}/{name}"


def retired_path(key: str, what: str) -> str:
    """The mark of something that happened at a stamp's time; ``what`` tells several of them apart."""
    return f"{RETIRED_PREFIX}{key}/{what}"


def digest_at(path: str, prefix: str) -> Digest:
    """The digest that follows ``prefix`` in one of our own paths."""
    algorithm, value = path.removeprefix(prefix).split("/", 2)[:2]
    return parse_digest(f"{algorithm}:{value}")


def marked(path: str, prefix: str) -> tuple[str, Digest]:
    """The repository and the digest of a mark."""
    return path.removeprefix(prefix).split("/", 2)[2], digest_at(path, prefix)


# --- steps of commits -----------------------------------------------------------------------------


def mark(path: str, since_ms: int) -> PutOperation:
    """Set a mark, or set it anew."""
    return PutOperation(path, [], attributes={SINCE: str(since_ms)})


def since_ms(info: ObjectInfo) -> int:
    """Since when a mark has stood, wall clock in milliseconds."""
    return int(info.attributes[SINCE])


def owning(digest: Digest, kind: Kind, name: str) -> list[AnyOperation]:
    """Beside a link that is made: its entry, and no doubt about the bytes."""
    return [
        PutOperation(owner_path(digest, kind, name), []),
        DeleteOperation(garbage_path(digest), missing_ok=True),
        DeleteOperation(trash_path(name, kind, digest), missing_ok=True),
    ]


def disowning(digest: Digest, kind: Kind, name: str, now_ms: int) -> list[AnyOperation]:
    """Beside a link that ends for good: its entry goes, and somebody has to look at the bytes."""
    return [
        DeleteOperation(owner_path(digest, kind, name), missing_ok=True),
        mark(garbage_path(digest), now_ms),
    ]


def linking_blob(name: str, digest: Digest, size: int, now_ms: int) -> list[AnyOperation]:
    """Make a blob a repository's own.  The commit must also make or check the bytes."""
    attributes = {"size": str(size)}
    return [
        PutOperation(blob_link_path(name, digest), [], str(digest), attributes),
        *owning(digest, "blob", name),
        mark(loose_path(name, digest), now_ms),
    ]


def using(name: str, digest: Digest, link: str, manifest: Digest) -> list[AnyOperation]:
    """Beside a manifest that references what lies at ``link``: hold it.  Fails when it is not linked."""
    return [
        AppendOperation(link, [], expected_size=0, attributes={LEAVING: ""}),
        PutOperation(use_path(name, digest, manifest), []),
        DeleteOperation(loose_path(name, digest), missing_ok=True),
    ]


def using_ahead(name: str, digest: Digest, link: str, manifest: Digest) -> list[AnyOperation]:
    """Beside a manifest that references what is to come to ``link``.  Fails when it is there already.

    Without that, a pass that has seen the new link, and no use of it, could end it.
    """
    return [CheckOperation(link, MUST_NOT_EXIST), PutOperation(use_path(name, digest, manifest), [])]


def trashing(name: str, kind: Kind, digest: Digest, link: ObjectInfo, stamp: Stamp) -> list[AnyOperation]:
    """Move a link, at the generation that was seen, to where it can be restored from."""
    noted = {key: value for key, value in link.attributes.items() if key != LEAVING}
    return [
        DeleteOperation(link.path, if_generation=link.generation),
        PutOperation(
            trash_path(name, kind, digest), [], str(digest), {**noted, **stamp.attributes(), "key": stamp.key}
        ),
        retiring(name, kind, digest, stamp.key),
    ]


def retiring(name: str, kind: Kind, digest: Digest, key: str) -> PutOperation:
    """The mark of something that is in the trash since a stamp's time."""
    attributes = {"kind": kind, "repository": name, "digest": str(digest)}
    return PutOperation(retired_path(key, kind), [], str(digest), attributes)
