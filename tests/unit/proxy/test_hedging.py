"""A slow replica gets company; a sick one is asked last; neither doubles a slow fabric's work."""

from __future__ import annotations

import random

from fabric.errors import BadChecksum, NoFragment, Unavailable
from fabric.node.effects import Send
from fabric.proxy.health import FAILURES_MAX, PAUSE_S_MAX, PAUSE_S_MIN, Health
from fabric.proxy.placement import order_replicas
from fabric.proxy.timers import Timers
from fabric.settings import Settings
from fabric.wire.messages import FragmentData, NodeView, ReadFragment
from tests.unit.proxy.test_download import DATA, get, server_of
from tests.unit.proxy.world import World, checksum

SETTINGS = Settings()
ANSWER = FragmentData(42, 0, checksum(DATA))


def reads(world: World) -> list[Send]:
    """Asked of replicas and not answered yet, the first asked first."""
    return world.sends(ReadFragment)


def test_a_second_replica_is_asked_beside_a_slow_one_and_the_first_right_answer_counts() -> None:
    world = World()
    sender = get(world)
    (slow,) = reads(world)
    world.wait(SETTINGS.hedge_after_s_max - 0.01)
    assert reads(world) == [slow]
    world.wait(0.02)
    _, second = reads(world)
    assert second.endpoint != slow.endpoint
    world.answer(second, ANSWER, DATA)
    assert world.reply_to(sender).payload == DATA
    world.answer(slow, ANSWER, DATA)
    assert len(world.replies) == 1, "answered once"
    world.assert_idle()


def test_the_slow_one_may_still_win() -> None:
    world = World()
    sender = get(world)
    (slow,) = reads(world)
    world.wait(SETTINGS.hedge_after_s_max + 0.01)
    world.answer(slow, ANSWER, DATA)
    assert world.reply_to(sender).payload == DATA
    world.fail(reads(world)[0], NoFragment("late, and of no interest"))
    assert len(world.replies) == 1
    world.assert_idle()


def test_a_failure_beside_a_slow_one_asks_the_third_and_gives_up_only_when_all_have_failed() -> None:
    world = World()
    sender = get(world)
    (slow,) = reads(world)
    world.wait(SETTINGS.hedge_after_s_max + 0.01)
    world.fail(reads(world)[1], BadChecksum("rot"))
    _, third = reads(world)
    world.fail(third, NoFragment("not here"))
    assert len(world.replies) == 0, "one has not answered yet"
    world.fail(slow, Unavailable("no route"))
    assert world.reply_to(sender).message.code == "NO_GOOD_COPY"
    world.assert_idle()


def test_a_fast_answer_calls_the_second_one_off() -> None:
    world = World()
    get(world)
    world.answer(reads(world)[0], ANSWER, DATA)
    world.wait(1.0)
    assert reads(world) == []


def test_when_everything_is_slow_only_a_few_reads_are_doubled() -> None:
    world = World()
    for _ in range(100):
        get(world)
    world.wait(SETTINGS.hedge_after_s_max + 0.01)
    assert 100 < len(reads(world)) <= 115


def test_a_server_that_hangs_is_asked_last_after_a_few_lost_reads() -> None:
    world = World()
    hanging = "a"
    asked_first = []
    for _ in range(60):
        get(world)
        first = reads(world)[-1]
        asked_first.append(server_of(first.endpoint))
        if asked_first[-1] == hanging:
            world.wait(SETTINGS.hedge_after_s_max + 0.01)
        last = reads(world)[-1]
        world.answer(last, ANSWER, DATA)
    assert asked_first.count(hanging) <= FAILURES_MAX + 1 + 60 * SETTINGS.hedge_after_s_max


def test_the_time_to_wait_follows_what_reads_take() -> None:
    health = Health(SETTINGS)
    assert health.hedge_after_s == SETTINGS.hedge_after_s_max
    for _ in range(640):
        health.succeeded("a", 0.001)
    assert health.hedge_after_s == SETTINGS.hedge_after_s_min
    for _ in range(640):
        health.succeeded("a", 0.05)
    assert health.hedge_after_s == 0.1
    for _ in range(640):
        health.succeeded("a", 3.0)
    assert health.hedge_after_s == SETTINGS.hedge_after_s_max


def test_the_breaker_opens_longer_each_time_and_closes_with_one_success() -> None:
    health = Health(SETTINGS)
    now = 0.0
    for _ in range(FAILURES_MAX - 1):
        health.failed("a", now)
    assert not health.is_sick("a", now)
    pauses = []
    for _ in range(8):
        health.failed("a", now)
        pause = 0.0
        while health.is_sick("a", now):
            now += 0.5
            pause += 0.5
        pauses.append(pause)
    assert pauses[0] == PAUSE_S_MIN and pauses[1] == 2 * PAUSE_S_MIN and pauses[-1] == PAUSE_S_MAX
    health.failed("a", now)
    health.succeeded("a", 0.001)
    assert not health.is_sick("a", now)
    health.failed("a", now)
    assert not health.is_sick("a", now)


def test_a_sick_replica_stands_behind_the_others_that_are_up_and_before_those_that_are_not() -> None:
    nodes = [
        NodeView("a", "tcp://a:1", 1, "RW"),
        NodeView("b", "tcp://b:1", 1, "SYNCING"),
        NodeView("c", "tcp://c:1", 1, "OFFLINE"),
    ]
    order = order_replicas(nodes, {}, random.Random(1), lambda server: server == "a")
    assert [node.server for node in order] == ["b", "a", "c"]


def test_timers_run_in_order_once_and_not_when_called_off() -> None:
    timers = Timers()
    ran: list[str] = []

    def note(text: str) -> list:  # type: ignore[type-arg]
        ran.append(text)
        return []

    timers.start(2.0, lambda now: note("second"))
    timers.start(1.0, lambda now: note("first"))
    off = timers.start(0.5, lambda now: note("never"))
    off.then = None
    assert timers.next_deadline() == 1.0
    assert timers.on_tick(0.9) == [] and ran == []
    timers.on_tick(5.0)
    timers.on_tick(6.0)
    assert ran == ["first", "second"]
    assert timers.next_deadline() is None
