import pytest

from fabric.errors import BadChecksum, BadRange, Busy, DiskFailed, NoFragment, Unavailable
from fabric.node.effects import Sender
from fabric.places import Places
from fabric.settings import Settings
from fabric.warmth import WARM_BYTES_MIN, warm_replica
from fabric.wire.messages import (
    Failed,
    FragmentData,
    FragmentRef,
    GetFragment,
    GetTopology,
    Noted,
    ReadFragment,
    ReportFailure,
)
from tests.unit.proxy.world import World, checksum, endpoint, topology

DATA = bytes(range(200))
FRAGMENT = FragmentRef(1, 42, len(DATA), checksum(DATA))
REPLICAS = {"a", "b", "c"}


def get(world: World, offset: int = 0, length: int = len(DATA), deadline_ms: int = 8000) -> Sender:
    return world.ask(GetFragment(deadline_ms, FRAGMENT, offset, length))


def serve(world: World, data: bytes = DATA, offset: int = 0, fid: int = 42) -> str:
    """The replica that was asked answers; returns its name."""
    read = world.only(ReadFragment)
    world.answer(read, FragmentData(fid, offset, checksum(data)), data)
    return server_of(read.endpoint)


def server_of(address: str) -> str:
    return next(server for server in REPLICAS if endpoint(server) == address)


def test_one_replica_is_asked_and_its_bytes_are_passed_on_as_they_are():
    world = World()
    sender = get(world)
    assert world.only(ReadFragment).message == ReadFragment(2000, 1, 42, 0, 200)
    serve(world)
    reply = world.reply_to(sender)
    assert reply.message == FragmentData(42, 0, checksum(DATA))
    assert reply.payload is DATA
    world.assert_idle()


def test_every_replica_is_tried_before_giving_up_and_all_are_named():
    world = World()
    sender = get(world)
    asked = []
    for error in (DiskFailed("EIO"), NoFragment("not here"), Unavailable("no route")):
        read = world.only(ReadFragment)
        asked.append(server_of(read.endpoint))
        world.fail(read, error)
    assert set(asked) == REPLICAS
    failure = world.reply_to(sender).message
    assert (failure.code, failure.retryable) == ("NO_GOOD_COPY", True)
    for server, code in zip(asked, ("DISK_FAILED", "NO_FRAGMENT", "UNAVAILABLE"), strict=True):
        assert f"{server} (RW): {code}" in failure.message
    world.assert_idle()


def test_the_healthy_replicas_are_asked_first():
    world = World(topology({1: ["a", "b", "c"]}, states={"a": "OFFLINE", "b": "SYNCING"}))
    get(world)
    order = []
    for _ in range(3):
        read = world.only(ReadFragment)
        order.append(server_of(read.endpoint))
        world.fail(read, NoFragment("not here"))
    assert order == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("data", "offset", "fid"),
    [
        (DATA[:-1] + b"!", 0, 42),
        (DATA[:-1], 0, 42),
        (DATA, 1, 42),
        (DATA, 0, 43),
    ],
    ids=["other bytes", "too short", "other offset", "other fragment"],
)
def test_what_is_not_the_committed_fragment_is_not_passed_on(data, offset, fid):
    world = World()
    sender = get(world)
    first = serve(world, data, offset, fid)
    assert world.replies == []
    report = world.only(ReportFailure).message
    assert (report.server, report.fid, report.code) == (first, 42, "BAD_CHECKSUM")
    second = serve(world)
    assert second != first
    assert world.reply_to(sender).payload == DATA
    world.assert_idle()


def test_an_answer_without_a_payload_is_not_the_fragment():
    world = World()
    get(world)
    world.answer(world.only(ReadFragment), FragmentData(42, 0, checksum(DATA)))
    assert world.replies == []
    assert len(world.sends(ReadFragment)) == 1


def test_a_replica_that_found_its_copy_damaged_is_reported_and_passed_over():
    world = World()
    sender = get(world)
    world.fail(world.only(ReadFragment), BadChecksum("bit rot"))
    assert world.only(ReportFailure).message.code == "BAD_CHECKSUM"
    world.answer(world.only(ReportFailure), Noted())
    serve(world)
    assert world.reply_to(sender).payload == DATA
    world.assert_idle()


def test_a_range_reads_only_what_it_needs():
    world = World()
    sender = get(world, 50, 20)
    read = world.only(ReadFragment).message
    assert (read.offset, read.length) == (50, 20)
    serve(world, DATA[50:70], 50)
    assert world.reply_to(sender).message == FragmentData(42, 50, checksum(DATA[50:70]))


def test_a_range_of_another_length_is_not_passed_on():
    world = World()
    get(world, 50, 20)
    serve(world, DATA[50:69], 50)
    assert world.replies == []


def test_a_range_beyond_the_fragment_is_refused():
    world = World()
    assert world.reply_to(get(world, 150, 51)).message.code == BadRange.code
    assert world.sends(ReadFragment) == []
    world.assert_idle()


def test_a_silent_replica_is_passed_over_after_the_read_timeout():
    world = World()
    sender = get(world)
    first = world.only(ReadFragment)
    world.wait(0.31)
    world.wait(2.01)
    third = world.sends(ReadFragment)[-1]
    assert len({first.endpoint, third.endpoint}) == 2
    world.answer(first, FragmentData(42, 0, checksum(DATA)), DATA)
    assert world.replies == []
    world.answer(third, FragmentData(42, 0, checksum(DATA)), DATA)
    assert world.reply_to(sender).payload == DATA
    world.assert_idle()


def test_out_of_time_is_deadline_and_nobody_else_is_asked():
    world = World()
    sender = get(world, deadline_ms=200)
    world.wait(0.21)
    assert len(world.sends(ReadFragment)) == 1
    assert world.reply_to(sender).message.code == "DEADLINE"
    world.assert_idle()


def test_when_a_replica_was_only_busy_the_answer_is_busy():
    world = World()
    sender = get(world)
    for error in (NoFragment("not here"), Busy("queue full"), Unavailable("no route")):
        world.fail(world.only(ReadFragment), error)
    assert world.reply_to(sender).message.code == "BUSY"
    assert all(report.message.code != "BUSY" for report in world.sends(ReportFailure))


def test_a_proxy_that_has_no_view_yet_says_so_and_does_not_call_the_fragment_lost():
    world = World(knows_cluster=False)
    failure = world.reply_to(get(world)).message
    assert (failure.code, failure.retryable) == ("UNAVAILABLE", True)


def test_an_unknown_group_is_no_good_copy_and_the_view_is_refreshed():
    world = World()
    sender = world.ask(GetFragment(8000, FragmentRef(77, 1, 10, 0), 0, 10))
    assert world.reply_to(sender).message.code == "NO_GOOD_COPY"
    world.wait(0.11)
    assert len(world.sends(GetTopology)) == 1


def test_beyond_the_limit_in_bytes_the_answer_is_busy_until_bytes_come_back():
    world = World(settings=Settings(proxy_inflight_bytes_max=300))
    get(world)
    refusal = world.reply_to(get(world)).message
    assert isinstance(refusal, Failed)
    assert refusal.code == "BUSY"
    serve(world)
    get(world)
    assert len(world.sends(ReadFragment)) == 1


# --- near ---

PLACE = ("/data/00000001.data", 4128)


def get_near(world: World, near: str = "here") -> Sender:
    return world.ask(GetFragment(8000, FRAGMENT, 10, 20, near))


def tell_place(world: World) -> None:
    read = world.only(ReadFragment)
    assert read.message.near == "here"
    world.answer(read, FragmentData(42, 10, FRAGMENT.checksum, *PLACE), b"")


def test_a_place_is_passed_on_and_told_again_without_asking():
    world = World()
    sender = get_near(world)
    tell_place(world)
    for again in (sender, get_near(world)):
        reply = world.reply_to(again)
        assert (reply.message, reply.payload) == (FragmentData(42, 10, FRAGMENT.checksum, *PLACE), b"")
    world.assert_idle()


def test_a_place_is_for_those_on_its_machine():
    world = World()
    get_near(world)
    tell_place(world)
    get_near(world, "elsewhere")
    assert world.only(ReadFragment).message.near == "elsewhere"


@pytest.mark.parametrize("missed", [False, True])
def test_who_wants_bytes_gets_them_and_the_place_is_forgotten_if_they_were_not_there(missed: bool):
    world = World()
    get_near(world)
    tell_place(world)
    sender = world.ask(GetFragment(8000, FRAGMENT, 0, len(DATA), "", missed))
    assert world.only(ReadFragment).message.near == ""
    serve(world)
    assert world.reply_to(sender).payload == DATA
    again = get_near(world)
    if missed:
        tell_place(world)
    assert world.reply_to(again).message.file == PLACE[0]
    world.assert_idle()


def test_a_place_of_other_bytes_or_one_that_nobody_asked_for_is_not_passed_on():
    world = World()
    get_near(world)
    world.answer(world.only(ReadFragment), FragmentData(42, 10, 7, *PLACE), b"")
    assert world.replies == []
    world = World()
    get(world)
    world.answer(world.only(ReadFragment), FragmentData(42, 0, FRAGMENT.checksum, *PLACE), b"")
    assert world.replies == []


def test_a_server_elsewhere_gives_bytes():
    world = World()
    sender = get_near(world)
    serve(world, DATA[10:30], 10)
    assert world.reply_to(sender).payload == DATA[10:30]


def test_places_are_not_kept_without_end():
    places = Places(2)
    for fid in (1, 2):
        places.keep(fid, "here", "f", fid)
    assert places.find(1, "here") == ("f", 1)
    places.keep(3, "here", "f", 3)
    assert [places.find(fid, "here") for fid in (1, 2, 3)] == [("f", 1), None, ("f", 3)]
    assert len(places) == 2


# --- which replica has it in memory ---

LARGE = [bytes([number]) * WARM_BYTES_MIN for number in range(6)]


def asked_for_large(settings: Settings, seed: int = 0) -> list[str]:
    """Who is asked for each of six fragments that follow each other."""
    servers = []
    for number, data in enumerate(LARGE):
        world = World(settings=settings, seed=seed)
        fragment = FragmentRef(1, 100 + number, len(data), checksum(data))
        world.ask(GetFragment(8000, fragment, 0, len(data)))
        servers.append(server_of(world.only(ReadFragment).endpoint))
    return servers


def test_the_replica_that_has_a_large_fragment_in_memory_is_asked():
    expected = [warm_replica(100 + number, len(LARGE[0]), sorted(REPLICAS)) for number in range(6)]
    assert sorted(set(expected)) == sorted(REPLICAS)
    for seed in range(5):
        assert asked_for_large(Settings(), seed) == expected


def test_without_that_setting_any_is():
    assert len({tuple(asked_for_large(Settings(one_warm_copy=False), seed)) for seed in range(5)}) > 1
