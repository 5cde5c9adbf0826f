"""What the scrub finds is repaired from a peer; what no peer can give is asked for again."""

from __future__ import annotations

from fabric.chunk.data_file import file_name
from fabric.chunk.record import SUPERBLOCK_BYTES, record_bytes
from fabric.chunk.repairs import PAUSE_S, TRIES_MAX
from fabric.settings import Settings
from fabric.wire.messages import ReadFragment
from tests.unit.chunk.engine_bench import Bench, delete, payload_of
from tests.unit.chunk.role_world import World

FIRST_PAYLOAD = SUPERBLOCK_BYTES + 80
SETTINGS = Settings(reserve_bytes=0, data_file_bytes_max=2**20, scrub_interval_s=10.0)


class Clock:
    """Wall clock of an engine: milliseconds."""

    def __init__(self) -> None:
        self.ms = 0

    def __call__(self) -> int:
        return self.ms


def world_of(count: int, clock: Clock) -> World:
    """Two servers with the same fragments, 1 to ``count``, in RW."""
    world = World("a", settings=SETTINGS)
    world.servers.clear()
    for name in ("a", "b"):
        bench = Bench(settings=SETTINGS, wall_ms=clock)
        bench.store(*range(1, count + 1))
        world.add(name, bench)
    world.assign("RW", 1)
    return world


def flip(world: World, name: str, fid: int) -> None:
    world.servers[name].bench.disk.flip(file_name(1), FIRST_PAYLOAD + (fid - 1) * record_bytes(100))


def scrub(world: World, clock: Clock) -> None:
    clock.ms += 20_000
    world.advance(120)


def test_a_scrub_repairs_what_has_rotted_and_nobody_reads() -> None:
    clock = Clock()
    world = world_of(20, clock)
    for fid in (3, 7, 20):
        flip(world, "a", fid)
    assert world.servers["a"].bench.content(3) == "BAD_CHECKSUM"
    scrub(world, clock)
    bench = world.servers["a"].bench
    assert [bench.content(fid) for fid in range(1, 21)] == [payload_of(fid) for fid in range(1, 21)]
    assert bench.engine.status().quarantined == 0
    asked = [send.message.fid for name, send in world.sent if isinstance(send.message, ReadFragment)]
    assert sorted(asked) == [3, 7, 20]


def test_what_no_peer_can_give_is_asked_for_again_and_at_last_left_to_the_next_scrub() -> None:
    clock = Clock()
    world = world_of(2, clock)
    flip(world, "a", 1)
    flip(world, "b", 1)
    world.cut.add("b")
    scrub(world, clock)
    assert world.servers["a"].bench.engine.status().quarantined == 1
    world.advance(PAUSE_S * TRIES_MAX)
    tries = sum(isinstance(send.message, ReadFragment) for name, send in world.sent if name == "a")
    assert tries == TRIES_MAX
    world.advance(PAUSE_S * TRIES_MAX)
    assert sum(isinstance(send.message, ReadFragment) for name, send in world.sent if name == "a") == tries
    scrub(world, clock)
    assert sum(isinstance(send.message, ReadFragment) for name, send in world.sent if name == "a") > tries


def test_any_number_may_be_due_at_once_with_nobody_to_ask() -> None:
    clock = Clock()
    world = World("a", settings=SETTINGS)
    world.servers.clear()
    bench = Bench(settings=SETTINGS, wall_ms=clock)
    bench.store(*range(1, 1501))
    world.add("a", bench)
    world.assign("RW", 1)
    for fid in range(1, 1501):
        flip(world, "a", fid)
    scrub(world, clock)
    assert bench.engine.status().quarantined == 1500
    # The process was held up: what was to be tried one after the other is all due now.
    world.now += 2 * PAUSE_S
    world.settle()
    # The server lives, and has forgotten none: a peer that appears is asked for every one.
    other = Bench(settings=SETTINGS, wall_ms=clock)
    other.store(*range(1, 1501))
    world.add("b", other)
    world.assign("RW", 2)
    world.advance(2 * PAUSE_S)
    assert bench.engine.status().quarantined == 0


def test_a_damaged_tombstone_is_written_anew() -> None:
    clock = Clock()
    world = world_of(2, clock)
    bench = world.servers["a"].bench
    bench.write(delete(1))
    data_file = bench.engine._files.active
    assert data_file is not None
    bench.disk.flip(file_name(1), data_file.end - 72 + 9)
    assert bench.without_index().content(1) == payload_of(1), "only the index knows that it is dead"
    scrub(world, clock)
    assert bench.content(1) == "NO_FRAGMENT"
    assert bench.without_index().content(1) == "NO_FRAGMENT"


def test_a_server_whose_index_is_damaged_ends_and_is_well_after_the_next_start() -> None:
    clock = Clock()
    world = world_of(5, clock)
    server = world.servers["a"]
    server.bench.home.lost = True
    world.ask(ReadFragment(1000, 1, 1, 0, 100))
    world.advance(2)
    assert "rebuilds the index" in world.exits["a"]
    assert server.bench.home.condemned
    server.bench.home.lost = False
    again = server.bench.killed()
    assert again.home.created == 2
    assert [again.content(fid) for fid in range(1, 6)] == [payload_of(fid) for fid in range(1, 6)]
