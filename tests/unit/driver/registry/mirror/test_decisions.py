"""When the upstream is asked, and what is done without its answer."""

from __future__ import annotations

import msgspec
import pytest

from fabric.driver.registry.mirror.config import MirrorTable
from fabric.driver.registry.mirror.decisions import (
    FINISH_BYTES_MAX,
    MISSING_MAX,
    REST_S_MAX,
    Missing,
    Standing,
    is_fresh,
    is_worth_finishing,
    may_be_served_stale,
)

MIRROR = MirrorTable("hub/**", "https://hub.example", tag_fresh_s=60, stale_for_s=3600)


@pytest.mark.parametrize(("age_ms", "fresh"), [(0, True), (59_999, True), (60_000, False), (-1, False)])
def test_a_tag_is_fresh_for_a_time(age_ms: int, fresh: bool) -> None:
    assert is_fresh(MIRROR, 1_000_000, 1_000_000 + age_ms) == fresh


def test_no_tag_is_fresh_when_none_shall_be() -> None:
    assert not is_fresh(msgspec.structs.replace(MIRROR, tag_fresh_s=0), 1000, 1000)


@pytest.mark.parametrize(("age_ms", "may"), [(0, True), (3_600_000, True), (3_600_001, False)])
def test_a_stale_tag_is_served_for_a_time(age_ms: int, may: bool) -> None:
    assert may_be_served_stale(MIRROR, 1_000_000, 1_000_000 + age_ms) == may


def test_or_for_ever() -> None:
    assert may_be_served_stale(msgspec.structs.replace(MIRROR, stale_for_s=-1), 0, 10**15)


def test_what_is_missing_is_remembered_for_a_while() -> None:
    missing = Missing(5)
    missing.note("app", "v1", now=100)
    assert missing.has("app", "v1", now=104.9)
    assert not missing.has("app", "v1", now=105)
    assert not missing.has("app", "v2", now=100)
    assert not Missing(0).has("app", "v1", now=100)


def test_what_is_missing_takes_bounded_memory() -> None:
    missing = Missing(5)
    for number in range(MISSING_MAX + 10):
        missing.note("app", str(number), now=100)
    assert len(missing) == MISSING_MAX
    missing.note("app", "later", now=200)
    assert len(missing) == 1


def test_an_upstream_rests_after_a_failure() -> None:
    standing = Standing(10)
    assert not standing.rests(0)
    assert standing.failed(100)
    assert not standing.failed(101), "told once"
    assert standing.rests(110.9) and not standing.rests(111)
    assert standing.answered()
    assert not standing.rests(101) and not standing.answered()


def test_an_upstream_may_ask_for_a_longer_rest_but_not_for_any() -> None:
    standing = Standing(10)
    standing.failed(0, retry_after_s=100)
    assert standing.rests(99) and not standing.rests(100)
    standing.failed(0, retry_after_s=10**9)
    assert not standing.rests(REST_S_MAX)


def test_a_transfer_nobody_waits_for() -> None:
    large = 100 * FINISH_BYTES_MAX
    assert is_worth_finishing(0, FINISH_BYTES_MAX)
    assert not is_worth_finishing(large // 2 - 1, large)
    assert is_worth_finishing(large // 2, large)
