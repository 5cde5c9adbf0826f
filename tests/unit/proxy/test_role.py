"""Names, whole objects, and what the proxy asks its master for."""

import pytest

from fabric.errors import (
    BadRequest,
    DeadlineExceeded,
    DiskFailed,
    FidExpired,
    Internal,
    NoFragment,
    NotFound,
    Precondition,
    Unavailable,
)
from fabric.node.effects import Sender
from fabric.settings import Settings
from fabric.wire.messages import (
    AbortFragment,
    CatalogChanged,
    Commit,
    Committed,
    DeleteOperation,
    FidLease,
    Found,
    FragmentData,
    FragmentRef,
    GetObject,
    GetTopology,
    LeaseFids,
    MoveOperation,
    ObjectInfo,
    Open,
    Opened,
    Ping,
    Pong,
    PutFragment,
    PutObject,
    PutOperation,
    ReadFragment,
    Stat,
    Stored,
    StoreFragment,
)
from tests.unit.proxy.world import (
    FIRST_FID,
    MASTER,
    PUBLISHED,
    TWO_GROUPS,
    World,
    checksum,
    endpoint,
    opened,
    topology,
)

DATA = b"layer" * 40
FRAGMENT = FragmentRef(1, 42, len(DATA), checksum(DATA))
INFO = ObjectInfo("blob", len(DATA), 1, 1, "", 0, {}, True)
OPERATION_ID = b"0123456789abcdef"


def put_object(world: World, data: bytes = DATA) -> Sender:
    request = PutObject(8000, OPERATION_ID, "blob", checksum(data), "sha256:1", {"a": "b"}, 3, True)
    return world.ask(request, data)


def get_object(world: World, offset: int = 0, length: int = 2**62) -> Sender:
    return world.ask(GetObject(8000, "blob", offset, length))


def serve(world: World, data: bytes = DATA, offset: int = 0) -> None:
    read = world.only(ReadFragment)
    world.answer(read, FragmentData(read.message.fid, offset, checksum(data)), data)


def remember(world: World) -> None:
    """Make the proxy cache ``blob``."""
    get_object(world)
    world.answer(world.only(Open), opened("blob", [FRAGMENT]))
    serve(world)
    world.replies.clear()


def is_cached(world: World) -> bool:
    get_object(world)
    if world.sends(Open) == []:
        serve(world)
        return True
    world.fail(world.only(Open), NotFound("end of this question"))
    return False


# --- putting an object ---


def test_an_object_is_stored_then_committed_then_confirmed():
    world = World()
    sender = put_object(world)
    for send in world.sends(StoreFragment):
        world.confirm(send)
    assert world.replies == []
    commit = world.only(Commit)
    fragment = FragmentRef(1, FIRST_FID, len(DATA), checksum(DATA))
    assert commit.endpoint == MASTER
    assert commit.message == Commit(
        8000, OPERATION_ID, [PutOperation("blob", [fragment], "sha256:1", {"a": "b"}, 3, True)]
    )
    world.answer(commit, Committed([INFO]))
    assert world.reply_to(sender).message == Committed([INFO])
    assert world.sends(AbortFragment) == []
    world.assert_idle()


def test_an_empty_object_needs_no_replica():
    world = World()
    sender = put_object(world, b"")
    assert world.sends(StoreFragment) == []
    assert world.only(Commit).message.operations[0].fragments == []
    world.answer(world.only(Commit), Committed([INFO]))
    assert world.reply_to(sender).message == Committed([INFO])
    world.assert_idle()


@pytest.mark.parametrize("error", [Precondition("generation 4"), NotFound(""), BadRequest("path")])
def test_a_commit_that_was_refused_for_good_aborts_the_fragment(error):
    world = World()
    sender = put_object(world)
    for send in world.sends(StoreFragment):
        world.confirm(send)
    world.fail(world.only(Commit), error)
    assert world.reply_to(sender).message.code == error.code
    aborts = world.sends(AbortFragment)
    assert {send.endpoint for send in aborts} == {endpoint("a"), endpoint("b"), endpoint("c")}
    assert {send.message.fid for send in aborts} == {FIRST_FID}
    world.assert_idle()


@pytest.mark.parametrize("error", [Unavailable("gone"), DeadlineExceeded("late"), Internal("a bug")])
def test_a_commit_of_unknown_outcome_aborts_nothing(error):
    """It may have been done: the fragment may be part of a visible object."""
    world = World()
    sender = put_object(world)
    for send in world.sends(StoreFragment):
        world.confirm(send)
    world.fail(world.only(Commit), error)
    assert world.reply_to(sender).message.code == error.code
    assert world.sends(AbortFragment) == []
    world.assert_idle()


def test_a_commit_without_an_answer_ends_with_the_deadline_and_aborts_nothing():
    world = World()
    sender = put_object(world)
    for send in world.sends(StoreFragment):
        world.confirm(send)
    world.wait(8.01)
    assert world.reply_to(sender).message.code == "DEADLINE"
    assert world.sends(AbortFragment) == []
    world.assert_idle()


def test_an_object_that_could_not_be_stored_is_not_committed():
    world = World()
    sender = put_object(world)
    world.fail(world.store_to("a"), DiskFailed("EIO"))
    assert world.reply_to(sender).message.code == "NO_WRITABLE_GROUP"
    assert world.sends(Commit) == []
    world.assert_idle()


def test_when_a_fid_had_expired_the_caller_may_try_again_and_the_stock_is_thrown_away():
    world = World()
    sender = put_object(world)
    for send in world.sends(StoreFragment):
        world.confirm(send)
    world.fail(world.only(Commit), FidExpired("range 1"))
    assert world.reply_to(sender).message.retryable
    assert len(world.sends(AbortFragment)) == 3
    put_object(world)
    assert world.sends(StoreFragment) == []
    world.answer(world.only(LeaseFids), FidLease(5000, 10, 600_000))
    assert {send.message.fid for send in world.sends(StoreFragment)} == {5000}


# --- getting an object ---


def test_an_object_is_opened_at_the_master_and_read_from_a_replica():
    world = World()
    sender = get_object(world)
    assert world.only(Open).message == Open(8000, "blob", 0)
    answer = opened("blob", [FRAGMENT])
    world.answer(world.only(Open), answer)
    serve(world)
    reply = world.reply_to(sender)
    assert (reply.message.info, reply.message.fragments) == (answer.info, [FRAGMENT])
    assert (reply.message.offset, reply.message.checksum) == (0, checksum(DATA))
    assert reply.payload is DATA
    world.assert_idle()


def test_the_answer_has_what_lies_in_the_first_fragment_from_the_offset_on():
    world = World()
    sender = get_object(world, offset=len(DATA) + 10, length=50)
    second = FragmentRef(1, 43, 30, 5)
    world.answer(world.only(Open), opened("blob", [FRAGMENT, second]))
    read = world.only(ReadFragment).message
    assert (read.fid, read.offset, read.length) == (43, 10, 20)
    serve(world, b"y" * 20, 10)
    assert world.reply_to(sender).payload == b"y" * 20


def test_a_missing_object_is_not_found():
    world = World()
    sender = get_object(world)
    world.fail(world.only(Open), NotFound("blob"))
    assert world.reply_to(sender).message.code == "NOT_FOUND"
    world.assert_idle()


def test_an_offset_beyond_the_object_is_a_bad_range_and_at_its_end_there_are_no_bytes():
    world = World()
    beyond = get_object(world, offset=len(DATA) + 1)
    world.answer(world.only(Open), opened("blob", [FRAGMENT]))
    assert world.reply_to(beyond).message.code == "BAD_RANGE"
    at_end = get_object(world, offset=len(DATA))
    reply = world.reply_to(at_end)
    assert (reply.payload, reply.message.checksum) == (b"", checksum(b""))
    world.assert_idle()


def test_an_immutable_object_is_opened_once():
    world = World()
    remember(world)
    sender = get_object(world)
    assert world.sends(Open) == []
    serve(world)
    assert world.reply_to(sender).payload == DATA


def test_a_mutable_object_is_opened_each_time():
    world = World()
    get_object(world)
    world.answer(world.only(Open), opened("blob", [FRAGMENT], immutable=False))
    serve(world)
    get_object(world)
    assert len(world.sends(Open)) == 1


def test_a_cached_object_whose_fragments_are_gone_is_opened_again():
    world = World()
    remember(world)
    sender = get_object(world)
    for _ in range(3):
        world.fail(world.only(ReadFragment), NoFragment("deleted"))
    assert world.replies == []
    world.fail(world.only(Open), NotFound("blob"))
    assert world.reply_to(sender).message.code == "NOT_FOUND"
    world.assert_idle()


def test_a_cached_object_that_was_written_again_is_read_at_its_new_place():
    world = World()
    remember(world)
    sender = get_object(world)
    for _ in range(3):
        world.fail(world.only(ReadFragment), NoFragment("deleted"))
    moved = FragmentRef(1, 99, len(DATA), checksum(DATA))
    world.answer(world.only(Open), opened("blob", [moved], generation=2))
    assert world.only(ReadFragment).message.fid == 99
    serve(world)
    assert world.reply_to(sender).message.info.generation == 2
    world.assert_idle()


def test_an_object_that_is_committed_but_has_no_good_copy_is_not_called_absent():
    world = World()
    sender = get_object(world)
    world.answer(world.only(Open), opened("blob", [FRAGMENT]))
    for _ in range(3):
        world.fail(world.only(ReadFragment), NoFragment("lost"))
    assert world.reply_to(sender).message.code == "NO_GOOD_COPY"
    assert world.sends(Open) == []
    world.assert_idle()


def test_beyond_the_limit_in_bytes_the_answer_is_busy():
    world = World(settings=Settings(proxy_inflight_bytes_max=4200))
    opening, refused = get_object(world), get_object(world)
    assert world.reply_to(refused).message.code == "BUSY"
    big = FragmentRef(1, 42, 5000, 0)
    world.answer(world.only(Open), opened("blob", [big]))
    assert world.reply_to(opening).message.code == "BUSY"
    world.assert_idle()


# --- what makes the cache forget ---


def test_a_published_deletion_is_forgotten():
    world = World()
    remember(world)
    world.publish(CatalogChanged(1, 2, ["other"]))
    assert is_cached(world)
    world.publish(CatalogChanged(1, 3, ["blob"]))
    assert not is_cached(world)


def test_a_gap_in_the_published_numbers_makes_everything_forgotten_and_a_snapshot_asked_for():
    world = World()
    remember(world)
    world.publish(CatalogChanged(1, 3, []))
    assert len(world.sends(GetTopology)) == 1
    assert not is_cached(world)


def test_a_topology_after_a_gap_is_adopted_and_everything_is_forgotten():
    world = World()
    remember(world)
    world.publish(topology({5: ["x"]}, sequence=4))
    assert not is_cached(world)
    world.ask(PutFragment(8000, checksum(b"1")), b"1")
    assert world.only(StoreFragment).endpoint == endpoint("x")


def test_an_old_or_doubled_publication_changes_nothing():
    world = World(topology(TWO_GROUPS, sequence=9))
    remember(world)
    world.publish(topology({5: ["x"]}, sequence=8))
    world.publish(CatalogChanged(1, 9, ["blob"]))
    assert is_cached(world)
    assert world.sends(GetTopology) == []


def test_a_snapshot_that_shows_a_missed_number_makes_everything_forgotten():
    world = World()
    remember(world)
    world.wait(1.01)
    world.answer(world.only(GetTopology), topology(TWO_GROUPS, sequence=2))
    assert not is_cached(world)


def test_a_snapshot_that_shows_nothing_new_keeps_the_cache():
    world = World()
    remember(world)
    world.wait(1.01)
    world.answer(world.only(GetTopology), topology(TWO_GROUPS, sequence=1))
    assert is_cached(world)


@pytest.mark.parametrize(
    "operation",
    [
        DeleteOperation("blob"),
        MoveOperation("blob", "x"),
        MoveOperation("x", "blob"),
        PutOperation("blob", []),
    ],
)
def test_a_commit_through_this_proxy_is_forgotten_at_once_whatever_became_of_it(operation):
    for answer in (Committed([None]), None):
        world = World()
        remember(world)
        world.ask(Commit(8000, OPERATION_ID, [operation]))
        if answer is None:
            world.wait(8.01)
        else:
            world.answer(world.only(Commit), answer)
        assert not is_cached(world)


def test_a_deletion_that_overtakes_the_answer_to_an_open_wins():
    world = World()
    get_object(world)
    world.publish(CatalogChanged(1, 2, ["blob"]))
    world.answer(world.only(Open), opened("blob", [FRAGMENT]))
    serve(world)
    assert not is_cached(world)


# --- names ---


def test_a_question_about_names_goes_to_the_master_and_its_answer_back():
    world = World()
    sender = world.ask(Stat(5000, "blob"))
    asked = world.only(Stat)
    assert (asked.endpoint, asked.message) == (MASTER, Stat(5000, "blob"))
    world.answer(asked, Found(INFO))
    assert world.reply_to(sender).message == Found(INFO)
    world.assert_idle()


def test_a_refusal_of_the_master_is_passed_on_as_it_is():
    world = World()
    sender = world.ask(Commit(5000, OPERATION_ID, [DeleteOperation("x")]))
    world.fail(world.only(Commit), Precondition("x: generation 2, not 1"))
    failure = world.reply_to(sender).message
    assert (failure.code, failure.message) == ("PRECONDITION", "x: generation 2, not 1")
    assert world.sends(AbortFragment) == []


def test_a_silent_master_is_a_deadline_of_at_most_a_minute():
    world = World()
    sender = world.ask(Stat(2**64 - 1, "blob"))
    world.wait(60.1)
    assert world.reply_to(sender).message.code == "DEADLINE"
    world.assert_idle()


def test_questions_about_names_count_for_bytes_too():
    world = World(settings=Settings(proxy_inflight_bytes_max=10_000))
    first, _, third = (world.ask(Stat(5000, "blob")) for _ in range(3))
    assert world.reply_to(third).message.code == "BUSY"
    world.answer(world.sends(Stat)[0], Found(INFO))
    assert world.reply_to(first).message == Found(INFO)
    world.ask(Stat(5000, "blob"))
    assert len(world.sends(Stat)) == 2
    big = Commit(5000, OPERATION_ID, [PutOperation("x", [FRAGMENT] * 128)])
    assert world.reply_to(world.ask(big)).message.code == "BUSY"


# --- everything else that arrives ---


def test_anyone_may_ask_who_is_there():
    world = World()
    assert isinstance(world.reply_to(world.ask(Ping(1))).message, Pong)


def test_a_request_that_is_not_for_a_proxy_is_refused():
    world = World()
    sender = world.ask(LeaseFids(1, "x", 1))
    assert world.reply_to(sender).message.code == "BAD_REQUEST"


@pytest.mark.parametrize(
    "sender", [PUBLISHED, Sender(MASTER, 5), Sender(endpoint("a"), 1)], ids=["published", "master", "chunk"]
)
def test_a_request_that_comes_from_where_answers_belong_is_ignored(sender):
    world = World()
    for request in (Ping(1), Stat(5, "x"), PutFragment(5, 1)):
        assert world.role.receive(request, sender, world.now, b"x") == []
    world.assert_idle()


def test_an_answer_sent_by_a_driver_is_ignored():
    world = World()
    world.ask(PutFragment(8000, checksum(b"1")), b"1")
    store = world.store_to("a")
    forged = Stored(FRAGMENT, 1)
    before = len(world.sent)
    world.do(world.role.receive(forged, Sender(b"driver", store.request_id), world.now))
    assert (len(world.sent), world.replies) == (before, [])


def test_a_reply_under_the_right_id_from_another_peer_is_ignored():
    world = World()
    world.ask(PutFragment(8000, checksum(b"1")), b"1")
    store = world.store_to("a")
    world.do(world.role.receive(Opened(INFO, 0, [], False), Sender(MASTER, store.request_id), world.now))
    assert world.replies == []
    assert len(world.sends(AbortFragment)) == 0


def test_the_master_is_asked_again_soon_after_it_did_not_answer():
    world = World(knows_cluster=False, fids=None)
    world.fail(world.only(GetTopology), Unavailable("gone"))
    world.fail(world.only(LeaseFids), Unavailable("gone"))
    world.wait(0.09)
    assert world.sent == []
    world.wait(0.02)
    assert (len(world.sends(GetTopology)), len(world.sends(LeaseFids))) == (1, 1)


def test_an_object_is_answered_with_the_place_of_its_bytes():
    world = World()
    remember(world)
    place = ("/data/00000001.data", 4128)
    near = GetObject(8000, "blob", 7, 100, "here")
    sender = world.ask(near)
    read = world.only(ReadFragment)
    world.answer(read, FragmentData(42, 7, FRAGMENT.checksum, *place), b"")
    for again in (sender, world.ask(near)):
        reply = world.reply_to(again)
        assert (reply.message.file, reply.message.position) == place
        assert (reply.message.offset, reply.message.checksum) == (7, FRAGMENT.checksum)
        assert reply.payload == b""
    world.assert_idle()
