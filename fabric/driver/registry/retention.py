"""Retention: which tags a repository keeps, by rules that an operator writes.

A file of rules, in TOML::

    [[rule]]
    repositories = ["team/**"]      # ** is one component or more, * any characters within one
    tags = ["pr-*"]                 # [default: all]
    keep_last = 10                  # of the tags that match, those that were set last
    keep_days = 30                  # those that were set within so many days
    keep_tags = ["pr-1"]            # those in any case

For each tag the first rule that describes its repository and its name decides; a tag that no rule describes
stays.  A tag stays when any of the rule's reasons to keep it holds, and a rule needs one at least.  Only
tags are deleted: their manifests become untagged, and all of it can be restored like any other deletion.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.access.patterns import (
    BadPattern,
    Patterns,
    repository_patterns,
    tag_patterns,
)
from fabric.driver.registry.errors import RegistryError
from fabric.driver.registry.manifest_store import ManifestStore
from fabric.driver.registry.names import NAMES_PREFIX, tags_prefix
from fabric.errors import NotFound, Precondition
from fabric.wire.messages import ObjectInfo

ACTOR = "retention"
"""Who deletes."""

DAY_MS = 24 * 3600 * 1000

Natural = Annotated[int, msgspec.Meta(ge=0)]


class BadRules(ValueError):
    """A file of rules that cannot be used: which rule, and why."""


class _RuleTable(msgspec.Struct, forbid_unknown_fields=True):
    repositories: Annotated[list[str], msgspec.Meta(min_length=1)]
    tags: tuple[str, ...] = ("*",)
    keep_last: Natural | None = None
    keep_days: Annotated[float, msgspec.Meta(ge=0)] | None = None
    keep_tags: tuple[str, ...] = ()


class _RulesFile(msgspec.Struct, forbid_unknown_fields=True):
    rule: Annotated[list[_RuleTable], msgspec.Meta(min_length=1)]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, checked."""

    number: int
    """Its place in the file, from 1."""
    repositories: Patterns
    tags: Patterns
    keep_last: int | None
    keep_ms: int | None
    keep_tags: Patterns


@dataclass(frozen=True, slots=True)
class Decision:
    """What the rules say of one tag."""

    repository: str
    tag: str
    digest: str
    set_at_ms: int
    """When it was set last, wall clock in milliseconds."""
    keep: bool
    reason: str


def parse_rules(document: dict[str, Any]) -> list[Rule]:
    """The rules of a parsed TOML file.  Raises BadRules."""
    try:
        tables = msgspec.convert(document, _RulesFile, strict=True).rule
    except msgspec.ValidationError as error:
        raise BadRules(str(error)) from error
    return [_rule(number, table) for number, table in enumerate(tables, start=1)]


def _rule(number: int, table: _RuleTable) -> Rule:
    if table.keep_last is None and table.keep_days is None and not table.keep_tags:
        raise BadRules(f"rule {number} keeps nothing: it needs keep_last, keep_days or keep_tags")
    try:
        return Rule(
            number,
            repository_patterns(table.repositories),
            tag_patterns(table.tags),
            table.keep_last,
            None if table.keep_days is None else int(table.keep_days * DAY_MS),
            tag_patterns(table.keep_tags),
        )
    except BadPattern as error:
        raise BadRules(f"rule {number}: {error}") from error


def decide(rules: Sequence[Rule], name: str, tags: Sequence[ObjectInfo], now_ms: int) -> list[Decision]:
    """What the rules say of each tag of a repository; of those that no rule describes, nothing."""
    concerned = [rule for rule in rules if rule.repositories.match(name)]
    by_rule: dict[int, list[ObjectInfo]] = {}
    for info in tags:
        rule = next((rule for rule in concerned if rule.tags.match(_tag(info, name))), None)
        if rule is not None:
            by_rule.setdefault(rule.number, []).append(info)
    decisions = []
    for rule in concerned:
        # Of two that were set in one millisecond the generation tells the newer one.
        newest = sorted(by_rule.get(rule.number, ()), key=lambda info: info.generation, reverse=True)
        decisions += [_decision(rule, name, info, rank, now_ms) for rank, info in enumerate(newest)]
    return decisions


def _decision(rule: Rule, name: str, info: ObjectInfo, rank: int, now_ms: int) -> Decision:
    tag = _tag(info, name)
    keep, reason = False, f"rule {rule.number} has no reason to keep it"
    if rule.keep_tags.match(tag):
        keep, reason = True, f"rule {rule.number} names it"
    elif rule.keep_last is not None and rank < rule.keep_last:
        keep, reason = True, f"rule {rule.number}: among the last {rule.keep_last}"
    elif rule.keep_ms is not None and now_ms - info.created_at_ms < rule.keep_ms:
        keep, reason = True, f"rule {rule.number}: not {rule.keep_ms / DAY_MS:g} days old"
    return Decision(name, tag, info.digest, info.created_at_ms, keep, reason)


def _tag(info: ObjectInfo, name: str) -> str:
    return info.path.removeprefix(tags_prefix(name))


class Retention:
    """Applies rules to everything."""

    def __init__(self, store: ObjectStore, manifests: ManifestStore, rules: Sequence[Rule]) -> None:
        self._store = store
        self._manifests = manifests
        self._rules = rules

    async def run(self, now_ms: int, *, dry_run: bool) -> AsyncIterator[Decision]:
        """Decide on every tag that a rule describes and, unless it is a dry run, act.

        A tag that changes at this moment stays.  Raises FabricError of the store.
        """
        async for entry in self._entries(NAMES_PREFIX):
            name = entry.path.removeprefix(NAMES_PREFIX)
            if not any(rule.repositories.match(name) for rule in self._rules):
                continue
            tags = [info async for info in self._entries(tags_prefix(name))]
            generations = {_tag(info, name): info.generation for info in tags}
            for decision in decide(self._rules, name, tags, now_ms):
                if decision.keep or dry_run:
                    yield decision
                else:
                    yield await self._delete(decision, generations[decision.tag])

    async def _delete(self, decision: Decision, generation: int) -> Decision:
        try:
            await self._manifests.delete_tag_at(decision.repository, decision.tag, generation, ACTOR)
        except (Precondition, NotFound):
            return _kept(decision, "it was set or deleted meanwhile")
        except RegistryError as error:
            return _kept(decision, error.message)  # it is immutable
        return decision

    async def _entries(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        after = ""
        while True:
            page = await self._store.list(prefix, after=after)
            for info in page.objects:
                yield info
            after = page.next
            if not after:
                return


def _kept(decision: Decision, reason: str) -> Decision:
    return Decision(
        decision.repository, decision.tag, decision.digest, decision.set_at_ms, keep=True, reason=reason
    )
