"""Events of pulls: bounded, dropped and counted, and never in the way."""

from __future__ import annotations

import random

import pytest

from fabric.driver.registry.hooks.changes import Change
from fabric.driver.registry.hooks.courier import ENTRIES_MAX, POLL_S, Clocks
from fabric.driver.registry.hooks.origin import Origin
from fabric.driver.registry.hooks.outbox import Entry
from fabric.driver.registry.hooks.pulls import KEEP_S, PULLS_MAX, Account, Pulls, read_account
from fabric.errors import Unavailable
from tests.unit.driver.registry.hooks.hooks_world import SOURCE, Target
from tests.unit.driver.registry.memory_store import MemoryStore
from tests.unit.driver.registry.world import Clock, run


class Desk:
    def __init__(self) -> None:
        self.store = MemoryStore()
        self.clock = Clock()
        self.target = Target()
        self.warnings: list[str] = []
        clocks = Clocks(self.clock.monotonic_s, self.clock.wall_ms, random.Random(1))
        self.pulls = Pulls(self.store, "ci", "", self.target.send, clocks, self.warnings.append)

    def pull(self, *tags: str) -> None:
        for tag in tags:
            change = Change("pull", "app", "d", "t", 1, (tag,))
            self.pulls.offer(Entry(f"id-{tag}", self.clock.now_ms, (change,), Origin(), SOURCE))

    def account(self) -> Account:
        found, _ = run(read_account(self.store, "ci"))
        assert isinstance(found, Account)
        return found


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_pulls_arrive_in_order_in_few_requests_and_write_nothing(desk: Desk) -> None:
    desk.pull(*[str(number) for number in range(ENTRIES_MAX + 1)])
    assert [run(desk.pulls.step()) for _ in range(3)] == [0, 0, POLL_S]
    assert desk.target.asked == [ENTRIES_MAX, 1]
    assert [event.target.tag for event in desk.target.got] == [str(n) for n in range(ENTRIES_MAX + 1)]
    assert desk.store.commits == []


def test_what_is_too_much_is_dropped_and_counted(desk: Desk) -> None:
    desk.target.is_down = True
    desk.pull(*[str(number) for number in range(PULLS_MAX + 7)])
    run(desk.pulls.step())
    assert len(desk.warnings) == 1 and "dropped" in desk.warnings[0]
    desk.clock.advance(POLL_S + 0.001)
    run(desk.pulls.step())
    assert desk.account() == Account(delivered=0, dropped=7)


def test_what_has_waited_for_minutes_is_dropped(desk: Desk) -> None:
    desk.target.is_down = True
    desk.pull("old")
    desk.clock.advance(KEEP_S + 1)
    desk.pull("new")
    run(desk.pulls.step())
    desk.target.is_down = False
    desk.clock.advance(60)
    run(desk.pulls.step())
    assert [event.target.tag for event in desk.target.got] == ["new"]
    run(desk.pulls.end())
    assert desk.account() == Account(delivered=1, dropped=1)


def test_a_receiver_that_fails_is_left_alone_for_a_while(desk: Desk) -> None:
    desk.target.errors = ["busy"]
    desk.pull("a")
    wait_s = run(desk.pulls.step())
    assert 0.75 <= wait_s <= 1
    desk.pull("b")
    run(desk.pulls.step())
    assert desk.target.asked == [1]
    desk.clock.advance(wait_s + 0.001)
    run(desk.pulls.step())
    run(desk.pulls.step())
    assert [event.target.tag for event in desk.target.got] == ["a", "b"]


def test_the_account_is_of_all_processes_and_survives_a_store_that_fails(desk: Desk) -> None:
    other = Desk()
    other.pulls._store = desk.store
    for each in (desk, other):
        each.pull("a")
        run(each.pulls.step())
    desk.store.fail("put", Unavailable("no master"))
    desk.clock.advance(POLL_S)
    with pytest.raises(Unavailable):
        run(desk.pulls.step())
    run(desk.pulls.end())
    run(other.pulls.end())
    run(other.pulls.end())
    assert desk.account() == Account(delivered=2)


def test_the_end_drops_what_waits(desk: Desk) -> None:
    desk.pull("a", "b")
    run(desk.pulls.end())
    assert desk.account() == Account(dropped=2)
    assert desk.target.asked == []
