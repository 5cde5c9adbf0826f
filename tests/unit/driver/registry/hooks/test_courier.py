"""Delivery: retries, order, who delivers, and what is given up.  Time stands still but for the tests."""

from __future__ import annotations

import asyncio
import os
import random
from itertools import pairwise
from typing import Any

import pytest

from fabric.driver.registry.hooks.courier import ENTRIES_MAX, POLL_S, drop_orphans
from fabric.driver.registry.hooks.schedule import (
    DELAY_S_MAX,
    DELAY_S_MIN,
    LEASE_MARGIN_S,
    State,
    batch_max,
    delay_s,
    state_of,
    state_path,
)
from fabric.errors import Internal, Unavailable
from tests.unit.driver.registry.hooks.hooks_world import CI, Carrier, Target, entries, process
from tests.unit.driver.registry.memory_store import MemoryStore
from tests.unit.driver.registry.world import Clock, FrailStore, interleave, run

SEEDS = range(int(os.environ.get("FABRIC_RACES", "40")))


class Post:
    """A store, a receiver, and couriers."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.clock = Clock()
        self.target = Target()
        self.pusher = process(self.store, self.clock)

    def push(self, *tags: str) -> None:
        for tag in tags:
            run(self.pusher.push_image("app", tag, b"one"))

    def carrier(self, me: str = "me", store: Any = None) -> Carrier:
        return Carrier(store or self.store, self.clock, self.target, me)

    def state(self) -> State:
        return state_of(self.store._info(state_path("ci")))

    def tags(self) -> list[str]:
        return [event.target.tag for event in self.target.got]

    def drain(self, carrier: Carrier) -> None:
        """Step until it has nothing to do, with time going on as it asks."""
        for _ in range(100):
            if not entries(self.store):
                return
            self.clock.advance(run(carrier.step()) + 0.001)  # it counts whole milliseconds
        raise AssertionError("it does not come to an end")


@pytest.fixture
def post() -> Post:
    return Post()


def test_what_waits_arrives_in_order_and_is_gone(post: Post) -> None:
    carrier = post.carrier()
    assert run(carrier.step()) == POLL_S
    assert post.store.paths("hooks/") == [], "nothing waits, nothing is written"
    post.push("v1", "v2", "v3")
    assert run(carrier.step()) == 0
    assert run(carrier.step()) == POLL_S
    assert post.tags() == ["v1", "v2", "v3"]
    assert entries(post.store) == []
    assert post.state() == State(lease_s=10.0, delivered=3, last_success_ms=post.clock.now_ms)


def test_one_request_has_so_many_and_no_more(post: Post) -> None:
    tags = [f"v{number}" for number in range(ENTRIES_MAX + 3)]
    post.push(*tags)
    post.drain(post.carrier())
    assert post.target.asked == [ENTRIES_MAX, 3]
    assert post.tags() == tags


def test_the_order_is_that_of_commits_not_of_clocks(post: Post) -> None:
    post.push("first")
    post.clock.advance(-60)
    post.push("second")
    post.drain(post.carrier())
    assert post.tags() == ["first", "second"]


def test_a_receiver_that_fails_is_tried_later_and_later_under_the_same_ids(post: Post) -> None:
    post.push("v1")
    (entry,) = entries(post.store)
    carrier = post.carrier()
    post.target.is_down = True
    tried_ms = []
    for _ in range(600):
        asked = len(post.target.asked)
        wait_s = run(carrier.step())
        if len(post.target.asked) > asked:
            tried_ms.append(post.clock.now_ms)
        post.clock.advance(min(wait_s, 0.5) + 0.001)  # something calls for it all the time
    gaps = [(later - earlier) / 1000 for earlier, later in pairwise(tried_ms)]
    assert gaps[:7] == sorted(gaps[:7]) and 0.75 * DELAY_S_MIN <= gaps[0] <= DELAY_S_MIN + 0.5
    assert 0.75 * DELAY_S_MAX <= gaps[-1] <= DELAY_S_MAX + 0.5
    assert (post.state().failures, post.state().last_error) == (len(tried_ms), "down")
    assert carrier.warnings == ["hook ci: down; what waits is kept, and tried again"]

    post.target.is_down = False
    post.drain(carrier)
    assert post.target.ids == [f"{entry.token}-1"]
    assert (post.state().failures, post.state().last_error, post.state().delivered) == (0, "", 1)


@pytest.mark.parametrize(
    ("failures", "most"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, DELAY_S_MAX), (10_000, DELAY_S_MAX)]
)
def test_the_delay_doubles_up_to_a_minute_and_is_never_the_same(failures: int, most: float) -> None:
    delays = {delay_s(failures, random.Random(seed)) for seed in range(50)}
    assert len(delays) == 50
    assert all(0.75 * most <= delay <= most for delay in delays)


@pytest.mark.parametrize(("failures", "count"), [(0, 32), (1, 16), (4, 2), (5, 1), (9, 1), (1000, 1)])
def test_a_receiver_that_fails_gets_fewer_at_once(failures: int, count: int) -> None:
    assert batch_max(failures, 32) == count


def test_after_a_success_all_goes_at_once_again(post: Post) -> None:
    post.push(*[f"v{number}" for number in range(20)])
    post.target.errors = ["busy", "busy"]
    post.drain(post.carrier())
    assert post.target.asked == [20, 16, 8, 12]


def test_what_is_too_old_is_given_up_after_one_more_try(post: Post) -> None:
    post.push("old1", "old2")
    post.clock.advance(CI.retry_for_s + 1)
    post.push("new")
    post.target.errors = ["still down"]
    carrier = post.carrier()
    run(carrier.step())
    assert [change.tags for entry in entries(post.store) for change in entry.changes] == [("new",)]
    assert (post.state().dropped, post.state().failures) == (2, 1)
    assert "2 events were given up" in carrier.warnings[-1]
    post.drain(carrier)
    assert post.tags() == ["new"]


def test_what_is_old_still_arrives_where_nobody_has_tried(post: Post) -> None:
    post.push("old")
    post.clock.advance(30 * CI.retry_for_s)
    post.drain(post.carrier())
    assert post.tags() == ["old"]


# --- several processes ----------------------------------------------------------------------------


async def _hang(carrier: Carrier) -> None:
    await carrier.step()


def held(post: Post, me: str) -> None:
    """A process took the lease, and has not been heard of since."""
    carrier = post.carrier(me, FrailStore(post.store, 2, after=False))
    interleave([_hang(carrier)], random.Random(1))
    assert post.state().holder == me


def test_a_holder_that_died_is_succeeded_after_its_lease(post: Post) -> None:
    post.push("v1")
    held(post, "dead")
    assert post.tags() == ["v1"], "it died after the answer, before it could say so"
    other = post.carrier("other")
    waited = 0.0
    while len(post.target.asked) == 1 and waited < 100:
        wait_s = run(other.step())
        post.clock.advance(wait_s)
        waited += wait_s
    assert 5.0 + LEASE_MARGIN_S <= waited < 5.0 + LEASE_MARGIN_S + 2
    first, again = post.target.ids
    assert first == again
    assert entries(post.store) == []


def test_a_rival_looks_again_soon_and_backs_off_with_the_holder(post: Post) -> None:
    post.push("v1")
    held(post, "busy")
    rival = post.carrier("rival")
    waits = [run(rival.step()) for _ in range(8)]
    assert waits == sorted(waits) and waits[0] <= 0.1 and waits[-1] == 1.0
    assert post.target.asked == [1]

    post.target.is_down = True
    holder = post.carrier("busy")
    run(holder.step())
    assert run(rival.step()) > 1.0, "while the receiver is down there is no hurry"


def test_a_lease_that_is_given_back_is_taken_at_once(post: Post) -> None:
    post.push("v1")
    post.target.is_down = True
    first, second = post.carrier("first"), post.carrier("second")
    run(first.step())
    run(first.courier.release())
    assert post.state().holder == ""
    post.target.is_down = False
    assert run(second.step()) == 0
    assert post.tags() == ["v1"]
    run(first.courier.release())  # it has none, and says nothing
    assert post.state().delivered == 1


def test_a_holder_that_was_too_slow_learns_it(post: Post) -> None:
    post.push("v1")
    slow, fast = post.carrier("slow"), post.carrier("fast")
    taken_over: list[Carrier] = [fast]

    async def send_slowly(events: Any) -> str:
        if taken_over:
            rival = taken_over.pop()
            await rival.step()  # sees the lease
            post.clock.advance(60)
            await rival.step()
        return await Target.send(post.target, events)

    slow.courier._send = send_slowly
    run(slow.step())
    post.drain(slow)
    assert len(set(post.target.ids)) == 1 and len(post.target.ids) == 2
    assert post.state().delivered == 1
    assert entries(post.store) == []


def test_what_arrived_after_another_took_over_is_not_sent_once_more(post: Post) -> None:
    post.push("v1")
    slow, fast = post.carrier("slow"), post.carrier("fast")

    async def send_slowly(events: Any) -> str:
        await fast.courier._take()  # sees the lease
        post.clock.advance(60)
        assert await fast.courier._take() == 0
        return await Target.send(post.target, events)

    slow.courier._send = send_slowly
    run(slow.step())
    assert entries(post.store) == []
    assert run(fast.step()) == POLL_S
    assert post.tags() == ["v1"]


def test_a_store_that_fails_loses_nothing(post: Post) -> None:
    post.push("v1")
    carrier = post.carrier()
    post.store.fail("commit", Unavailable("no master"), after=1)
    with pytest.raises(Unavailable):
        run(carrier.step())
    post.drain(carrier)
    assert post.tags() == ["v1", "v1"] and len(set(post.target.ids)) == 1


def test_an_entry_that_cannot_be_read_is_an_error_of_the_store_and_stays(post: Post) -> None:
    run(post.store.put("outbox/ci/1700000000000-x", b"", attributes={"00": "{}"}))
    with pytest.raises(Internal, match="outbox/ci/1700000000000-x is not what this version writes"):
        run(post.carrier().step())
    assert len(post.store.paths("outbox/")) == 1


def test_orphans_go_when_they_are_old_enough(post: Post) -> None:
    post.push("v1")
    old_ms = post.clock.now_ms
    post.clock.advance(10)
    post.push("v2")
    said: list[str] = []
    asyncio.run(drop_orphans(post.store, "ci", old_ms, said.append))
    assert (len(entries(post.store)), said) == (2, [])
    asyncio.run(drop_orphans(post.store, "ci", old_ms + 1, said.append))
    assert len(entries(post.store)) == 1 and "1 entries were given up" in said[0]


# --- all at once ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_at_least_once_and_in_order_whoever_dies(seed: int) -> None:
    """Processes push, deliver and are killed; what was pushed arrives, a repository's events in order."""
    rng = random.Random(seed)
    post = Post()
    pushed: dict[str, list[str]] = {"app": [], "other": []}

    async def pushes(name: str) -> None:
        for number in range(6):
            tag = f"v{number}"
            pushed[name].append(tag)
            await process(post.store, post.clock).push_image(name, tag, name.encode())

    async def delivers(me: str) -> None:
        store: Any = post.store
        if rng.random() < 0.6:
            store = FrailStore(store, rng.randint(1, 12), after=rng.random() < 0.5)
        carrier = post.carrier(me, store)
        for _ in range(30):
            await carrier.step()
            await post.store.list("nothing/")

    async def time() -> None:
        for _ in range(40):
            post.clock.advance(rng.choice((0, 0.1, 3)))
            if rng.random() < 0.1:
                post.target.errors.append("busy")
            await post.store.list("nothing/")

    everybody = [pushes("app"), pushes("other"), *(delivers(f"p{number}") for number in range(3)), time()]
    interleave(everybody, rng)
    post.drain(post.carrier("last"))

    got: dict[str, str] = {}
    for event in post.target.got:
        got.setdefault(event.id, f"{event.target.repository}:{event.target.tag}")
    for name, tags in pushed.items():
        assert [place for place in got.values() if place.startswith(f"{name}:")] == [
            f"{name}:{tag}" for tag in tags
        ]
    assert len(post.target.got) >= 12
