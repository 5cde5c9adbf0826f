"""What a commit changes that receivers of webhooks want to know.

Whatever path a push or a deletion takes (a client's request, retention, a restoration, garbage
collection), it ends in one commit, and that commit's steps say all: which tag is set or deleted, which
manifest is linked or goes to the trash.  So events are read from the steps, and no path can forget them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from fabric.driver.registry.access.tag_guard import tag_of_path
from fabric.driver.registry.bookkeeping import trash_path
from fabric.driver.registry.collection import COLLECTOR
from fabric.driver.registry.names import NAMES_PREFIX, Digest, manifest_link_path
from fabric.wire.messages import AnyOperation, DeleteOperation, PutOperation

Action = Literal["push", "pull", "delete"]
"""What happened, by the word that receivers get."""


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that happened to a manifest, to tags of it, or to a repository as a whole."""

    action: Action
    repository: str
    digest: str = ""
    """Empty for a deletion of tags alone, and of a repository."""
    media_type: str = ""
    size: int = 0
    """In bytes."""
    tags: tuple[str, ...] = ()
    """One event each; none: one event about the manifest, or the repository."""
    who: str = ""
    """Empty: whoever made the commit."""


def changes_of(operations: Sequence[AnyOperation]) -> list[Change]:
    """What these steps, all of one commit, change.  Empty for nearly all commits."""
    told = [each for each in operations if _may_be_told(each)]
    if not told:
        return []
    puts = {each.path: each for each in operations if isinstance(each, PutOperation)}
    pushed: dict[tuple[str, str], list[str]] = {}
    untagged: dict[tuple[str, str], list[str]] = {}
    found: list[Change] = []
    for step in told:
        assert isinstance(step, PutOperation | DeleteOperation)
        name, tag = tag_of_path(step.path)
        if tag and isinstance(step, PutOperation):
            pushed.setdefault((name, step.digest), []).append(tag)
        elif tag:
            untagged.setdefault((name, _who(puts, name, tag)), []).append(tag)
        elif isinstance(step, DeleteOperation) and step.path.startswith(NAMES_PREFIX):
            # Only garbage collection ends a repository.
            found.append(Change("delete", step.path.removeprefix(NAMES_PREFIX), who=COLLECTOR))
        else:
            found += _of_link(step, puts)
    tagged = [_tagged(name, digest, tags, puts) for (name, digest), tags in pushed.items()]
    deleted = [Change("delete", name, tags=tuple(tags), who=who) for (name, who), tags in untagged.items()]
    new = {(each.repository, each.digest) for each in tagged}
    others = [each for each in found if each.action != "push" or (each.repository, each.digest) not in new]
    return [*tagged, *deleted, *others]


_TOLD = (PutOperation, DeleteOperation)


def _may_be_told(step: AnyOperation) -> bool:
    """Cheap, since most steps of most commits are about something else."""
    if not isinstance(step, _TOLD):
        return False
    path = step.path
    return "/_tags/" in path or "/_manifests/" in path or path.startswith(NAMES_PREFIX)


def _tagged(name: str, digest: str, tags: Sequence[str], puts: dict[str, PutOperation]) -> Change:
    noted = puts[f"repositories/{name}/_tags/{tags[0]}"].attributes
    who = _who(puts, name, tags[0])
    return Change("push", name, digest, noted["mediaType"], int(noted["size"]), tuple(tags), who)


def _who(puts: dict[str, PutOperation], name: str, tag: str) -> str:
    """Who changed a tag: the entry in its history, which is in the same commit, says it."""
    start = f"repositories/{name}/_history/tags/{tag}/"
    return next((each.attributes["who"] for path, each in puts.items() if path.startswith(start)), "")


def _of_link(step: PutOperation | DeleteOperation, puts: dict[str, PutOperation]) -> list[Change]:
    """That a manifest is linked, or no longer."""
    before, found, rest = step.path.partition("/_manifests/")
    if not found or not before.startswith("repositories/"):
        return []
    name, (algorithm, _, value) = before.removeprefix("repositories/"), rest.partition("/")
    digest = Digest(algorithm, value)
    if step.path != manifest_link_path(name, digest):
        return []
    if isinstance(step, PutOperation):
        noted = step.attributes
        return [Change("push", name, str(digest), noted["mediaType"], int(noted["size"]))]
    trashed = puts.get(trash_path(name, "manifest", digest))
    return [Change("delete", name, str(digest), who=trashed.attributes["who"] if trashed else "")]
