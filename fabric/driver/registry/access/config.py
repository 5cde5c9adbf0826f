"""What may stand in an access file, and what it means.  Files it names are read by ``load``.

Every mistake is told with its key, such as ``rules[2].may``, and a reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from fabric.driver.registry.access.challenge import Challenger
from fabric.driver.registry.access.limits import Limits, Rate
from fabric.driver.registry.access.patterns import BadPattern, repository_patterns, tag_patterns
from fabric.driver.registry.access.policy import EVERYBODY, USERS, Immutable, Policy, Right, Rule
from fabric.driver.registry.access.tables import Mistake, Table, converted
from fabric.driver.registry.quota.quotas import BadQuota, Quota, add_quota

_HEADER_TEXT = re.compile(r"[ !#-\[\]-~]{1,200}")
"""What may stand between quotes in a header without an escape."""
_URL = re.compile(r"https?://[!#-\[\]-~]{1,500}")

Positive = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
NotEmpty = Annotated[list[str], msgspec.Meta(min_length=1)]


class UsersTable(Table, frozen=True):
    """Logins by name and password."""

    htpasswd: str
    realm: str = "fabric"
    ask_first: bool = True
    """``GET /v2/`` asks everybody for a login, though some may do things without one."""


class TokensTable(Table, frozen=True):
    """Logins by tokens that another server issues."""

    realm: str
    service: str
    issuer: str
    keys: str
    leeway_s: Annotated[float, msgspec.Meta(ge=0, le=300)] = 10.0


class RuleTable(Table, frozen=True):
    """Who may do what where."""

    repositories: NotEmpty
    who: NotEmpty
    may: list[str]


class ImmutableTable(Table, frozen=True):
    """Tags that are set once."""

    repositories: NotEmpty
    tags: NotEmpty


class TlsTable(Table, frozen=True):
    """Two PEM files."""

    certificate: str
    key: str


class QuotaTable(Table, frozen=True):
    """How many bytes the repositories below a prefix may hold together."""

    repositories: str
    bytes: int | str


class LimitsTable(Table, frozen=True):
    """For each client: the user, or the address where nobody logged in."""

    requests_per_s: Positive | None = None
    burst: Count | None = None
    concurrent_max: Count | None = None
    wrong_passwords_per_min: Positive = 20.0


class AccessTable(Table, frozen=True):
    """The whole file."""

    read_only: bool = False
    users: UsersTable | None = None
    tokens: TokensTable | None = None
    groups: dict[str, list[str]] = {}
    rules: list[RuleTable] | None = None
    immutable: list[ImmutableTable] = []
    quota: list[QuotaTable] | None = None
    """None: the file says nothing of quotas, and those that are in force stay so."""
    tls: TlsTable | None = None
    limits: LimitsTable = LimitsTable()


def parse_table(values: Mapping[str, Any]) -> AccessTable:
    """The file's content, typed.  Raises Mistake."""
    table = converted(values, AccessTable)
    if table.users is not None and table.tokens is not None:
        raise Mistake("tokens", "there is a [users] table too; clients are asked for one kind of login only")
    if table.limits.burst is not None and table.limits.requests_per_s is None:
        raise Mistake("limits.burst", "means nothing without requests_per_s")
    return table


def challenger_of(table: AccessTable) -> Challenger:
    """How clients are asked to log in.  Raises Mistake."""
    if table.users is not None:
        _check_text("users.realm", table.users.realm, _HEADER_TEXT)
        return Challenger(table.users.realm)
    if table.tokens is not None:
        if _URL.fullmatch(table.tokens.realm) is None:
            raise Mistake("tokens.realm", "not the http:// or https:// address of a token server")
        _check_text("tokens.service", table.tokens.service, _HEADER_TEXT)
        return Challenger(table.tokens.realm, table.tokens.service)
    return Challenger()


def policy_of(table: AccessTable) -> Policy:
    """The rules of the file.  Raises Mistake."""
    for group in table.groups:
        if not group or f"@{group}" in (EVERYBODY, USERS) or group.startswith("@"):
            raise Mistake(f"groups.{group}", "not a name for a group")
        for member in table.groups[group]:
            if not member or member.startswith("@"):
                raise Mistake(f"groups.{group}", f"{member!r} is not a user; groups hold no groups")
    rules = None
    if table.rules is not None:
        rules = [_rule(number, rule, table) for number, rule in enumerate(table.rules, start=1)]
    immutable = [_immutable(number, entry) for number, entry in enumerate(table.immutable, start=1)]
    groups = {name: frozenset(members) for name, members in table.groups.items()}
    # Who has no token is never let in, so without rules everybody who is let in is trusted: to do
    # what the token says.
    return Policy(rules, groups, immutable, has_logins=table.users is not None)


def limits_of(table: AccessTable) -> Limits:
    """Fresh limits, nothing counted yet."""
    limits = table.limits
    requests = None
    if limits.requests_per_s is not None:
        requests = Rate(limits.requests_per_s, float(limits.burst or max(1.0, limits.requests_per_s)))
    wrong = Rate(limits.wrong_passwords_per_min / 60.0, max(1.0, limits.wrong_passwords_per_min))
    return Limits(requests, limits.concurrent_max, wrong)


def quotas_of(table: AccessTable) -> list[Quota] | None:
    """The quotas of the file; None when it says nothing of quotas.  Raises Mistake."""
    if table.quota is None:
        return None
    quotas: list[Quota] = []
    for number, entry in enumerate(table.quota, start=1):
        try:
            quotas = add_quota(quotas, entry.repositories, entry.bytes)
        except BadQuota as error:
            raise Mistake(f"quota[{number}]", str(error)) from error
    return quotas


def unknown_users(table: AccessTable, users: frozenset[str]) -> Sequence[str]:
    """Names in rules and groups that no password belongs to: slips of a pen, often."""
    named = {who for rule in table.rules or [] for who in rule.who if not who.startswith("@")}
    named |= {member for members in table.groups.values() for member in members}
    return sorted(named - users)


def _rule(number: int, rule: RuleTable, table: AccessTable) -> Rule:
    place = f"rules[{number}]"
    for who in rule.who:
        if not who or (who.startswith("@") and who not in (EVERYBODY, USERS) and who[1:] not in table.groups):
            raise Mistake(f"{place}.who", f"{who!r} is no group of this file")
    rights = {right.value: frozenset({right}) for right in Right} | {"*": frozenset(Right)}
    for text in rule.may:
        if text not in rights:
            raise Mistake(f"{place}.may", f"{text!r} is none of pull, push, delete and *")
    may = frozenset[Right]().union(*(rights[text] for text in rule.may))
    try:
        return Rule(number, repository_patterns(rule.repositories), frozenset(rule.who), may)
    except BadPattern as error:
        raise Mistake(f"{place}.repositories", str(error)) from error


def _immutable(number: int, entry: ImmutableTable) -> Immutable:
    place = f"immutable[{number}]"
    try:
        repositories = repository_patterns(entry.repositories)
    except BadPattern as error:
        raise Mistake(f"{place}.repositories", str(error)) from error
    try:
        return Immutable(repositories, tag_patterns(entry.tags))
    except BadPattern as error:
        raise Mistake(f"{place}.tags", str(error)) from error


def _check_text(key: str, text: str, grammar: re.Pattern[str]) -> None:
    if grammar.fullmatch(text) is None:
        raise Mistake(key, "must be visible ASCII without quotes and backslashes")
