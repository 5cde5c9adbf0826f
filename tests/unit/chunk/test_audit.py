"""A server tells the master all that it holds, and fetches what it should hold."""

from __future__ import annotations

import msgspec
import pytest

from fabric.errors import Busy
from fabric.ids import bucket_of
from fabric.wire.codec import failed
from fabric.wire.messages import Audited, AuditFragments, BucketEntry
from tests.unit.chunk.engine_bench import checksum_of, delete, payload_of
from tests.unit.chunk.role_world import SETTINGS, World


def ordered(world: World, number: int) -> None:
    """The master's next assignments ask for an audit."""
    world.assignments = {
        name: msgspec.structs.replace(assignment, audit=number)
        for name, assignment in world.assignments.items()
    }


def told(world: World, server: str = "a") -> list[int]:
    return sorted(fid for page in world.audits if page.server == server for fid in page.fids)


def writable(*names: str) -> World:
    world = World(*names)
    world.assign("RW", 1)
    return world


def test_an_ordered_audit_tells_every_live_fragment_once_and_says_when_it_is_done() -> None:
    world = writable("a")
    bench = world.servers["a"].bench
    for fid in range(1, 401):
        bench.store(fid)
    bench.write(delete(7))
    ordered(world, 12)
    world.advance(2.5)
    assert world.beat().audit == 12
    world.advance(5)

    assert told(world) == [fid for fid in range(1, 401) if fid != 7]
    assert all(bucket_of(fid) == page.bucket for page in world.audits for fid in page.fids)
    assert [page.bucket for page in world.audits] == list(range(256))
    assert world.beat().audit_progress == 1.0
    world.advance(30)
    assert len(world.audits) == 256, "one order is one pass"


def test_a_large_bucket_goes_in_pages_that_follow_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fabric.chunk.audit.PAGE_ENTRIES", 3)
    world = writable("a")
    fids = [fid for fid in range(1, 40_000) if bucket_of(fid) == 9][:7]
    for fid in fids:
        world.servers["a"].bench.store(fid)
    ordered(world, 1)
    world.advance(8)
    pages = [(page.after, page.fids, page.more) for page in world.audits if page.bucket == 9]
    assert pages == [(0, fids[:3], True), (fids[2], fids[3:6], True), (fids[5], fids[6:], False)]


def test_what_is_missing_is_fetched_from_a_peer() -> None:
    world = writable("a", "b")
    world.servers["b"].bench.store(5)

    def judge(page: AuditFragments) -> Audited:
        wanted = page.server == "a" and page.bucket == bucket_of(5) and 5 not in page.fids
        return Audited([BucketEntry(5, 100, checksum_of(payload_of(5)))] if wanted else [], 0)

    world.judge = judge
    ordered(world, 3)
    world.advance(5)
    assert world.servers["a"].bench.content(5) == payload_of(5)


def test_what_came_or_went_since_the_listing_is_not_fetched() -> None:
    world = writable("a", "b")
    for name in ("a", "b"):
        world.servers[name].bench.store(5)
        world.servers[name].bench.store(6)
        world.servers[name].bench.write(delete(6))
    entries = {fid: BucketEntry(fid, 100, checksum_of(payload_of(fid))) for fid in (5, 6)}
    world.judge = lambda page: Audited([e for fid, e in entries.items() if bucket_of(fid) == page.bucket], 0)
    ordered(world, 3)
    world.advance(5)
    assert not world.sent


def test_without_a_master_it_is_told_again_and_without_a_group_not_at_all() -> None:
    world = World("a")
    world.assign("WAIT", 1)
    ordered(world, 1)
    world.advance(5)
    assert not world.audits
    world.judge = lambda page: failed(Busy())
    world.assign("RW", 2)
    ordered(world, 1)
    world.advance(3.5)
    assert len({page.bucket for page in world.audits[1:]}) == 1
    assert 2 <= len(world.audits) <= 5, "no storm"
    world.judge = lambda page: Audited([], 0)
    world.advance(5)
    assert world.audits[-1].bucket == 255


def test_it_begins_by_itself_now_and_then_and_not_everywhere_at_once() -> None:
    world = World("a", "b", settings=msgspec.structs.replace(SETTINGS, audit_interval_s=100.0))
    world.assign("RW", 1)
    world.advance(320)
    starts = [page for page in world.audits if page.bucket == 0 and page.server == "a"]
    assert 3 <= len(starts) <= 4
    assert world.beat().audit == 0
