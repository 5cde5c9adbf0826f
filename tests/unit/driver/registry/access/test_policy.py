"""Rules: the first that is about both decides."""

from __future__ import annotations

import tomllib

import pytest

from fabric.driver.registry.access.config import parse_table, policy_of
from fabric.driver.registry.access.policy import Client, Grants, Identity, Policy, Right

NOBODY = Identity()
PULL, PUSH, DELETE = Right.PULL, Right.PUSH, Right.DELETE

RULES = """
[users]
htpasswd = "htpasswd"

[groups]
builders = ["ci", "nightly"]

[[rules]]
repositories = ["team/secret"]
who = ["alice"]
may = ["pull"]

[[rules]]
repositories = ["team/secret"]
who = ["@everybody"]
may = []

[[rules]]
repositories = ["team/**", "shared"]
who = ["@builders", "alice"]
may = ["pull", "push"]

[[rules]]
repositories = ["team/**"]
who = ["@users"]
may = ["pull"]

[[rules]]
repositories = ["public/**"]
who = ["root"]
may = ["*"]

[[rules]]
repositories = ["public/**"]
who = ["@everybody"]
may = ["pull"]
"""


def policy(text: str = RULES) -> Policy:
    return policy_of(parse_table(tomllib.loads(text)))


@pytest.mark.parametrize(
    ("user", "repository", "may", "rule"),
    [
        ("alice", "team/secret", {PULL}, 1),
        ("ci", "team/secret", set(), 2),
        ("", "team/secret", set(), 2),
        ("ci", "team/app", {PULL, PUSH}, 3),
        ("nightly", "shared", {PULL, PUSH}, 3),
        ("bob", "team/app", {PULL}, 4),
        ("", "team/app", set(), 0),
        ("root", "public/x", {PULL, PUSH, DELETE}, 5),
        ("alice", "public/x", {PULL}, 6),
        ("", "public/x", {PULL}, 6),
        ("root", "elsewhere", set(), 0),
    ],
)
def test_the_first_rule_that_names_both_decides(
    user: str, repository: str, may: set[Right], rule: int
) -> None:
    decision = policy().decide(Identity(user), repository)
    assert (decision.may, decision.rule) == (may, rule)


def test_without_rules_whoever_is_let_in_is_trusted() -> None:
    everything = set(Right)
    assert policy("").decide(NOBODY, "app").may == everything
    with_logins = policy('[users]\nhtpasswd = "x"')
    assert with_logins.decide(NOBODY, "app").may == set()
    assert with_logins.decide(Identity("bob"), "app").may == everything


def test_rules_that_allow_nothing_are_not_the_same_as_no_rules() -> None:
    assert policy("rules = []").decide(Identity("bob"), "app").may == set()


def test_strangers_may_something_only_where_a_rule_says_so() -> None:
    assert policy().strangers_may_something()
    assert policy("").strangers_may_something()
    assert not policy('[users]\nhtpasswd = "x"').strangers_may_something()
    refused = '[[rules]]\nrepositories = ["**"]\nwho = ["@everybody"]\nmay = []'
    assert not policy(refused).strangers_may_something()


def test_a_token_and_the_rules_must_both_allow_it() -> None:
    grants = Grants({"team/app": frozenset({PULL, DELETE})}, catalog=False)
    client = Client(Identity("ci"), policy(), grants)
    assert [right for right in Right if client.may(right, "team/app")] == [PULL]
    assert not client.may(PULL, "shared")


def test_immutable_tags_are_those_of_one_entry() -> None:
    text = """
    immutable = [
        {repositories = ["a/**"], tags = ["v*"]},
        {repositories = ["b"], tags = ["stable", "x*"]},
    ]
    """
    found = [
        (name, tag)
        for name in ("a/x", "b", "c")
        for tag in ("v1", "stable", "xy", "latest")
        if policy(text).is_immutable(name, tag)
    ]
    assert found == [("a/x", "v1"), ("b", "stable"), ("b", "xy")]
