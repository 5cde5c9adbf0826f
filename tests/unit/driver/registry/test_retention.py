"""Which tags go by rules."""

from __future__ import annotations

import tomllib

import pytest

from fabric.driver.registry.access.tag_guard import TagGuard
from fabric.driver.registry.errors import RegistryError
from fabric.driver.registry.retention import DAY_MS, BadRules, Decision, Retention, parse_rules
from tests.unit.driver.registry.memory_store import MemoryStore
from tests.unit.driver.registry.world import Clock, Process, run


def shop_with(*tags: str, name: str = "team/app", shop: Process | None = None) -> Process:
    """Each tag is set a day after the one before; the last one today."""
    shop = shop or Process(MemoryStore(), Clock())
    for tag in tags:
        shop.clock.advance(DAY_MS / 1000)
        shop.store.now_ms = shop.clock.now_ms
        run(shop.push_image(name, tag, tag.encode()))
    return shop


def apply(shop: Process, rules: str, *, dry_run: bool = False) -> list[Decision]:
    async def decisions() -> list[Decision]:
        retention = Retention(shop.store, shop.manifests, parse_rules(tomllib.loads(rules)))
        return [each async for each in retention.run(shop.clock.now_ms, dry_run=dry_run)]

    return run(decisions())  # type: ignore[no-any-return]


def tags_of(shop: Process, name: str = "team/app") -> list[str]:
    prefix = f"repositories/{name}/_tags/"
    return [path.removeprefix(prefix) for path in shop.store.paths(prefix)]


LAST_TWO = """
[[rule]]
repositories = ["team/*"]
keep_last = 2
"""


def test_the_last_n_stay() -> None:
    shop = shop_with("d", "c", "b", "a")
    decisions = apply(shop, LAST_TWO)

    assert tags_of(shop) == ["a", "b"]
    assert [(each.tag, each.keep) for each in decisions] == [
        ("a", True), ("b", True), ("c", False), ("d", False)
    ]  # fmt: skip
    assert decisions[0].reason == "rule 1: among the last 2"


def test_setting_a_tag_again_makes_it_young() -> None:
    shop = shop_with("d", "c", "b", "d")
    apply(shop, LAST_TWO)
    assert tags_of(shop) == ["b", "d"]


def test_young_tags_stay() -> None:
    shop = shop_with("old", "middle", "new")
    apply(shop, '[[rule]]\nrepositories = ["**"]\nkeep_days = 1.5\n')
    assert tags_of(shop) == ["middle", "new"]


def test_one_reason_is_enough_and_named_tags_stay() -> None:
    shop = shop_with("v1", "x", "y", "z")
    apply(shop, '[[rule]]\nrepositories = ["**"]\nkeep_last = 1\nkeep_days = 0\nkeep_tags = ["v*"]\n')
    assert tags_of(shop) == ["v1", "z"]


def test_the_first_rule_that_describes_a_tag_decides_and_others_stay() -> None:
    shop = shop_with("pr-1", "pr-2", "rc-1", "rc-2", "latest")
    shop_with("pr-1", "pr-2", name="other", shop=shop)
    rules = """
[[rule]]
repositories = ["team/**"]
tags = ["pr-*"]
keep_last = 1
[[rule]]
repositories = ["team/**"]
tags = ["pr-*", "rc-*"]
keep_last = 0
"""
    decisions = apply(shop, rules)

    assert tags_of(shop) == ["latest", "pr-2"]
    assert tags_of(shop, "other") == ["pr-1", "pr-2"]
    assert "latest" not in [each.tag for each in decisions]


def test_a_dry_run_tells_the_same_and_deletes_nothing() -> None:
    shop = shop_with("c", "b", "a")
    told = apply(shop, LAST_TWO, dry_run=True)
    assert tags_of(shop) == ["a", "b", "c"]
    assert told == apply(shop, LAST_TWO)
    assert tags_of(shop) == ["a", "b"]


def test_what_went_by_a_rule_is_in_the_history_and_comes_back() -> None:
    shop = shop_with("c", "b", "a")
    apply(shop, LAST_TWO)
    assert run(shop.history.of("team/app", "c"))[-1].who == "retention"
    run(shop.undelete.tag("team/app", "c", None, "operator"))
    assert tags_of(shop) == ["a", "b", "c"]


def test_a_tag_that_is_set_at_this_moment_stays() -> None:
    shop = shop_with("c", "b", "a")
    commit = shop.store.commit

    async def set_first(operations):  # type: ignore[no-untyped-def]
        shop.store.commit = commit  # type: ignore[method-assign]
        await shop.push_image("team/app", "c", b"c")
        return await commit(operations)

    shop.store.commit = set_first  # type: ignore[method-assign]
    decisions = apply(shop, LAST_TWO)

    assert tags_of(shop) == ["a", "b", "c"]
    assert decisions[-1].keep
    assert decisions[-1].reason == "it was set or deleted meanwhile"


def test_an_immutable_tag_stays() -> None:
    shop = shop_with("c", "b", "a")
    shop.store = TagGuard(shop.store, lambda name, tag: tag == "c")
    guarded = Process(shop.store, shop.clock)
    decisions = apply(guarded, LAST_TWO)

    assert decisions[-1].keep
    assert "immutable" in decisions[-1].reason
    assert run(guarded.manifests.find("team/app", "c"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "rule"),
        ("rule = []", "length >= 1"),
        ('[[rule]]\nrepositories = ["a"]', "rule 1 keeps nothing"),
        ("[[rule]]\nrepositories = []\nkeep_last = 1", "length >= 1"),
        ('[[rule]]\nrepositories = ["A"]\nkeep_last = 1', "rule 1: 'A' is no pattern of repositories"),
        ('[[rule]]\nrepositories = ["a"]\ntags = ["a b"]\nkeep_last = 1', "no pattern of tags"),
        ('[[rule]]\nrepositories = ["a"]\nkeep_last = -1', ">= 0"),
        ('[[rule]]\nrepositories = ["a"]\nkeep_lats = 1', "keep_lats"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(text: str, reason: str) -> None:
    with pytest.raises(BadRules, match=reason):
        parse_rules(tomllib.loads(text))


def test_a_tag_that_is_not_there_cannot_be_deleted_as_it_was_seen() -> None:
    shop = shop_with("a")
    run(shop.manifests.delete_tag("team/app", "a"))
    with pytest.raises(RegistryError):
        run(shop.manifests.delete_tag("team/app", "a"))
