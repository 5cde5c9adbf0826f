import pytest

from fabric.errors import (
    BadChecksum,
    Busy,
    Conflict,
    DiskFailed,
    MemoryGone,
    NotWritable,
    StaleEpoch,
    Unavailable,
)
from fabric.settings import Settings
from fabric.wire.messages import (
    AbortFragment,
    Failed,
    FidLease,
    FragmentAborted,
    FragmentRef,
    FragmentStored,
    GetTopology,
    LeaseFids,
    PutFragment,
    ReportFailure,
    Stored,
    StoreFragment,
)
from tests.unit.proxy.world import FIRST_FID, MASTER, TWO_GROUPS, World, checksum, endpoint, topology

DATA = b"x" * 1000


def put(world: World, data: bytes = DATA, deadline_ms: int = 8000):
    return world.ask(PutFragment(deadline_ms, checksum(data)), data)


def code_of(world: World, sender) -> str:
    message = world.reply_to(sender).message
    assert isinstance(message, Failed)
    return message.code


def test_a_fragment_goes_to_every_member_with_the_same_fid_epoch_and_bytes():
    world = World()
    put(world)
    stores = world.sends(StoreFragment)
    assert {send.endpoint for send in stores} == {endpoint("a"), endpoint("b"), endpoint("c")}
    assert {send.message for send in stores} == {
        StoreFragment(3000, group=1, epoch=7, fid=FIRST_FID, checksum=checksum(DATA))
    }
    assert all(send.payload is DATA for send in stores)


def test_stored_is_answered_when_the_last_member_has_confirmed_and_not_before():
    world = World()
    sender = put(world)
    for server in ("a", "b"):
        world.confirm(world.store_to(server))
        assert world.replies == []
    world.confirm(world.store_to("c"))
    expected = Stored(FragmentRef(1, FIRST_FID, len(DATA), checksum(DATA)), epoch=7)
    assert world.reply_to(sender).message == expected
    assert world.sends(AbortFragment) == []
    world.assert_idle()


def test_a_confirmation_that_comes_twice_counts_once():
    world = World()
    put(world)
    first = world.store_to("a")
    for _ in range(3):
        world.confirm(first)
    assert world.replies == []


def test_each_fragment_has_a_fid_of_its_own():
    world = World()
    put(world)
    put(world)
    assert {send.message.fid for send in world.sends(StoreFragment)} == {FIRST_FID, FIRST_FID + 1}


def test_after_a_failure_every_member_aborts_the_master_hears_and_another_group_stores_it():
    world = World(TWO_GROUPS)
    sender = put(world)
    first = world.sends(StoreFragment)
    tried = first[0].message.group
    world.confirm(first[0])
    world.fail(first[1], DiskFailed("EIO"))

    aborts = world.sends(AbortFragment)
    assert {send.endpoint for send in aborts} == {send.endpoint for send in first}
    assert {send.message.fid for send in aborts} == {FIRST_FID}
    report = world.only(ReportFailure)
    assert report.endpoint == MASTER
    assert (report.message.group, report.message.fid, report.message.code) == (
        tried,
        FIRST_FID,
        "DISK_FAILED",
    )
    assert endpoint(report.message.server) == first[1].endpoint

    second = [send for send in world.sends(StoreFragment) if send.message.fid != FIRST_FID]
    assert {send.message.group for send in second} == {1, 2} - {tried}
    for send in second:
        world.confirm(send)
    stored = world.reply_to(sender).message
    assert isinstance(stored, Stored)
    assert stored.fragment.fid == FIRST_FID + 1
    assert len(world.sends(AbortFragment)) == 3
    world.assert_idle()


def test_answers_to_an_attempt_that_was_given_up_change_nothing():
    world = World(TWO_GROUPS)
    put(world)
    first = world.sends(StoreFragment)
    world.fail(first[0], DiskFailed("EIO"))
    before = list(world.sent)
    world.confirm(first[1])
    world.fail(first[2], DiskFailed("EIO"))
    assert world.replies == []
    assert [send for send in world.sent if send not in before] == []


def test_without_another_group_the_answer_names_what_is_wrong():
    view = topology(TWO_GROUPS, writable=frozenset({1}), states={"e": "OFFLINE"})
    world = World(view)
    sender = put(world)
    world.fail(world.store_to("b"), DiskFailed("EIO on /disk"))
    failure = world.reply_to(sender).message
    assert (failure.code, failure.retryable) == ("NO_WRITABLE_GROUP", True)
    assert "e is OFFLINE" in failure.message
    assert "EIO on /disk" in failure.message
    world.assert_idle()


def test_without_any_writable_group_the_sick_node_is_named_and_no_fid_is_used():
    world = World(topology({1: ["a", "b", "c"]}, writable=frozenset(), states={"b": "SYNCING"}))
    failure = world.reply_to(put(world)).message
    assert failure.code == "NO_WRITABLE_GROUP"
    assert "b is SYNCING" in failure.message
    assert world.sends(StoreFragment) == []
    world.assert_idle()


def test_a_group_whose_member_has_no_known_address_is_passed_over():
    view = topology(TWO_GROUPS)
    view.nodes[:] = [node for node in view.nodes if node.server != "a"]
    world = World(view)
    for _ in range(10):
        put(world)
    assert {send.message.group for send in world.sends(StoreFragment)} == {2}


@pytest.mark.parametrize(
    "wrong",
    [
        {"group": 2},
        {"epoch": 8},
        {"fid": FIRST_FID + 1},
        {"length": len(DATA) - 1},
        {"checksum": 1},
    ],
)
def test_a_confirmation_of_anything_else_is_no_confirmation(wrong):
    world = World()
    sender = put(world)
    true = {
        "group": 1,
        "epoch": 7,
        "fid": FIRST_FID,
        "length": len(DATA),
        "checksum": checksum(DATA),
    }
    world.answer(world.store_to("a"), FragmentStored(**(true | wrong)))
    assert code_of(world, sender) == "NO_WRITABLE_GROUP"
    assert len(world.sends(AbortFragment)) == 3


def test_an_answer_of_another_kind_is_no_confirmation():
    world = World()
    sender = put(world)
    world.answer(world.store_to("a"), FragmentAborted(FIRST_FID))
    assert code_of(world, sender) == "NO_WRITABLE_GROUP"


def test_bytes_that_are_not_those_of_the_checksum_are_refused_at_once():
    world = World(TWO_GROUPS)
    sender = put(world)
    world.fail(world.sends(StoreFragment)[0], BadChecksum("not what you said"))
    assert code_of(world, sender) == "BAD_CHECKSUM"
    assert {send.message.fid for send in world.sends(StoreFragment)} == {FIRST_FID}
    assert len(world.sends(AbortFragment)) == 3
    assert world.sends(ReportFailure) == []
    world.assert_idle()


def test_memory_that_a_replica_does_not_find_is_no_fault_of_its():
    """The driver must send the bytes: another group would find them no better."""
    world = World(TWO_GROUPS)
    sender = put(world)
    world.fail(world.sends(StoreFragment)[0], MemoryGone("nothing there"))
    assert code_of(world, sender) == "MEMORY_GONE"
    assert {send.message.fid for send in world.sends(StoreFragment)} == {FIRST_FID}
    assert len(world.sends(AbortFragment)) == 3
    assert world.sends(ReportFailure) == []
    world.assert_idle()


def test_a_conflict_or_a_stale_epoch_says_nothing_bad_of_the_replica():
    for error in (Conflict("taken"), StaleEpoch("8 is newer"), NotWritable("syncing"), Busy("full")):
        world = World()
        put(world)
        world.fail(world.store_to("a"), error)
        assert world.sends(ReportFailure) == []
        assert len(world.sends(AbortFragment)) == 3


def test_when_all_groups_were_busy_the_answer_is_busy():
    world = World()
    sender = put(world)
    world.fail(world.store_to("a"), Busy("full"))
    assert code_of(world, sender) == "BUSY"
    world.assert_idle()


def test_aborts_go_to_the_members_that_were_asked_though_the_view_has_changed():
    world = World()
    put(world)
    world.publish(topology({1: ["a", "b", "z"]}, sequence=2))
    world.fail(world.store_to("a"), DiskFailed("EIO"))
    assert {send.endpoint for send in world.sends(AbortFragment)} == {
        endpoint("a"),
        endpoint("b"),
        endpoint("c"),
    }


def test_a_stale_view_is_refreshed_soon():
    world = World()
    put(world)
    assert world.sends(GetTopology) == []
    world.fail(world.store_to("a"), StaleEpoch("8 is newer"))
    world.wait(0.11)
    assert len(world.sends(GetTopology)) == 1


def test_so_is_one_that_knows_no_writable_group_though_no_reply_comes():
    world = World(topology({1: ["a"]}, writable=frozenset()))
    put(world)
    world.wait(0.11)
    assert len(world.sends(GetTopology)) == 1


def test_a_silent_member_counts_as_failed_after_the_store_timeout():
    world = World(TWO_GROUPS)
    sender = put(world)
    first = world.sends(StoreFragment)
    world.confirm(first[0])
    world.confirm(first[1])
    world.wait(3.01)
    second = [send for send in world.sends(StoreFragment) if send.message.fid != FIRST_FID]
    assert len(second) == 3
    for send in second:
        world.confirm(send)
    assert isinstance(world.reply_to(sender).message, Stored)
    # What the slow one says in the end comes too late.
    world.confirm(first[2])
    assert len(world.replies) == 1


def test_nothing_is_tried_after_the_deadline():
    world = World(TWO_GROUPS)
    sender = put(world, deadline_ms=1000)
    assert {send.message.deadline_ms for send in world.sends(StoreFragment)} == {1000}
    world.wait(1.01)
    assert code_of(world, sender) == "DEADLINE"
    assert {send.message.fid for send in world.sends(StoreFragment)} == {FIRST_FID}
    assert len(world.sends(AbortFragment)) == 3
    world.assert_idle()


def test_no_deadline_is_longer_than_a_minute():
    world = World(topology({1: ["a"]}), settings=Settings(store_timeout_s=10_000.0))
    sender = put(world, deadline_ms=2**63)
    assert world.only(StoreFragment).message.deadline_ms == 60_000
    world.wait(60.1)
    assert code_of(world, sender) == "DEADLINE"


def test_at_most_four_groups_are_tried():
    world = World({number: [f"s{number}"] for number in range(1, 9)})
    sender = put(world)
    for _ in range(4):
        world.fail(world.sends(StoreFragment)[0], DiskFailed("EIO"))
    assert world.sends(StoreFragment) == []
    assert code_of(world, sender) == "NO_WRITABLE_GROUP"
    world.assert_idle()


def test_uploads_wait_for_fids_and_start_when_they_come():
    world = World(fids=None)
    first, second = put(world), put(world)
    assert world.sends(StoreFragment) == []
    world.answer(world.only(LeaseFids), FidLease(500, 10, 600_000))
    assert {send.message.fid for send in world.sends(StoreFragment)} == {500, 501}
    for send in world.sends(StoreFragment):
        world.confirm(send)
    assert {world.reply_to(one).message.fragment.fid for one in (first, second)} == {500, 501}
    world.assert_idle()


def test_a_lease_with_fewer_fids_than_uploads_is_followed_by_another():
    world = World(fids=None)
    put(world)
    put(world)
    world.answer(world.only(LeaseFids), FidLease(500, 1, 600_000))
    world.answer(world.only(LeaseFids), FidLease(900, 1, 600_000))
    assert {send.message.fid for send in world.sends(StoreFragment)} == {500, 900}


def test_uploads_that_wait_for_fids_end_when_the_master_cannot_be_reached():
    world = World(fids=None)
    sender = put(world)
    world.fail(world.only(LeaseFids), Unavailable("gone"))
    assert code_of(world, sender) == "UNAVAILABLE"
    world.assert_idle()


def test_uploads_that_wait_for_fids_end_when_the_master_is_silent():
    world = World(fids=None)
    sender = put(world)
    world.wait(2.01)
    assert code_of(world, sender) == "UNAVAILABLE"
    world.assert_idle()


def test_fids_are_asked_for_in_good_time():
    world = World(fids=499)
    world.wait(1.01)
    assert len(world.sends(LeaseFids)) == 1
    world = World(fids=1000)
    world.wait(1.01)
    assert world.sends(LeaseFids) == []


def test_an_empty_fragment_is_refused():
    world = World()
    assert code_of(world, put(world, b"")) == "BAD_REQUEST"
    world.assert_idle()


def test_beyond_the_limit_in_bytes_the_answer_is_busy_until_bytes_come_back():
    world = World(settings=Settings(proxy_inflight_bytes_max=2500))
    put(world)
    put(world)
    third = put(world)
    assert code_of(world, third) == "BUSY"
    for send in world.sends(StoreFragment):
        if send.message.fid == FIRST_FID:
            world.confirm(send)
    put(world)
    assert len(world.sends(StoreFragment)) == 6
