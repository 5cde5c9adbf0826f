"""The proxy carries fragments when the master has some to move, and only then."""

from __future__ import annotations

import msgspec
import pytest

from fabric.errors import Busy, NoFragment, Unavailable
from fabric.proxy import mover
from fabric.wire.messages import (
    AbortFragment,
    FragmentData,
    FragmentRef,
    Move,
    Moved,
    Moves,
    ReadFragment,
    Relocate,
    Relocated,
    StoreFragment,
    TakeMoves,
)
from tests.unit.proxy.world import TWO_GROUPS, World, checksum, endpoint, topology

THREE_GROUPS = {**TWO_GROUPS, 3: ["g", "h", "i"]}
DATA = b"moved" * 20
FRAGMENT = FragmentRef(1, 5, len(DATA), checksum(DATA))


def moving(groups: dict[int, list[str]] = TWO_GROUPS, **how: object) -> World:
    """Group 1 is drained."""
    writable = frozenset(groups) - {1}
    view = msgspec.structs.replace(topology(groups, writable=writable), moving=True)
    world = World(view, **how)  # type: ignore[arg-type]
    world.wait(0.01)
    return world


def hand_out(world: World, *moves: Move, pause_ms: int = 0) -> None:
    world.answer(world.only(TakeMoves), Moves(list(moves), 60_000, pause_ms))


def give(world: World, data: bytes = DATA) -> None:
    """A replica answers the one read under way."""
    read = world.sends(ReadFragment)[0]
    assert isinstance(read.message, ReadFragment)
    world.answer(read, FragmentData(read.message.fid, 0, checksum(data)), data)


def confirm_all(world: World) -> FragmentRef:
    stores = world.sends(StoreFragment)
    for send in stores:
        world.confirm(send)
    first = stores[0].message
    assert isinstance(first, StoreFragment)
    return FragmentRef(first.group, first.fid, len(DATA), first.checksum)


def test_a_fragment_is_read_stored_elsewhere_and_told() -> None:
    world = moving()
    asked = world.only(TakeMoves).message
    assert isinstance(asked, TakeMoves) and asked.room_bytes == mover.ROOM_BYTES
    hand_out(world, Move(FRAGMENT, 0))
    give(world)
    stores = world.sends(StoreFragment)
    assert {send.endpoint for send in stores} == {endpoint(name) for name in "def"}
    target = confirm_all(world)
    told = world.only(Relocate)
    assert told.message == Relocate(mover.TIMEOUT_MS, [Moved(FRAGMENT, target)])
    world.answer(told, Relocated([True]))
    world.wait(0.01)
    assert len(world.sends(TakeMoves)) == 1, "and asks for more"
    assert not world.sends(AbortFragment)
    hand_out(world)
    world.assert_idle()


def test_nothing_is_asked_while_there_is_nothing_to_move() -> None:
    world = World(TWO_GROUPS)
    world.wait(10)
    assert not world.sends(TakeMoves)
    world.publish(msgspec.structs.replace(topology(TWO_GROUPS, sequence=2), moving=True))
    world.wait(0.01)
    hand_out(world, pause_ms=1_000)
    world.publish(topology(TWO_GROUPS, sequence=3))
    world.wait(10)
    assert not world.sends(TakeMoves)


def test_it_asks_again_after_the_pause_that_it_was_told() -> None:
    world = moving()
    hand_out(world, pause_ms=700)
    world.wait(0.6)
    assert not world.sends(TakeMoves)
    world.wait(0.2)
    assert world.only(TakeMoves)


def test_the_target_that_was_named_is_the_only_one() -> None:
    for seed in range(8):
        world = moving(THREE_GROUPS, seed=seed)
        hand_out(world, Move(FRAGMENT, 3))
        give(world)
        assert {send.endpoint for send in world.sends(StoreFragment)} == {endpoint(name) for name in "ghi"}


def test_a_fragment_never_goes_back_to_its_own_group() -> None:
    for seed in range(12):
        view = msgspec.structs.replace(topology(TWO_GROUPS), moving=True)
        world = World(view, seed=seed)
        world.wait(0.01)
        hand_out(world, Move(FRAGMENT, 0))
        give(world)
        assert {send.message.group for send in world.sends(StoreFragment)} == {2}  # type: ignore[attr-defined]


def test_a_new_copy_that_no_object_names_is_aborted() -> None:
    world = moving()
    hand_out(world, Move(FRAGMENT, 0))
    give(world)
    target = confirm_all(world)
    world.answer(world.only(Relocate), Relocated([False]))
    aborted = {(send.endpoint, send.message.fid) for send in world.sends(AbortFragment)}  # type: ignore[attr-defined]
    assert aborted == {(endpoint(name), target.fid) for name in "def"}


@pytest.mark.parametrize("outcome", ["silence", "refusal"])
def test_when_it_is_unknown_whether_it_is_named_nothing_is_aborted(outcome: str) -> None:
    world = moving()
    hand_out(world, Move(FRAGMENT, 0))
    give(world)
    confirm_all(world)
    if outcome == "refusal":
        world.fail(world.only(Relocate), Unavailable("the master is starting"))
    else:
        world.sent.clear()
        world.wait(mover.TIMEOUT_MS / 1000 + 0.1)
    assert not world.sends(AbortFragment)
    world.wait(mover.RETRY_S + 0.1)
    assert world.only(TakeMoves)


def test_what_cannot_be_read_or_stored_is_left_and_the_rest_goes_on() -> None:
    world = moving()
    other = FragmentRef(1, 6, len(DATA), checksum(DATA))
    hand_out(world, Move(FRAGMENT, 0), Move(other, 0))
    failed_reads = 0
    while world.sends(ReadFragment):
        read = world.sends(ReadFragment)[0]
        if read.message.fid == 6:  # type: ignore[attr-defined]
            world.answer(read, FragmentData(6, 0, checksum(DATA)), DATA)
            target = confirm_all(world)
            continue
        failed_reads += 1
        world.fail(read, NoFragment())
        if failed_reads % 3 == 0:
            world.wait(mover.RETRY_S + 0.1)
    assert failed_reads == 3 * mover.TRIES_MAX, "every replica, several times"
    told = world.only(Relocate).message
    assert isinstance(told, Relocate) and told.moved == [Moved(other, target)]
    world.answer(world.only(Relocate), Relocated([True]))
    world.sent.clear()
    world.assert_idle()


def test_a_group_that_is_busy_is_tried_again_soon() -> None:
    world = moving()
    hand_out(world, Move(FRAGMENT, 0))
    give(world)
    for send in world.sends(StoreFragment):
        world.fail(send, Busy("too many bytes"))
    world.wait(mover.RETRY_S + 0.1)
    give(world)
    confirm_all(world)
    assert world.only(Relocate)


def test_bytes_that_are_not_the_committed_ones_are_not_carried() -> None:
    world = moving()
    hand_out(world, Move(FRAGMENT, 0))
    give(world, b"wrong" * 20)
    assert not world.sends(StoreFragment)
    give(world)
    assert world.sends(StoreFragment)


def test_clients_come_first() -> None:
    world = moving(settings=None)
    limit = world.settings.proxy_inflight_bytes_max
    hand_out(world, pause_ms=500)
    world.role._context.inflight_bytes += limit // 2
    world.wait(2)
    assert not world.sends(TakeMoves)
    world.role._context.inflight_bytes -= limit // 2
    world.wait(2)
    assert world.only(TakeMoves)


def test_a_master_that_is_away_is_asked_again() -> None:
    world = moving()
    world.fail(world.only(TakeMoves), Unavailable("no answer"))
    world.wait(mover.RETRY_S / 2)
    assert not world.sends(TakeMoves)
    world.wait(mover.RETRY_S)
    assert world.only(TakeMoves)
