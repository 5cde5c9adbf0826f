"""The rules: who may pull, push and delete where, and which tags stay as they are.

One reading decides: from top to bottom, the *first* rule that names both the repository and the person
says everything about the two.  What no rule names is not allowed.  A file without rules trusts whoever
is let in: everybody where there is no login, otherwise those who logged in.

A token brings rights of its own (``Grants``).  Then both must agree: the token, and the rules if there
are any.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from fabric.driver.registry.access.patterns import Patterns

EVERYBODY = "@everybody"
"""In a rule: with or without a login."""

USERS = "@users"
"""In a rule: everybody who has logged in."""


class Right(Enum):
    """What may be done to a repository; none implies another."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks; an empty user is somebody who did not log in."""

    user: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the file: on these repositories, these people may do this, and nothing else."""

    number: int
    repositories: Patterns
    who: frozenset[str]
    """Users, ``@groups``, ``@everybody``, ``@users``."""
    may: frozenset[Right]


@dataclass(frozen=True, slots=True)
class Decision:
    """What somebody may do, and the number of the rule that said so; 0: no rule did."""

    may: frozenset[Right]
    rule: int


_EVERYTHING = Decision(frozenset(Right), 0)
_NOTHING = Decision(frozenset(), 0)

DECISIONS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Grants:
    """What a token allows."""

    repositories: Mapping[str, frozenset[Right]]
    catalog: bool

    def of(self, repository: str) -> frozenset[Right]:
        """The rights to one repository."""
        return self.repositories.get(repository, frozenset())


@dataclass(frozen=True, slots=True)
class Immutable:
    """Tags that, once there, stay what they are."""

    repositories: Patterns
    tags: Patterns


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything that a file says about rights.  ``rules`` None: there are none."""

    rules: Sequence[Rule] | None = None
    groups: Mapping[str, frozenset[str]] = field(default_factory=dict)
    immutable: Sequence[Immutable] = ()
    has_logins: bool = False
    """Whether somebody can log in; without rules nobody else is trusted then."""
    _decided: OrderedDict[tuple[str, str], Decision] = field(default_factory=OrderedDict, compare=False)
    """What was decided, the oldest first: a pull asks the same a hundred times."""

    def names_of(self, identity: Identity) -> frozenset[str]:
        """Every name by which a rule can mean this person."""
        if not identity.user:
            return frozenset({EVERYBODY})
        groups = {f"@{name}" for name, members in self.groups.items() if identity.user in members}
        return frozenset({EVERYBODY, USERS, identity.user, *groups})

    def decide(self, identity: Identity, repository: str) -> Decision:
        """What this person may do to this repository."""
        if self.rules is None:
            is_trusted = bool(identity.user) or not self.has_logins
            return _EVERYTHING if is_trusted else _NOTHING
        key = (identity.user, repository)
        decision = self._decided.get(key)
        if decision is None:
            decision = self._decided[key] = self._decide(identity, repository)
            if len(self._decided) > DECISIONS_MAX:
                self._decided.popitem(last=False)
        return decision

    def _decide(self, identity: Identity, repository: str) -> Decision:
        assert self.rules is not None
        names = self.names_of(identity)
        for rule in self.rules:
            if not names.isdisjoint(rule.who) and rule.repositories.match(repository):
                return Decision(rule.may, rule.number)
        return _NOTHING

    def strangers_may_something(self) -> bool:
        """Whether somebody who did not log in may do anything anywhere."""
        if self.rules is None:
            return not self.has_logins
        return any(EVERYBODY in rule.who and rule.may for rule in self.rules)

    def is_immutable(self, repository: str, tag: str) -> bool:
        """Whether a tag may be set once only."""
        return any(entry.tags.match(tag) and entry.repositories.match(repository) for entry in self.immutable)


@dataclass(frozen=True, slots=True)
class Client:
    """Somebody at the door, with all that decides what they may do."""

    identity: Identity = Identity()
    policy: Policy = Policy()
    grants: Grants | None = None
    """None: nobody asks for tokens here."""

    def may(self, right: Right, repository: str) -> bool:
        """Whether token and rules both allow it."""
        if self.grants is not None and right not in self.grants.of(repository):
            return False
        return right in self.rights_by_rules(repository)

    def rights_by_rules(self, repository: str) -> frozenset[Right]:
        """What the rules alone allow."""
        return self.policy.decide(self.identity, repository).may

    def may_see(self, repository: str) -> bool:
        """Whether the catalog shows it.  A token for the whole catalog needs none for each repository."""
        return Right.PULL in self.rights_by_rules(repository)


ANYBODY = Client()
"""The client of a registry without an access file: may do everything."""
