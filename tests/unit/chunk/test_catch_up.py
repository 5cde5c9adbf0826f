"""Several chunk servers that compare and copy until they hold the same."""

from __future__ import annotations

import random
from itertools import pairwise

import msgspec
import pytest

from fabric.chunk.data_file import file_name
from fabric.chunk.record import SUPERBLOCK_BYTES
from fabric.ids import bucket_of
from fabric.node.effects import Reply, Send
from fabric.settings import MIB, UPKEEP_RECORD_BYTES, Settings
from fabric.wire.messages import (
    AbortFragment,
    Assignment,
    BucketEntries,
    Failed,
    FragmentData,
    Heartbeat,
    ListBucket,
    ListBuckets,
    Member,
    ReadFragment,
    StoreFragment,
)
from tests.unit.chunk.engine_bench import checksum_of, delete, item, payload_of
from tests.unit.chunk.role_world import GROUP, SETTINGS, Server, World, endpoint

NAMES = ("a", "b", "c")
UNLIMITED = msgspec.structs.replace(SETTINGS, catch_up_bytes_per_s=2**60)
"""For tests in which time stands still."""


def world_of(*holdings: set[int], size: int = 100, settings: Settings = SETTINGS) -> World:
    """Servers a, b, c … that hold these fragments."""
    world = World(*NAMES[: len(holdings)], settings=settings)
    for name, fids in zip(NAMES, holdings, strict=False):
        for fid in sorted(fids):
            assert world.servers[name].bench.codes(item(fid, length=size)) == [""]
    return world


def equal(world: World) -> bool:
    """Have all reported one digest, which is that of what they hold?"""
    reported = {world.beat(name).synced_digest for name in world.servers}
    held = {server.bench.digest() for server in world.servers.values()}
    return reported == held and len(held) == 1


def live(world: World, name: str) -> set[int]:
    return set(world.servers[name].bench.live())


def asked(world: World, kind: type, name: str | None = None) -> list[str]:
    """Who was asked with such a message (by ``name``)."""
    return [
        send.endpoint
        for asker, send in world.sent
        if isinstance(send.message, kind) and name in (None, asker)
    ]


def test_empty_servers_are_equal_at_once() -> None:
    world = world_of(set(), set(), set())
    world.assign("SYNC", 1)
    assert equal(world)
    assert world.beat("a").epoch == 1


def test_a_group_of_one_is_equal_to_itself() -> None:
    world = world_of({1, 2})
    world.assign("SYNC", 1)
    assert equal(world)


def test_all_come_to_hold_what_any_of_them_holds_without_waiting() -> None:
    world = world_of({1, 2, 3}, {3, 4}, set(range(100, 150)))
    world.assign("SYNC", 1)
    assert equal(world)
    assert live(world, "a") == {1, 2, 3, 4, *range(100, 150)}
    assert all(world.servers["b"].bench.content(fid) == payload_of(fid) for fid in live(world, "a"))


def test_an_empty_disk_is_filled() -> None:
    everything = set(range(1, 3001))
    world = world_of(everything, everything, set(), size=1)
    world.assign("SYNC", 1)
    assert equal(world)
    assert live(world, "c") == everything


def test_equal_servers_list_no_buckets() -> None:
    world = world_of({1, 2}, {1, 2}, {1, 2})
    world.assign("SYNC", 1)
    assert equal(world)
    assert asked(world, ListBucket) == []
    assert len(asked(world, ListBuckets)) == 6


def test_a_large_bucket_is_listed_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fabric.chunk.role.PAGE_ENTRIES", 5)
    fids = {fid for fid in range(1, 40_000) if bucket_of(fid) == 77}
    assert len(fids) > 20
    world = world_of(fids, set())
    world.assign("SYNC", 1)
    assert equal(world)
    assert len(asked(world, ListBucket, "b")) >= len(fids) // 5


def test_what_is_dead_here_dies_there() -> None:
    world = world_of({1, 2, 3}, {1, 2, 3}, {1, 2, 3})
    world.servers["b"].bench.write(delete(2))
    world.assign("SYNC", 1)
    world.advance(2.5)
    assert equal(world)
    assert live(world, "a") == live(world, "b") == live(world, "c") == {1, 3}
    assert world.outcome(world.ask(AbortFragment(1000, GROUP, 2))) == "FragmentAborted"


def test_a_server_that_was_away_brings_nothing_back() -> None:
    """b missed the deletion of 1 and the storing of 5."""
    world = world_of({1, 2, 5}, {1, 2}, {1, 2, 5})
    for name in ("a", "c"):
        world.servers[name].bench.write(delete(1))
    world.assign("SYNC", 1, deletes={"b": [1]})
    world.advance(2.5)
    assert equal(world)
    assert live(world, "b") == {2, 5}


def test_it_compares_only_after_the_ordered_deletes_are_durable() -> None:
    world = world_of({1}, {1})
    world.automatic = False
    world.assign("SYNC", 1, deletes={"a": [1]})
    assert asked(world, ListBuckets, "a") == []
    world.run_job("write", "a")
    world.automatic = True
    world.settle()
    assert asked(world, ListBuckets, "a") != []


def test_deletes_of_an_earlier_assignment_keep_nobody_from_comparing() -> None:
    world = world_of({1, 2, 3}, {1, 2, 3})
    world.assign("WAIT", 1, deletes={"a": [1], "b": [1]})
    world.assign("SYNC", 2, deletes={"a": [2], "b": [2]})
    assert equal(world)
    assert live(world, "a") == {3}


def test_it_compares_only_when_no_write_is_under_way() -> None:
    world = world_of(set(), set())
    world.assign("RW", 1)
    world.automatic = False
    world.store(1)
    world.assign("SYNC", 2)
    world.run_reads("a")
    assert asked(world, ListBuckets, "a") == []
    world.automatic = True
    world.settle()
    assert equal(world)
    assert live(world, "b") == {1}


def test_a_change_takes_the_word_back_until_compared_again() -> None:
    world = world_of({1, 2}, {1, 2})
    world.assign("SYNC", 1)
    assert equal(world)
    before = world.beat("a").synced_digest
    world.ask(AbortFragment(1000, GROUP, 2), name="a")
    assert world.beat("a").synced_digest != before
    world.advance(2.5)
    assert equal(world)
    assert live(world, "b") == {1}


def test_a_member_that_cannot_be_reached_is_tried_again() -> None:
    world = world_of({1}, set())
    world.cut.add("a")
    world.assign("SYNC", 1)
    assert world.beat("b").synced_digest == b""
    world.cut.clear()
    world.advance(1.1)
    assert equal(world)


def test_a_damaged_copy_is_passed_over_for_a_good_one() -> None:
    world = world_of({1}, {1}, set())
    world.servers["a"].bench.disk.flip(file_name(1), SUPERBLOCK_BYTES + 80)
    world.assign("SYNC", 1)
    world.advance(5)
    assert equal(world)
    assert world.servers["c"].bench.content(1) == payload_of(1)
    assert world.servers["a"].bench.content(1) == payload_of(1)


def test_a_lone_damaged_copy_keeps_the_group_from_being_equal() -> None:
    world = world_of({1, 2}, set())
    world.servers["a"].bench.disk.flip(file_name(1), SUPERBLOCK_BYTES + 80)
    world.assign("SYNC", 1)
    world.advance(5)
    assert live(world, "b") == {2}
    assert world.beat("b").synced_digest == b""


def test_it_goes_on_comparing_at_a_slow_pace() -> None:
    world = world_of({1}, {1})
    world.assign("SYNC", 1)
    world.sent.clear()
    world.advance(10)
    assert len(asked(world, ListBuckets, "a")) == 5


class Learning(World):
    """b copies from a, which takes writes: some before each of its first rounds but the very first."""

    def __init__(self, writes_before_rounds: int) -> None:
        super().__init__("a", "b")
        self.rounds = 0
        self.synced_after: list[int] = []
        """Rounds that had begun when b said that it was synced."""
        self._left = writes_before_rounds
        self._fid = 0
        self.write(10)
        members = [Member("a", endpoint("a"))]
        self.assignments["a"] = Assignment(1, GROUP, 1, "RW", members, [], 4000)
        self.assignments["b"] = Assignment(1, GROUP, 1, "SYNC", members, [], 4000)
        self.tell()

    def write(self, count: int) -> None:
        for _ in range(count):
            self._fid += 1
            assert self.servers["a"].bench.codes(item(self._fid, length=100)) == [""]

    def _send(self, server: Server, effect: Send) -> None:
        if isinstance(effect.message, ListBuckets):
            self.rounds += 1
            if self.rounds > 1 and self._left:
                self._left -= 1
                self.write(10)
        if isinstance(effect.message, Heartbeat) and server.name == "b" and effect.message.synced_digest:
            self.synced_after.append(self.rounds)
        super()._send(server, effect)


@pytest.mark.parametrize(("writes", "rounds"), [(0, 2), (1, 3), (2, 4), (4, 5), (20, 5)])
def test_a_learner_is_synced_by_a_round_that_copied_little_or_when_it_has_tried_enough(
    monkeypatch: pytest.MonkeyPatch, writes: int, rounds: int
) -> None:
    monkeypatch.setattr("fabric.chunk.catch_up.ROUND_BYTES_MAX", 500)
    world = Learning(writes)
    assert world.synced_after[0] == rounds
    assert live(world, "b") == set(range(1, 10 * min(writes + 1, rounds) + 1))
    world.advance(60.0)
    assert live(world, "b") == live(world, "a")
    assert world.beat("b").synced_digest == world.servers["a"].bench.digest()


def test_a_small_round_needs_no_other() -> None:
    world = Learning(0)
    assert world.synced_after[0] == world.rounds == 1


def test_a_new_epoch_ends_the_old_comparison() -> None:
    world = world_of(set(range(1, 200)), set())
    world.automatic = False
    world.assign("SYNC", 1)
    world.run_job("read", "b")
    world.assign("RW", 2)
    world.automatic = True
    world.settle()
    assert world.beat("b").synced_digest == b""
    assert live(world, "b") == set()
    world.sent.clear()
    world.advance(10)
    assert asked(world, ListBuckets) == []


def test_the_bytes_under_way_are_bounded() -> None:
    world = world_of(set(range(1, 21)), set(), size=3 * MIB, settings=UNLIMITED)
    world.automatic = False
    world.assign("SYNC", 1)
    most = 0
    for _ in range(3000):
        # Writes only when nothing else can go on: so the window is as full as it becomes.
        ran = [world.run_job("read", name) for name in ("a", "b")]
        if not any(ran):
            ran = [world.run_job("write", name) for name in ("a", "b")]
        reads = sum(isinstance(send.message, ReadFragment) for asker, send in world.sent if asker == "b")
        most = max(most, reads - len(live(world, "b")))
        if not any(ran):
            break
    assert live(world, "b") == set(range(1, 21))
    # The bound is 32 MiB; fragments of several buckets fill it.
    assert most == 10


def test_a_member_that_is_lost_in_the_middle_is_left_and_the_others_are_visited() -> None:
    """Pages that wait are forgotten, pulls under way are not, and nothing is visited twice at once."""
    fids = set(range(1, 60))
    world = world_of(fids, set(), fids, size=3 * MIB)
    world.automatic = False
    world.assign("SYNC", 1)
    while len(asked(world, ReadFragment, "b")) < 3:
        assert any(world.run_job("read", name) for name in world.servers)
    world.cut.add(asked(world, ReadFragment, "b")[0].removeprefix("tcp://").removesuffix(":7410"))
    world.automatic = True
    world.advance(15)  # answers that are lost are waited for
    assert live(world, "b") == fids
    world.cut.clear()
    world.advance(15)
    assert equal(world)


def test_the_window_holds_for_many_fragments_of_one_bucket() -> None:
    fids = [fid for fid in range(1, 20_000) if bucket_of(fid) == 3][:20]
    world = world_of(set(fids), set(), size=3 * MIB, settings=UNLIMITED)
    world.automatic = False
    world.assign("SYNC", 1)
    for _ in range(50):
        world.run_job("read", "b")
        world.run_job("read", "a")
        if asked(world, ReadFragment, "b"):
            break
    assert len(asked(world, ReadFragment, "b")) == 10
    world.automatic = True
    world.settle()
    assert equal(world)


@pytest.mark.parametrize("lie", ["endless", "short", "wrong bytes"])
def test_a_member_that_talks_nonsense_stops_nobody_for_ever(
    lie: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = world_of({1}, set())
    role = world.servers["a"].role
    if lie == "endless":

        def endless(message: ListBucket, sender: object, now: float) -> list[object]:
            return [Reply(sender, BucketEntries(GROUP, message.bucket, [], True))]  # type: ignore[arg-type]

        role._requests[ListBucket] = endless  # type: ignore[assignment]
    else:
        data = b"x" * (99 if lie == "short" else 100)

        def lying(message: ReadFragment, sender: object, now: float) -> list[object]:
            return [Reply(sender, FragmentData(1, 0, checksum_of(data)), data)]  # type: ignore[arg-type]

        role._requests[ReadFragment] = lying  # type: ignore[assignment]
    world.assign("SYNC", 1)
    world.advance(3)
    assert live(world, "b") == set()
    assert world.beat("b").synced_digest == b""
    world.assign("RW", 2)
    payload = payload_of(9)
    request = world.ask(StoreFragment(1000, GROUP, 2, 9, checksum_of(payload)), payload, "b")
    assert world.outcome(request) == "stored"


# --- repair --------------------------------------------------------------------------------------


def test_a_damaged_copy_that_a_reader_meets_is_replaced() -> None:
    world = world_of({1, 2}, {1, 2}, {1, 2})
    world.assign("RW", 1)
    world.servers["a"].bench.disk.flip(file_name(1), SUPERBLOCK_BYTES + 80)
    answer = world.answer(ReadFragment(1000, GROUP, 1, 0, 100))
    assert isinstance(answer, Failed)
    assert answer.code == "BAD_CHECKSUM"
    assert isinstance(world.answer(ReadFragment(1000, GROUP, 1, 0, 100)), FragmentData)
    assert world.servers["a"].bench.engine.status().quarantined == 0


def test_a_repair_turns_to_another_member_when_one_cannot_help() -> None:
    for helpless in ("b", "c"):
        world = world_of({1}, {1}, {1})
        world.assign("RW", 1)
        world.cut.add(helpless)
        world.servers["a"].bench.disk.flip(file_name(1), SUPERBLOCK_BYTES + 80)
        world.ask(ReadFragment(1000, GROUP, 1, 0, 100))
        assert world.servers["a"].bench.content(1) == payload_of(1)


@pytest.mark.parametrize("lie", [b"y" * 100, b"y" * 99, b""])
@pytest.mark.parametrize("liar", ["b", "c"])
def test_a_repair_turns_to_another_member_when_one_sends_other_bytes(liar: str, lie: bytes) -> None:
    world = world_of({1}, {1}, {1})
    world.assign("RW", 1)
    world.servers[liar].role._requests[ReadFragment] = lambda m, sender, now: [
        Reply(sender, FragmentData(1, 0, checksum_of(lie)), lie)
    ]
    world.servers["a"].bench.disk.flip(file_name(1), SUPERBLOCK_BYTES + 80)
    world.ask(ReadFragment(1000, GROUP, 1, 0, 100))
    assert world.servers["a"].bench.content(1) == payload_of(1)


def test_a_payload_of_another_length_is_not_even_tried() -> None:
    world = world_of({1}, set())
    world.servers["a"].role._requests[ReadFragment] = lambda m, sender, now: [
        Reply(sender, FragmentData(1, 0, 0), b"short")
    ]
    world.automatic = False
    world.assign("SYNC", 1)
    for _ in range(50):
        world.run_job("read", "a")
        world.run_job("read", "b")
        assert not world.servers["b"].lanes["write"]
    assert asked(world, ReadFragment, "b") != []


def test_a_repair_that_fails_can_be_tried_again() -> None:
    world = world_of({1}, {1})
    world.assign("RW", 1)
    world.cut.add("b")
    world.servers["a"].bench.disk.flip(file_name(1), SUPERBLOCK_BYTES + 80)
    world.ask(ReadFragment(1000, GROUP, 1, 0, 100))
    world.cut.clear()
    world.ask(ReadFragment(1000, GROUP, 1, 0, 100))
    assert world.servers["a"].bench.content(1) == payload_of(1)


def test_many_readers_of_one_damaged_copy_start_one_repair() -> None:
    world = world_of({1}, {1})
    world.assign("RW", 1)
    world.servers["a"].bench.disk.flip(file_name(1), SUPERBLOCK_BYTES + 80)
    world.automatic = False
    for _ in range(10):
        world.ask(ReadFragment(1000, GROUP, 1, 0, 100))
    world.run_reads("a")
    assert len(asked(world, ReadFragment, "a")) == 1


# --- anything at all -----------------------------------------------------------------------------


def test_whatever_the_servers_held_they_end_equal_and_nothing_dead_comes_back() -> None:
    for seed in range(8):
        rng = random.Random(seed)
        world = World(*NAMES)
        dead: set[int] = set()
        union: set[int] = set()
        for name in NAMES:
            bench = world.servers[name].bench
            for fid in rng.sample(range(1, 300), rng.randint(0, 120)):
                assert bench.codes(item(fid)) == [""]
                union.add(fid)
            for fid in rng.sample(range(1, 300), rng.randint(0, 20)):
                bench.write(delete(fid))
                dead.add(fid)
        world.assign("SYNC", 1)
        world.advance(6)
        assert equal(world), seed
        assert live(world, "a") == union - dead, seed


def test_copying_keeps_to_its_rate_and_comes_to_an_end() -> None:
    rate = 20 * (100 + UPKEEP_RECORD_BYTES)  # twenty of these fragments a second
    everything = set(range(1, 101))
    settings = msgspec.structs.replace(SETTINGS, catch_up_bytes_per_s=rate)
    world = world_of(everything, set(), settings=settings)
    world.assign("SYNC", 1)
    counts = []
    for _ in range(8):
        world.advance(1.0)
        counts.append(len(live(world, "b")))
    steps = [after - before for before, after in pairwise([0, *counts])]
    assert max(steps) <= 22
    assert counts[4] >= 90 and counts[-1] == 100
    assert equal(world)
