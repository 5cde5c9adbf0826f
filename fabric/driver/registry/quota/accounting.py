"""What one commit changes in the accounts, and the steps that change it.  No I/O: see ``accounts``.

An account holds a digest while at least one entry ``owners/…`` is counted by it: one is counted that
names the account in its attributes.  ``held`` says by how many; the first brings its bytes into the
total, the last takes them away.

Whatever a decision here rests on is *seen* with a generation, and every step that changes something
demands that generation.  So a commit holds only if the account is still as it was looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from fabric.driver.registry.bookkeeping import Kind, link_path
from fabric.driver.registry.names import Digest, parse_digest
from fabric.driver.registry.quota.book import (
    ACCOUNT,
    BOOK_PATH,
    BYTES,
    COUNT,
    LINKS,
    SIZE,
    Account,
    Book,
    Figures,
    held_path,
    total_path,
)
from fabric.wire.messages import AnyOperation, CheckOperation, DeleteOperation, ObjectInfo, PutOperation

OWNERS_PREFIX = "owners/"

STEPS_PER_OWNERSHIP = 3
"""Added to a commit for each ownership that it changes, at most."""

STEPS_PER_COMMIT = 1
"""Added to a commit that changes ownerships, besides."""


@dataclass(frozen=True, slots=True)
class Ownership:
    """That a repository has bytes as a thing of some kind: what an entry ``owners/…`` says."""

    path: str
    digest: Digest
    kind: Kind
    name: str


def ownership_at(path: str) -> Ownership:
    """The ownership that an entry's path tells."""
    _, algorithm, value, kind, name = path.split("/", 4)
    digest = parse_digest(f"{algorithm}:{value}")
    return Ownership(path, digest, "blob" if kind == "blob" else "manifest", name)


@dataclass(frozen=True, slots=True)
class Change:
    """An ownership that a commit makes, makes anew, or ends."""

    ownership: Ownership
    is_owned: bool
    """Afterwards."""
    size: int | None
    """In bytes, if the commit says it."""


def changes_of(operations: Sequence[AnyOperation]) -> list[Change]:
    """The ownerships that a commit changes."""
    changes: dict[str, Change] = {}
    sizes = {
        operation.path: int(operation.attributes[SIZE])
        for operation in operations
        if isinstance(operation, PutOperation) and SIZE in operation.attributes
    }
    for operation in operations:
        if isinstance(operation, (PutOperation, DeleteOperation)) and _is_owner(operation.path):
            owned = ownership_at(operation.path)
            size = sizes.get(link_path(owned.name, owned.kind, owned.digest))
            changes[owned.path] = Change(owned, isinstance(operation, PutOperation), size)
    return list(changes.values())


def _is_owner(path: str) -> bool:
    return path.startswith(OWNERS_PREFIX)


def room_of(steps: Sequence[AnyOperation]) -> int:
    """How many steps these may become in a commit, what is said once for a commit aside."""
    owners = sum(_is_owner(each.path) for each in steps if isinstance(each, (PutOperation, DeleteOperation)))
    return len(steps) + owners * STEPS_PER_OWNERSHIP


@dataclass(slots=True)
class Holding:
    """A digest in an account: as it was seen, and as it shall be."""

    path: str
    account: str
    generation: int
    size: int
    links_before: int
    links: int

    @property
    def gained(self) -> int:
        """1 when the account holds the digest from now on, -1 when no more, else 0."""
        return int(self.links > 0) - int(self.links_before > 0)

    def step(self) -> AnyOperation:
        """Write it, on condition that it is as it was seen."""
        if self.links == 0:
            return DeleteOperation(self.path, if_generation=self.generation)
        attributes = {SIZE: str(self.size), LINKS: str(self.links)}
        return PutOperation(self.path, [], attributes=attributes, if_generation=self.generation)


def holding_of(account: str, digest: Digest, info: ObjectInfo | None, size: int) -> Holding:
    """What an account holds of a digest.  ``size`` counts when it holds nothing yet."""
    path = held_path(account, digest)
    if info is None:
        return Holding(path, account, 0, size, 0, 0)
    links = int(info.attributes[LINKS])
    return Holding(path, account, info.generation, int(info.attributes[SIZE]), links, links)


@dataclass(frozen=True, slots=True)
class Difference:
    """What a commit changes in one account's figures."""

    account: Account
    bytes: int
    count: int


@dataclass(slots=True)
class Plan:
    """Everything a commit needs besides what its caller wants."""

    book: Book
    changes: Mapping[str, Change]
    seen: dict[str, int] = field(default_factory=dict)
    """The generations of owners' entries and of what is held; 0: there was nothing."""
    holdings: dict[str, Holding] = field(default_factory=dict)
    figures: dict[str, Figures] = field(default_factory=dict)
    """The totals before, by account; looked at last."""

    def differences(self) -> list[Difference]:
        """The accounts whose figures change, in the order of their ids."""
        found = []
        for account in sorted(self.book.accounts, key=lambda account: account.id):
            gains = [
                (each.gained, each.size) for each in self.holdings.values() if each.account == account.id
            ]
            count = sum(gained for gained, _ in gains)
            size = sum(gained * size for gained, size in gains)
            if any(gained for gained, _ in gains):
                found.append(Difference(account, size, count))
        return found

    def conditions(self) -> list[AnyOperation]:
        """What must be so before: the book, and the owners' entries of accounts."""
        owners = [
            CheckOperation(path, generation) for path, generation in self.seen.items() if _is_owner(path)
        ]
        return [CheckOperation(BOOK_PATH, self.book.generation), *owners]

    def marked(self, operation: AnyOperation) -> AnyOperation:
        """The caller's step; an owner's entry names its account."""
        if not isinstance(operation, PutOperation) or not _is_owner(operation.path):
            return operation
        account = self.book.account_of(self.changes[operation.path].ownership.name)
        if account is None:
            return operation
        return msgspec.structs.replace(operation, attributes={**operation.attributes, ACCOUNT: account.id})

    def results(self) -> list[AnyOperation]:
        """What is so afterwards: what is held, and then the totals, in the order of ``differences``."""
        held = [holding.step() for holding in self.holdings.values() if holding.links != holding.links_before]
        totals = [_total(each, self.figures[each.account.id]) for each in self.differences()]
        return [*held, *totals]


def _total(difference: Difference, before: Figures) -> AnyOperation:
    attributes = {
        BYTES: str(before.bytes + difference.bytes),
        COUNT: str(before.count + difference.count),
    }
    path = total_path(difference.account.id)
    return PutOperation(path, [], attributes=attributes, if_generation=before.generation)


def excess(difference: Difference, before: Figures) -> bool:
    """Whether a change would take an account beyond its limit.  What makes it smaller never does."""
    account = difference.account
    if not account.is_counted or difference.bytes <= 0:
        return False
    return before.bytes + difference.bytes > account.limit_bytes


def is_counted_by(info: ObjectInfo | None, account: Account | None) -> bool:
    """Whether an owner's entry is counted by the account."""
    return info is not None and account is not None and info.attributes.get(ACCOUNT) == account.id
