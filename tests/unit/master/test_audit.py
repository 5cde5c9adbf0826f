"""Orphans are found and only they; what a server lacks it is told; fragments are moved between groups."""

from __future__ import annotations

import pytest

from fabric.ids import bucket_of
from fabric.master import keys
from fabric.wire.messages import (
    AppendOperation,
    Audited,
    AuditFragments,
    BucketEntry,
    DeleteOperation,
    Fragments,
    LeaseFids,
    ListFragments,
    Moved,
    PutOperation,
    Relocate,
    Relocated,
)
from tests.unit.master.bench import SETTINGS, MasterBench, Server, fragment, writable_bench

LEASE_S = SETTINGS.fid_lease_s


def page(server: str, fids: list[int], *, bucket: int, after: int = 0, more: bool = False) -> AuditFragments:
    return AuditFragments(1_000, server, 1, bucket, after, fids, more)


def same_bucket(first: int, count: int) -> list[int]:
    """So many fids from ``first`` on that fall into one bucket."""
    bucket = bucket_of(first)
    fids = (fid for fid in range(first, first + 1_000_000) if bucket_of(fid) == bucket)
    return [next(fids) for _ in range(count)]


@pytest.fixture
def bench() -> MasterBench:
    bench, _ = writable_bench()
    return bench


def let_leases_end(bench: MasterBench) -> None:
    """Longer than any lease; the servers' own leases do not matter here."""
    bench.now += LEASE_S + 1


def listed(bench: MasterBench, server: str) -> list[int]:
    prefix = keys.deletes_prefix(server)
    return [keys.last_number(key) for key, _ in bench.store.scan(prefix, keys.after_all(prefix), 1_000)]


def test_what_nothing_names_goes_once_its_lease_is_over_on_every_member(bench: MasterBench) -> None:
    first = bench.lease(100_000).first
    named, orphan = same_bucket(first, 2)
    bench.commit(PutOperation("a", [fragment(named)]))
    bucket = bucket_of(named)

    # The lease lives: a commit may still name it.
    assert bench.ask(page("chunk-1", [named, orphan], bucket=bucket), Audited) == Audited([], 0)
    bench.commit(PutOperation("b", []))

    let_leases_end(bench)
    assert bench.ask(page("chunk-1", [named, orphan], bucket=bucket), Audited) == Audited([], 1)
    assert [listed(bench, f"chunk-{n}") for n in (1, 2, 3)] == [[orphan]] * 3
    # Told again, it is ordered once.
    bench.ask(page("chunk-2", [named, orphan], bucket=bucket), Audited)
    assert listed(bench, "chunk-2") == [orphan]


def test_a_restart_of_the_master_brings_no_condemned_fid_back(bench: MasterBench) -> None:
    first = bench.lease(10).first
    let_leases_end(bench)
    bench.ask(page("chunk-1", [first], bucket=bucket_of(first)), Audited)

    bench.restart()

    refusal = bench.commit_refused(PutOperation("late", [fragment(first)]))
    assert refusal.code == "FID_EXPIRED"


def test_after_a_restart_what_was_not_condemned_lives_for_one_more_lease(bench: MasterBench) -> None:
    first = bench.lease(10).first
    let_leases_end(bench)
    bench.restart()
    bench.make_writable(*[Server(f"chunk-{n}") for n in (1, 2, 3)])

    assert bench.ask(page("chunk-1", [first], bucket=bucket_of(first)), Audited).orphans == 0
    bench.commit(PutOperation("in time", [fragment(first)]))


def test_a_range_that_is_being_reserved_is_no_orphans(bench: MasterBench) -> None:
    """Its high-water mark is moved, its lease has not begun: the horizon must stay before it."""
    before = bench.lease(10).first
    let_leases_end(bench)
    bench.hold = True
    bench.tell(bench.commit_message(PutOperation("first", [])))
    # These wait for the store, and go in one batch.
    bench.tell(LeaseFids(1_000, "proxy", 10))
    bench.tell(page("chunk-1", [before], bucket=bucket_of(before)))
    bench.hold = False
    bench.write_held()
    bench.restart()
    bench.make_writable(*[Server(f"chunk-{n}") for n in (1, 2, 3)])
    bench.commit(PutOperation("a", [fragment(before + 10)]))


def test_what_is_named_and_not_held_is_missing(bench: MasterBench) -> None:
    first = bench.lease(100_000).first
    fids = same_bucket(first, 4)
    for fid in fids:
        bench.commit(PutOperation(f"o/{fid}", [fragment(fid)]))
    bucket = bucket_of(first)

    answer = bench.ask(page("chunk-1", [fids[1]], bucket=bucket), Audited)
    assert answer.missing == [BucketEntry(fid, 100, fid * 7) for fid in (fids[0], fids[2], fids[3])]
    # Only what the page covers.
    answer = bench.ask(page("chunk-1", [fids[1]], bucket=bucket, more=True), Audited)
    assert [entry.fid for entry in answer.missing] == [fids[0]]
    answer = bench.ask(page("chunk-1", [], bucket=bucket, after=fids[1]), Audited)
    assert [entry.fid for entry in answer.missing] == fids[2:]
    assert bench.ask(page("chunk-1", [], bucket=(bucket + 1) % 256), Audited).missing == []


def test_of_very_many_missing_ones_none_that_is_held_counts_as_orphan(
    bench: MasterBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fabric.master.audit.MISSING_MAX", 2)
    first = bench.lease(100_000).first
    fids = same_bucket(first, 8)
    for fid in fids:
        bench.commit(PutOperation(f"o/{fid}", [fragment(fid)]))
    let_leases_end(bench)

    answer = bench.ask(page("chunk-1", [fids[-1]], bucket=bucket_of(first)), Audited)

    assert answer.orphans == 0
    assert [entry.fid for entry in answer.missing] == fids[:2]


def test_a_deleted_object_frees_its_fragments_once(bench: MasterBench) -> None:
    fid = bench.lease(10).first
    bench.commit(PutOperation("a", [fragment(fid)]))
    bench.commit(DeleteOperation("a"))
    bucket = bucket_of(fid)
    bench.now += 1
    # Readers may finish: it is neither an orphan nor missing.
    assert bench.ask(page("chunk-1", [fid], bucket=bucket), Audited) == Audited([], 0)
    bench.tick(bench.now + SETTINGS.delete_grace_s + 1)
    assert listed(bench, "chunk-1") == [fid]
    assert bench.ask(page("chunk-1", [], bucket=bucket), Audited) == Audited([], 0)


def test_a_page_of_another_group_is_refused(bench: MasterBench) -> None:
    assert bench.refused(AuditFragments(1_000, "chunk-1", 2, 0, 0, [], False)).code == "BAD_REQUEST"
    assert bench.refused(AuditFragments(1_000, "chunk-9", 1, 0, 0, [], False)).code == "BAD_REQUEST"


def test_a_store_of_an_earlier_version_gets_its_references(bench: MasterBench) -> None:
    first = bench.lease(1_000).first
    for n in range(300):
        bench.commit(PutOperation(f"o/{n}", [fragment(first + n)]))
    pairs = bench.store.scan(keys.REFERENCES, keys.after_all(keys.REFERENCES), 1_000)
    assert len(pairs) == 300
    earlier = {keys.REFERENCES_OF_EARLIER + key[2:]: value for key, value in pairs}
    bench.store.write({**{key: None for key, _ in pairs}, keys.REFERENCES_BUILT: None, **earlier})

    bench.restart()

    assert bench.store.scan(keys.REFERENCES, keys.after_all(keys.REFERENCES), 1_000) == pairs
    assert bench.store.scan(b"r/", b"r0", 1_000) == []


# --- moves ----------------------------------------------------------------------------------------


@pytest.fixture
def two_groups() -> MasterBench:
    bench = MasterBench(replicas=1)
    bench.make_writable(Server("chunk-1", group=1))
    bench.make_writable(Server("chunk-2", group=2))
    return bench


def test_an_object_names_what_was_moved_and_the_old_one_goes_after_the_grace(two_groups: MasterBench) -> None:
    bench = two_groups
    first = bench.lease(1_000).first
    olds = [fragment(first + n) for n in range(200)]
    info = bench.commit(PutOperation("a", olds[:128])).results[0]
    assert info is not None
    bench.commit(AppendOperation("a", olds[128:], 12_800))
    source = olds[150]
    target = fragment(first + 500, group=2)
    target = type(target)(2, target.fid, source.length, source.checksum)

    assert bench.ask(Relocate(1_000, [Moved(source, target)]), Relocated).named == [True]

    now_named = bench.ask(ListFragments(1_000, info.object_id, 15_000), Fragments).fragments
    assert now_named == [*olds[128:150], target, *olds[151:]]
    assert listed(bench, "chunk-1") == []
    bench.tick(bench.now + SETTINGS.delete_grace_s + 1)
    assert listed(bench, "chunk-1") == [source.fid]
    assert listed(bench, "chunk-2") == []
    # And deleting the object frees the new one.
    bench.commit(DeleteOperation("a"))
    bench.tick(bench.now + SETTINGS.delete_grace_s + 1)
    for _ in range(10):
        bench.tick(bench.now + 1)
    assert listed(bench, "chunk-2") == [target.fid]
    assert len(listed(bench, "chunk-1")) == 200


def test_a_repeated_relocation_says_the_same_and_a_rival_one_loses(two_groups: MasterBench) -> None:
    bench = two_groups
    first = bench.lease(1_000).first
    source = fragment(first)
    bench.commit(PutOperation("a", [source]))
    copy = type(source)(2, first + 1, source.length, source.checksum)
    rival = type(source)(2, first + 2, source.length, source.checksum)
    assert bench.ask(Relocate(1_000, [Moved(source, copy)]), Relocated).named == [True]
    assert bench.ask(Relocate(1_000, [Moved(source, copy)]), Relocated).named == [True]
    assert bench.ask(Relocate(1_000, [Moved(source, rival)]), Relocated).named == [False]
    bench.tick(bench.now + SETTINGS.delete_grace_s + 1)
    assert bench.ask(Relocate(1_000, [Moved(source, rival)]), Relocated).named == [False]
    assert bench.ask(Relocate(1_000, [Moved(source, copy)]), Relocated).named == [True]
    assert listed(bench, "chunk-1") == [source.fid]


def test_nothing_is_relocated_that_is_no_copy_or_too_late_or_deleted(two_groups: MasterBench) -> None:
    bench = two_groups
    first = bench.lease(1_000).first
    a, b, c = (fragment(first + n) for n in range(3))
    bench.commit(PutOperation("a", [a]), PutOperation("b", [b]), PutOperation("c", [c]))
    bench.commit(DeleteOperation("b"))
    ref = type(a)
    moved = [
        Moved(a, ref(2, first + 10, a.length, a.checksum + 1)),
        Moved(a, ref(3, first + 10, a.length, a.checksum)),
        Moved(b, ref(2, first + 11, b.length, b.checksum)),
        Moved(c, ref(2, c.fid, c.length, c.checksum)),
    ]
    assert bench.ask(Relocate(1_000, moved), Relocated).named == [False] * 4
    bench.now += LEASE_S + 1
    late = Moved(a, ref(2, first + 12, a.length, a.checksum))
    assert bench.ask(Relocate(1_000, [late]), Relocated).named == [False]
