"""What an engine has promised, written down by its client, and the audit against it.

The ledger knows only what was asked and what was answered, and holds the engine to it:

- a store that was acknowledged is read back with its bytes, until it is deleted;
- a delete that was acknowledged holds for ever, through any crash and any rebuild of the index;
- a store or delete that failed on a broken disk, or was not answered, has happened whole or not at all;
  the first look after the next start decides which, and then it stays so;
- a store that was refused while the engine goes on has not happened;
- a fragment whose record was damaged on purpose gives an error or its bytes, never other bytes.

The audit looks inside as well: counters against rows, rows against files, and the data files alone against
the index (by a rebuild on a copy of the disk).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from fabric.chunk.index import FileTotals
from fabric.chunk.jobs import DeleteItem, StoreItem
from fabric.chunk.totals import Totals
from fabric.ids import bucket_of
from sim.crashes import keep_all
from sim.disk import PowerCut
from sim.index import MemoryIndexHome
from tests.unit.chunk.engine_bench import Bench, delete, item, payload_of

ABSENT = "NO_FRAGMENT"
DAMAGED = ("BAD_CHECKSUM", ABSENT)


class Ledger:
    """Payloads are ``payload_of(fid, length)``."""

    def __init__(self) -> None:
        self.live: dict[int, int] = {}
        """Acknowledged and not deleted: fid -> length."""
        self.dead: dict[int, int] = {}
        """Deleted: fid -> when, by the wall clock of the engine."""
        self.maybe_live: dict[int, int] = {}
        """Stores of unknown outcome: fid -> length."""
        self.maybe_dead: dict[int, int] = {}
        """Deletes of unknown outcome, of live fragments and of others: fid -> when."""
        self.damaged: set[int] = set()
        """Live fragments whose record was damaged and not repaired since."""
        self.in_flight: set[int] = set()
        """Fids of a batch that is not answered yet."""

    # --- asking -----------------------------------------------------------------------------------

    def write(self, bench: Bench, *items: StoreItem | DeleteItem) -> list[str]:
        """Run a batch and note its outcomes; returns error codes, "" for success."""
        self.in_flight |= {work.fid for work in items}
        try:
            codes = bench.codes(*items)
        except PowerCut:
            for work in items:
                self._note(work, None, bench)
            raise
        finally:
            self.in_flight -= {work.fid for work in items}
        for work, code in zip(items, codes, strict=True):
            self._note(work, code, bench)
        return codes

    def store(self, bench: Bench, *fids: int, length: int = 100) -> list[str]:
        return self.write(bench, *(item(fid, length=length) for fid in fids))

    def delete(self, bench: Bench, *fids: int) -> list[str]:
        return self.write(bench, *map(delete, fids))

    def _note(self, work: StoreItem | DeleteItem, code: str | None, bench: Bench) -> None:
        """``code``: None when there was no answer."""
        unknown = code in (None, "DISK_FAILED") or (code == "NO_SPACE" and bool(bench.engine._writer.failed))
        fid, now = work.fid, bench.wall_ms()
        if isinstance(work, DeleteItem):
            assert code in (None, "", "DISK_FAILED", "NO_SPACE"), code
            if code == "":
                self._died(fid, now)
            elif unknown and fid not in self.dead:
                self.maybe_dead[fid] = now
            return
        if code == "":
            assert fid not in self.dead, f"fragment {fid} is dead and was stored"
            self.maybe_live.pop(fid, None)
            self.live[fid] = len(work.payload)
        elif unknown and fid not in self.live and fid not in self.dead:
            self.maybe_live[fid] = len(work.payload)

    def _died(self, fid: int, now: int) -> None:
        for known in (self.live, self.maybe_live, self.maybe_dead):
            known.pop(fid, None)
        self.damaged.discard(fid)
        self.dead[fid] = now

    # --- auditing ---------------------------------------------------------------------------------

    def check_content(self, bench: Bench, fid: int) -> None:
        """A fragment is what the ledger says of it."""
        length = self.live.get(fid, self.maybe_live.get(fid, 100))
        self._check(fid, bench.content(fid, length), length)

    def _check(self, fid: int, content: bytes | str, length: int) -> None:
        allowed: list[bytes | str] = []
        if fid in self.live or fid in self.maybe_live:
            allowed.append(payload_of(fid, length))
        if fid not in self.live or fid in self.maybe_dead:
            allowed.append(ABSENT)
        if fid in self.damaged:
            allowed += DAMAGED
        if content not in allowed:
            shown = content if isinstance(content, str) else f"{len(content)} bytes"
            raise AssertionError(f"fragment {fid} gives {shown}: {self.known(fid)}")

    def known(self, fid: int) -> str:
        """What is known of a fid, for people."""
        names = ("live", "dead", "maybe_live", "maybe_dead", "damaged")
        return ", ".join(name for name in names if fid in getattr(self, name)) or "never stored"

    def check(self, bench: Bench) -> None:
        """The whole engine is what the ledger says."""
        for fid in [*self.live, *self.dead, *self.maybe_live, *self.maybe_dead]:
            self.check_content(bench, fid)
        found = live_fids(bench)
        assert found <= self.live.keys() | self.maybe_live.keys(), f"unknown: {found - self.live.keys()}"
        missing = self.live.keys() - self.maybe_dead.keys() - self.damaged - found
        assert not missing, f"not listed: {sorted(missing)}"
        audit(bench)

    def settle(self, bench: Bench) -> None:
        """The engine has just started: check it, and take what it shows of what was unknown as decided."""
        self.check(bench)
        found = live_fids(bench)
        for fid, length in list(self.maybe_live.items()):
            if fid in found:
                self.live[fid] = length
        for fid, when in list(self.maybe_dead.items()):
            entry = bench.engine._index.get(fid)
            if entry is not None and entry.is_tombstone:
                self._died(fid, when)
            else:
                assert fid in found or fid in self.damaged or fid not in self.live, f"fragment {fid} is gone"
        # What was neither stored nor deleted may be tried again, and is then known again.
        self.maybe_live.clear()
        self.maybe_dead.clear()

    def check_rebuild(self, bench: Bench) -> None:
        """The data files alone tell the same; on a copy of the disk."""
        rebuilt = Bench(bench.disk.crash(keep_all), MemoryIndexHome(), bench.settings, bench.wall_ms)
        self.check(rebuilt)


def live_fids(bench: Bench) -> set[int]:
    """By the rows of the index."""
    return {fid for fid, entry in bench.engine._index.scan() if not entry.is_tombstone}


def audit(bench: Bench) -> None:
    """Counters are what the rows add up to; every row points at a record of a file that is there."""
    engine = bench.engine
    index, files = engine._index, engine._files
    counters = index.counters()
    for bucket in {bucket_of(fid) for fid, _ in index.scan()} | counters.buckets.keys():
        index.verify_bucket(bucket)
    counted = Totals()
    for fid, entry in index.scan():
        counted.replace(fid, None, entry)
        data_file = files.get(entry.file)
        assert data_file is not None, f"fragment {fid} is in file {entry.file}, which is not there"
        assert entry.end <= data_file.end, f"fragment {fid} ends behind file {entry.file}"
    counted.publish()
    _check_files(counted.files(), counters.files, files.numbers())
    shown, true = engine._totals.snapshot, counted.snapshot
    assert (shown.digests, shown.fragments, shown.live_bytes, shown.record_bytes) == (
        true.digests,
        true.fragments,
        true.live_bytes,
        true.record_bytes,
    )


def _check_files(
    true: dict[int, FileTotals], noted: dict[int, FileTotals | None], there: Iterable[int]
) -> None:
    for number in {*true, *noted}:
        row = noted.get(number) or FileTotals()
        sums = true.get(number, FileTotals())
        assert (row.records, row.record_bytes) == (sums.records, sums.record_bytes), f"counters of {number}"
        assert row.end >= sums.end, f"end of {number}"
        assert not row.records or number in there, number


def known_kinds(log: Iterable[str]) -> Counter[str]:
    """Steps by their kind, without the names of files."""
    return Counter(" ".join(word for word in step.split() if not word[0].isdigit()) for step in log)
