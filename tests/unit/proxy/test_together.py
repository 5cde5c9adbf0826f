"""Small fragments of one turn share a message to each replica, and nothing else."""

import pytest

from fabric.errors import BadChecksum, DiskFailed, FabricError, StaleEpoch, UnknownKind
from fabric.node.effects import Send, Sender
from fabric.proxy.together import ALONE_S, ROUND_BYTES_MAX, ROUND_FRAGMENTS_MAX, SMALL_BYTES
from fabric.settings import Settings
from fabric.wire.messages import (
    AbortFragment,
    Commit,
    Committed,
    FidLease,
    FragmentRef,
    FragmentRefusal,
    FragmentsStored,
    LeaseFids,
    ObjectInfo,
    PutFragment,
    PutObject,
    ReportFailure,
    Stored,
    StoreFragment,
    StoreFragments,
)
from tests.unit.proxy.world import FIRST_FID, ONE_GROUP, TWO_GROUPS, World, checksum, endpoint, topology

PARTS = [b"a" * 1000, b"b" * 10, b"c" * 100]


def put_all(world: World, parts: list[bytes] = PARTS, deadline_ms: int = 8000) -> list[Sender]:
    with world.one_turn():
        return [world.ask(PutFragment(deadline_ms, checksum(data)), data) for data in parts]


def rounds(world: World) -> dict[str, Send]:
    """By the name of the server."""
    return {send.endpoint[len("tcp://") : -len(":7410")]: send for send in world.sends(StoreFragments)}


def confirm(world: World, send: Send, refused: dict[int, FabricError] | None = None) -> None:
    store = send.message
    assert isinstance(store, StoreFragments)
    refused = refused or {}
    stored = [each for each in store.fragments if each.fid not in refused]
    refusals = [FragmentRefusal(fid, error.code, error.message) for fid, error in refused.items()]
    world.answer(send, FragmentsStored(store.group, store.epoch, stored, refusals))


def outcomes(world: World, senders: list[Sender]) -> list[object]:
    """What each was told: a fid, the code of an error, or None."""
    told = {reply.to: reply.message for reply in world.replies}
    found: list[object] = []
    for sender in senders:
        message = told.get(sender)
        found.append(message.fragment.fid if isinstance(message, Stored) else getattr(message, "code", None))
    return found


def test_each_member_gets_one_message_with_all_of_them():
    world = World()
    put_all(world)
    assert world.sends(StoreFragment) == []
    stores = rounds(world)
    assert stores.keys() == {"a", "b", "c"}
    refs = [FragmentRef(1, FIRST_FID + n, len(data), checksum(data)) for n, data in enumerate(PARTS)]
    for send in stores.values():
        assert send.message == StoreFragments(3000, 1, 7, refs)
        assert send.payload == b"".join(PARTS)


def test_each_is_answered_when_every_member_has_confirmed_it_and_not_before():
    world = World()
    senders = put_all(world)
    stores = rounds(world)
    confirm(world, stores["a"])
    confirm(world, stores["b"])
    assert world.replies == []
    confirm(world, stores["c"])
    assert outcomes(world, senders) == [FIRST_FID, FIRST_FID + 1, FIRST_FID + 2]
    world.assert_idle()


def test_small_objects_are_committed_each_by_itself():
    world = World()
    with world.one_turn():
        for n, data in enumerate(PARTS):
            world.ask(PutObject(8000, bytes([n]) * 16, f"blob/{n}", checksum(data)), data)
    for send in rounds(world).values():
        confirm(world, send)
    commits = world.sends(Commit)
    assert [send.message.operations[0].path for send in commits] == ["blob/0", "blob/1", "blob/2"]
    assert [send.message.operations[0].fragments[0].length for send in commits] == [1000, 10, 100]
    for send in commits:
        world.answer(send, Committed([ObjectInfo("", 1, 1, 1, "", 0, {}, False)]))
    world.assert_idle()


def test_one_alone_large_ones_and_those_of_different_turns_go_by_themselves():
    world = World()
    world.ask(PutFragment(8000, checksum(b"1")), b"1")
    world.ask(PutFragment(8000, checksum(b"2")), b"2")
    with world.one_turn():
        world.ask(PutFragment(8000, checksum(b"3")), b"3")
        large = b"x" * (SMALL_BYTES + 1)
        world.ask(PutFragment(8000, checksum(large)), large)
        assert len(world.sends(StoreFragment)) == 9  # the large one does not wait for the others
    assert world.sends(StoreFragments) == []
    assert {send.message.fid for send in world.sends(StoreFragment)} == {FIRST_FID + n for n in range(4)}


def test_what_one_member_refuses_is_aborted_there_and_then_and_the_others_go_on():
    world = World(TWO_GROUPS, settings=Settings(fid_range_count=1000))
    senders = put_all(world)
    first = rounds(world)
    one, another, third = first.values()
    dead = one.message.fragments[1]
    confirm(world, one, {dead.fid: DiskFailed("EIO")})
    aborts = world.sends(AbortFragment)
    assert {send.endpoint for send in aborts} == {endpoint(name) for name in first}
    assert {send.message.fid for send in aborts} == {dead.fid}
    assert world.only(ReportFailure).message.code == "DISK_FAILED"
    # Elsewhere, under a new fid, alone.
    again = world.sends(StoreFragment)
    assert {send.message.group for send in again} == {3 - one.message.group}
    assert {send.message.fid for send in again} == {FIRST_FID + 3}
    confirm(world, another)
    confirm(world, third)
    assert outcomes(world, senders) == [FIRST_FID, None, FIRST_FID + 2]
    for send in again:
        assert send.payload == PARTS[1]
        world.confirm(send)
    assert outcomes(world, senders) == [FIRST_FID, FIRST_FID + 3, FIRST_FID + 2]
    world.assert_idle()


def test_bytes_that_are_not_what_their_sender_said_fail_and_are_not_tried_elsewhere():
    world = World(TWO_GROUPS)
    senders = put_all(world)
    stores = list(rounds(world).values())
    confirm(world, stores[0], {FIRST_FID: BadChecksum("not what you said")})
    assert outcomes(world, senders) == ["BAD_CHECKSUM", None, None]
    assert world.sends(StoreFragment) == []
    for send in stores[1:]:
        confirm(world, send, {FIRST_FID: BadChecksum("not what you said")})
    assert outcomes(world, senders) == ["BAD_CHECKSUM", FIRST_FID + 1, FIRST_FID + 2]
    world.assert_idle()


def test_a_member_that_refuses_the_message_fails_all_of_them_and_each_goes_to_another_group():
    world = World(TWO_GROUPS)
    put_all(world)
    stores = list(rounds(world).values())
    world.fail(stores[0], StaleEpoch("8"))
    again = world.sends(StoreFragment)
    assert len(again) == 9
    assert {send.message.group for send in again} == {3 - stores[0].message.group}
    assert {send.message.fid for send in world.sends(AbortFragment)} == {FIRST_FID + n for n in range(3)}
    # What the others say now changes nothing.
    confirm(world, stores[1])
    confirm(world, stores[2])
    assert world.replies == []


@pytest.mark.parametrize("field", ["fid", "length", "checksum", "group"])
def test_one_that_is_confirmed_otherwise_than_it_was_sent_is_not_stored(field):
    world = World()
    senders = put_all(world)
    stores = list(rounds(world).values())
    fragments = list(stores[0].message.fragments)
    values = {name: getattr(fragments[2], name) for name in FragmentRef.__struct_fields__}
    fragments[2] = FragmentRef(**{**values, field: values[field] + 1})
    world.answer(stores[0], FragmentsStored(1, 7, fragments, []))
    for send in stores[1:]:
        confirm(world, send)
    assert outcomes(world, senders) == [FIRST_FID, FIRST_FID + 1, "NO_WRITABLE_GROUP"]


@pytest.mark.parametrize(("group", "epoch"), [(2, 7), (1, 8)])
def test_a_confirmation_of_another_group_or_epoch_is_none(group, epoch):
    world = World()
    senders = put_all(world)
    send = next(iter(rounds(world).values()))
    world.answer(send, FragmentsStored(group, epoch, send.message.fragments, []))
    assert outcomes(world, senders) == ["NO_WRITABLE_GROUP"] * 3
    assert {send.message.fid for send in world.sends(AbortFragment)} == {FIRST_FID + n for n in range(3)}


def test_a_silent_member_fails_them_after_the_store_timeout():
    world = World()
    senders = put_all(world)
    stores = rounds(world)
    confirm(world, stores["a"])
    confirm(world, stores["b"])
    world.wait(3.01)
    assert outcomes(world, senders) == ["NO_WRITABLE_GROUP"] * 3
    confirm(world, stores["c"])
    assert len(world.replies) == 3


def test_one_that_hardly_waits_does_not_hurry_the_others():
    world = World()
    with world.one_turn():
        hasty = world.ask(PutFragment(5, checksum(b"1")), b"1")
        patient = world.ask(PutFragment(2000, checksum(b"2")), b"2")
    assert {send.message.deadline_ms for send in rounds(world).values()} == {2000}
    world.wait(0.5)
    for send in rounds(world).values():
        confirm(world, send)
    assert outcomes(world, [hasty, patient]) == [FIRST_FID, FIRST_FID + 1]


def test_one_that_does_not_wait_at_all_is_answered_without_being_stored():
    world = World()
    with world.one_turn():
        senders = [world.ask(PutFragment(ms, checksum(b"1")), b"1") for ms in (0, 2000, 2000)]
    assert outcomes(world, senders) == ["DEADLINE", None, None]
    assert {len(send.message.fragments) for send in rounds(world).values()} == {2}


def test_a_server_of_an_earlier_version_gets_them_one_by_one():
    world = World()
    senders = put_all(world)
    stores = rounds(world)
    world.fail(stores["b"], UnknownKind("unknown kind 22"))
    singles = world.sends(StoreFragment)
    assert len(singles) == 9
    for send in singles:
        world.confirm(send)
    assert outcomes(world, senders) == [FIRST_FID + 3, FIRST_FID + 4, FIRST_FID + 5]
    put_all(world)
    assert len(world.sends(StoreFragment)) == 9
    world.wait(ALONE_S + 1)
    world.sent.clear()
    put_all(world)
    assert len(world.sends(StoreFragments)) == 3  # it may be of a newer one by now


def test_a_round_is_bounded_in_number_and_bytes():
    world = World()
    put_all(world, [b"x"] * (ROUND_FRAGMENTS_MAX + 2))
    assert sorted(len(send.message.fragments) for send in world.sends(StoreFragments)) == [
        *[2] * 3,
        *[ROUND_FRAGMENTS_MAX] * 3,
    ]
    world = World()
    put_all(world, [b"x" * SMALL_BYTES] * (ROUND_BYTES_MAX // SMALL_BYTES + 2))
    assert max(len(send.payload) for send in world.sends(StoreFragments)) == ROUND_BYTES_MAX


def test_those_without_a_fid_wait_for_the_next_range():
    world = World(fids=2, settings=Settings(fid_range_count=2))
    senders = put_all(world)
    assert {len(send.message.fragments) for send in rounds(world).values()} == {2}
    world.answer(world.only(LeaseFids), FidLease(5000, 100, 60_000))
    for send in rounds(world).values():
        confirm(world, send)
    for send in world.sends(StoreFragment):
        world.confirm(send)
    assert outcomes(world, senders) == [FIRST_FID, FIRST_FID + 1, 5000]


def test_without_a_writable_group_each_is_told_so_and_the_view_is_refreshed_soon():
    world = World(topology(ONE_GROUP, writable=frozenset()))
    senders = put_all(world)
    assert outcomes(world, senders) == ["NO_WRITABLE_GROUP"] * 3
    world.assert_idle()
