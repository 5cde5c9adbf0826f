"""One random life of a chunk engine on a disk that breaks, held against a ledger of what it has promised.

A history is a list of small tuples: the name of an operation and numbers, each taken modulo what there is at
that moment.  So any list means something, printing it replays it, and one that fails can be shortened.

Jobs run one at a time, compaction and scrub slice by slice with other operations between them.  ``beside``
goes further: a job of one lane runs in the middle of one of another lane, as it does on two threads.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fabric.chunk.data_file import file_name
from fabric.chunk.jobs import (
    CompactDone,
    CompactFollow,
    CompactJob,
    DeleteItem,
    ScrubDone,
    ScrubJob,
    StoreItem,
)
from fabric.chunk.record import RECORD_HEADER_BYTES
from fabric.errors import DiskFailed
from fabric.settings import Settings
from sim.crashes import keep_some, ways_to_crash
from sim.disk import FakeDisk, PowerCut, keep_nothing
from sim.index import MemoryIndexHome
from tests.unit.chunk.engine_bench import Bench, delete, item, payload_of
from tests.unit.chunk.ledger import DAMAGED, Ledger

SIZES = (0, 1, 100, 700, 3000, 9000, 20_000)
"""Of fragments; the largest is larger than a data file."""
KEEP_S = 100
SETTINGS = Settings(
    data_file_bytes_max=16_000,
    reserve_bytes=0,
    checkpoint_bytes=20_000,
    tombstone_keep_s=KEEP_S,
    scrub_interval_s=1000.0,
)
PLENTY_BYTES = 2**30

Operation = tuple[Any, ...]


class History:
    """One engine after another on one disk."""

    def __init__(self, happened: Counter[str] | None = None) -> None:
        """``happened``: counts what the operations really did."""
        self.happened: Counter[str] = Counter() if happened is None else happened
        self.ledger = Ledger()
        self.now_ms = 1_000_000
        self._next_fid = 1
        self._follow: CompactFollow | None = None
        self._cut_in: int | None = None
        self._variant = (0, 0)
        self._beside: tuple[int, str, int] | None = None
        self._running: list[str] = []
        """Lanes of the jobs that are under way, the outermost first."""
        self._broken_for = 0
        self.bench = self._open(FakeDisk(PLENTY_BYTES), MemoryIndexHome())

    def run(self, operations: list[Operation]) -> None:
        """All operations, and then what must hold at the end of any history."""
        for name, *arguments in operations:
            self._do(name, arguments)
            self._restart_when_broken()
        self._cut_in = self._beside = None
        self._finish()

    def _do(self, name: str, arguments: list[int]) -> None:
        operation: Callable[..., None] = getattr(self, f"do_{name}")
        try:
            operation(*arguments)
        except PowerCut as cut:
            self.happened[f"cut before {_kind(str(cut))}"] += 1
            self._running.clear()
            self._crash(*self._variant)

    def _restart_when_broken(self) -> None:
        """A server that only a restart can mend lives a little longer, and is restarted."""
        self._broken_for = self._broken_for + 1 if self._is_broken() else 0
        if self._broken_for > 2:
            self._cut_in = None
            if self.happened["start"] % 2:
                self.do_kill()
            else:
                self._crash(self.happened["start"] // 2, self.happened["start"])

    def _finish(self) -> None:
        """With power and room everything is good, can be compacted, and survives a cut and a rebuild."""
        self.do_free()
        if self._is_broken():
            self._faultless()
            self.do_kill()
        self._faultless()
        self.ledger.check(self.bench)
        for fid in sorted(self.ledger.damaged):
            self._repair(fid)
        self.do_compact_all()
        self.ledger.check(self.bench)
        self._crash(0, 0)
        self.do_lose_index(0)

    def _faultless(self) -> None:
        disk = self.bench.disk
        disk.fail_syncs = disk.fail_directory_syncs = 0

    # --- writing ----------------------------------------------------------------------------------

    def do_nothing(self) -> None:
        """What Hypothesis shortens a history with."""

    def do_put(self, count: int, size: int) -> None:
        length = SIZES[size % len(SIZES)]
        self._write(*(item(fid, length=length) for fid in self._new_fids(1 + count % 4)))

    def do_batch(self, which: int, size: int) -> None:
        """New fragments, one of which dies in the same batch, and a delete of another."""
        length = SIZES[size % len(SIZES)]
        first, second = self._new_fids(2)
        items: list[StoreItem | DeleteItem] = [
            item(first, length=length),
            item(second, length=length),
            delete(first),
        ]
        victim = self._pick(which)
        if victim is not None:
            items.insert(which % 3, delete(victim))
        self._write(*items)

    def do_again(self, which: int) -> None:
        """The same bytes once more: the same answer.  For a fid that died lately: a conflict."""
        young = sorted(fid for fid, at in self.ledger.dead.items() if self.now_ms - at < KEEP_S * 1000)
        if young and which % 2:
            self._expect(item(young[which // 2 % len(young)]), "CONFLICT")
            return
        fid = self._pick(which)
        if fid is not None:
            self._expect(item(fid, length=self.ledger.live[fid]), "")

    def do_other_bytes(self, which: int) -> None:
        fid = self._pick(which)
        if fid is not None and fid not in self.ledger.damaged:
            self._expect(item(fid, b"other bytes"), "CONFLICT")

    def do_delete(self, which: int) -> None:
        fid = self._pick(which)
        if fid is not None:
            self._write(delete(fid))

    def do_delete_some(self, which: int, count: int) -> None:
        live = sorted(self.ledger.live)
        first = which % max(1, len(live))
        victims = live[first : first + 1 + count % 8]
        if victims:
            self._write(*map(delete, victims))

    def do_abort(self) -> None:
        """A delete that comes before its store."""
        (fid,) = self._new_fids(1)
        self._write(delete(fid))

    def _expect(self, work: StoreItem, code: str) -> None:
        if self._is_broken() or work.fid in self.ledger.maybe_dead or work.fid in self.ledger.in_flight:
            return
        (found,) = self._write(work)
        # A fragment that is known to be damaged is written once more, which may fail.
        allowed = [code, "DISK_FAILED", "NO_SPACE"] if work.fid in self.ledger.damaged else [code]
        assert found in allowed, f"fragment {work.fid}: {found!r}, not {code!r}"
        self.happened[f"again: {found or 'acknowledged'}"] += 1

    def _write(self, *items: StoreItem | DeleteItem) -> list[str]:
        files = self._data_files()
        with self._lane("write"):
            codes = self.ledger.write(self.bench, *items)
        for work, code in zip(items, codes, strict=True):
            verb = "put" if isinstance(work, StoreItem) else "delete"
            self.happened[f"{verb}: {code or 'acknowledged'}"] += 1
        self.happened["rolled to a new file"] += len(self._data_files() - files)
        return codes

    def _pick(self, which: int) -> int | None:
        live = sorted(self.ledger.live.keys() - self.ledger.in_flight)
        return live[which % len(live)] if live else None

    def _new_fids(self, count: int) -> list[int]:
        first = self._next_fid
        self._next_fid += count
        return list(range(first, first + count))

    def _data_files(self) -> set[str]:
        return {name for name in self.bench.disk.files if name.endswith(".data")}

    # --- reading ----------------------------------------------------------------------------------

    def do_get(self, which: int) -> None:
        ledger = self.ledger
        fids = sorted({*ledger.live, *ledger.dead, *ledger.maybe_live} - ledger.in_flight)
        if fids:
            with self._lane("read"):
                ledger.check_content(self.bench, fids[which % len(fids)])
            self.happened["get"] += 1

    def do_get_range(self, which: int, at: int) -> None:
        fid = self._pick(which)
        if fid is None or fid in self.ledger.damaged or fid in self.ledger.maybe_dead:
            return
        length = self.ledger.live[fid]
        start = at % (length + 1)
        part = (length - start) * (at % 5) // 4
        result = self.bench.read(fid, start, part)
        assert result.error is None, result.error
        assert bytes(result.payload) == payload_of(fid, length)[start : start + part]
        self.happened["ranged get"] += 1

    # --- upkeep, one job at a time ------------------------------------------------------------------

    def do_compact(self, jobs: int, all_garbage: int) -> None:
        for _ in range(1 + jobs % 5):
            self._compact_job(CompactJob(1 + jobs * 700 % 20_000, bool(all_garbage % 2)))

    def do_compact_all(self) -> None:
        for _ in range(10_000):
            done = self._compact_job(CompactJob(2**20, True))
            if done.idle and self._follow is None:
                return
        raise AssertionError("compaction never ends")

    def _compact_job(self, job: CompactJob) -> CompactDone:
        files = self._data_files()
        step, lane = (
            ("copy", "background") if self._follow is None else (self._follow.step, self._follow.lane)
        )
        with self._lane(lane):
            done = self.bench.engine.run(self._follow or job)
        assert isinstance(done, CompactDone)
        self.happened[f"compaction: {'idle' if done.idle else step}"] += 1
        self._follow = done.follow
        self.happened["data files removed by compaction"] += len(files - self._data_files())
        return done

    def do_scrub(self, jobs: int) -> None:
        for _ in range(1 + jobs % 20):
            self._scrub_job(ScrubJob(1 + jobs * 100))

    def do_scrub_all(self) -> None:
        self._scrub_pass()

    def _scrub_pass(self) -> list[ScrubDone]:
        found = [self._scrub_job(ScrubJob(2**20, anew=True))]
        while found[-1].scrub.running and not found[-1].idle:
            found.append(self._scrub_job(ScrubJob(2**20)))
        return found

    def _scrub_job(self, job: ScrubJob) -> ScrubDone:
        doubtful = self.ledger.damaged | self.ledger.maybe_dead.keys()
        with self._lane("background"):
            done = self.bench.engine.run(job)
        assert isinstance(done, ScrubDone)
        self.happened["scrub: idle" if done.idle else "scrub: slice"] += 1
        assert {entry.fid for entry in done.damaged} <= doubtful, done.damaged
        self.happened["scrub: damaged fragments found"] += len(done.damaged)
        if done.follow is not None:
            self.happened["scrub: tombstones dropped"] += len(done.follow.fids)
            if "write" not in self._running:
                with self._lane("write"):
                    self.bench.engine.run(done.follow)
        return done

    # --- the world --------------------------------------------------------------------------------

    def do_wait(self, seconds: int) -> None:
        self.now_ms += (seconds % (3 * KEEP_S)) * 1000

    def do_crash(self, variant: int, chance: int) -> None:
        self._crash(variant, chance)

    def do_cut(self, steps: int, variant: int, chance: int) -> None:
        """The power goes before so many more changes of the disk."""
        self._cut_in, self._variant = 1 + steps % (1 + variant % 30), (variant // 30, chance)

    def do_kill(self) -> None:
        self.happened["kill"] += 1
        self._reopen(self.bench.disk, self.bench.home.crash(self.bench.home.unsynced))

    def do_close(self) -> None:
        if self._is_broken():
            self.do_kill()
            return
        self.bench.engine.close()
        self.happened["clean end"] += 1
        self._reopen(self.bench.disk.crash(), self.bench.home.crash())

    def do_lose_index(self, chance: int) -> None:
        """Killed or cut, and its index is gone."""
        self.happened["index lost"] += 1
        disk = self.bench.disk.crash(keep_some(random.Random(chance))) if chance % 2 else self.bench.disk
        self._reopen(disk, MemoryIndexHome())

    def do_damage_index(self, fid: int) -> None:
        """Damage is noticed when it is first read, condemned, and the next start makes the index anew."""
        home = self.bench.home
        home.lost = True
        assert self.bench.content(fid) == "DISK_FAILED"
        assert self.bench.engine.status().restart_reason
        assert home.condemned
        home.lost = False
        self.happened["index condemned"] += 1
        created = home.created
        self._reopen(self.bench.disk, home.crash(home.unsynced))
        assert self.bench.home.created > created

    def do_fill(self, room: int) -> None:
        disk = self.bench.disk
        disk.capacity = disk.capacity - disk.free_bytes() + room % 30_000

    def do_free(self) -> None:
        self.bench.disk.capacity = PLENTY_BYTES

    def do_short_write(self, count: int) -> None:
        """A write finds room for a part."""
        disk = self.bench.disk
        disk.short_write_bytes = count * 97 % 10_000
        try:
            self.do_put(count, count // 4)
        finally:
            disk.short_write_bytes = None

    def do_fail_sync(self, kept: int) -> None:
        """The next sync fails, whoever asks for it, and the ones after it pretend that all is well."""
        self.bench.disk.fail_syncs = 1
        self.bench.disk.fail_sync_keep = keep_some(random.Random(kept)) if kept % 2 else keep_nothing

    def do_fail_directory_sync(self) -> None:
        self.bench.disk.fail_directory_syncs = 1

    def do_fail_put(self, which: int) -> None:
        """The index refuses for a while."""
        home = self.bench.home
        home.fail_puts, home.full = bool(which % 2), not which % 2
        try:
            if which % 3:
                self.do_delete(which)
            else:
                self.do_compact(which, 1)
        finally:
            home.fail_puts = home.full = False

    def _is_broken(self) -> bool:
        return bool(self.bench.engine.status().read_only_reason)

    # --- rot --------------------------------------------------------------------------------------

    def do_flip(self, which: int, place: int) -> None:
        """One bit of a record goes bad, and stays so until somebody repairs it."""
        fid = self._pick(which)
        if fid is None or fid in self.ledger.maybe_dead or fid in self.ledger.damaged:
            return
        if self._cut_in is not None or not self._witnessed():
            return
        self._beside = None
        self._flip(fid, place)
        # A write behind it proves that the record was sound once; without one it might be torn.
        if self._witnessed():
            self.ledger.damaged.add(fid)
            self.happened["bit flipped"] += 1
        else:
            self._flip(fid, place)

    def do_repair(self, which: int) -> None:
        damaged = sorted(self.ledger.damaged - self.ledger.in_flight)
        if damaged:
            self._repair(damaged[which % len(damaged)])

    def do_rot_tombstone(self, which: int) -> None:
        """A damaged tombstone is found by the scrub, and written anew."""
        dead = sorted(self.ledger.dead)
        fid = dead[which % len(dead)] if dead else 0
        self._beside = None
        entry = self.bench.engine._index.get(fid)
        if entry is None or not entry.is_tombstone or self._cut_in is not None:
            return
        if which % 3 or not self._witnessed():
            return
        self._flip(fid, which)
        lost = [lost for done in self._scrub_pass() for lost in done.lost_tombstones]
        if lost == [fid] and self._write(delete(fid)) == [""] and self._witnessed():
            self.happened["tombstone rotted and written anew"] += 1
            return
        assert lost in ([], [fid]), lost
        if self.bench.engine._index.get(fid) == entry:
            self._flip(fid, which)

    def _witnessed(self) -> bool:
        """Whether one more write succeeds."""
        (witness,) = self._new_fids(1)
        return not self._is_broken() and self._write(item(witness, length=1)) == [""]

    def _flip(self, fid: int, place: int) -> None:
        entry = self.bench.engine._index.get(fid)
        assert entry is not None
        # Headers are small; flip them as often as payloads.
        length = RECORD_HEADER_BYTES + (entry.length if place % 2 and not entry.is_tombstone else 0)
        self.bench.disk.flip(file_name(entry.file), entry.offset + place // 2 % length, place % 8)

    def _repair(self, fid: int) -> None:
        length = self.ledger.live[fid]
        content = self.bench.content(fid, length)
        if content in DAMAGED and self._write(item(fid, length=length)) == [""]:
            self.ledger.damaged.discard(fid)
            self.ledger.check_content(self.bench, fid)
            self.happened["repair"] += 1

    # --- two lanes at once ------------------------------------------------------------------------

    def do_beside(self, countdown: int, what: int, which: int) -> None:
        """In the middle of a job to come, a job of another lane runs."""
        kinds = ("delete", "put", "again", "get", "repair", "compact", "scrub")
        self._beside = 1 + countdown % 25, kinds[what % len(kinds)], which

    @contextmanager
    def _lane(self, lane: str) -> Iterator[None]:
        self._running.append(lane)
        try:
            yield
        finally:
            if self._running:
                self._running.pop()

    def _on_look(self, what: str) -> None:
        if self._beside is None or len(self._running) != 1:
            return
        countdown, kind, which = self._beside
        if not self._may_run_beside(kind, self._running[0]):
            return
        self._beside = (countdown - 1, kind, which) if countdown > 1 else None
        if self._beside is None:
            self._run_beside(kind, which)
            self.happened[f"beside {self._running[0]}: {kind}"] += 1

    def _may_run_beside(self, kind: str, lane: str) -> bool:
        if kind == "get":
            return True
        if kind == "compact":
            return lane == "write" and self._follow is None
        return lane == ("write" if kind == "scrub" else "background")

    def _run_beside(self, kind: str, which: int) -> None:
        if kind == "compact":
            self._compact_job(CompactJob(1 + which * 700 % 20_000, True))
        elif kind == "scrub":
            self.do_scrub(which % 4)
        elif kind == "put":
            self.do_put(which, which // 4)
        else:
            getattr(self, f"do_{kind}")(which)

    # --- starts -----------------------------------------------------------------------------------

    def _crash(self, variant: int, chance: int) -> None:
        """A power cut; ``variant`` says what survives of what was not synced."""
        rng = random.Random(chance)
        ways = ways_to_crash(rng)
        home = self.bench.home
        puts = rng.choice([0, home.unsynced, rng.randint(0, home.unsynced)])
        self.happened["power cut"] += 1
        self._reopen(ways[variant % len(ways)](self.bench.disk), home.crash(puts))

    def _reopen(self, disk: FakeDisk, home: MemoryIndexHome) -> None:
        """Start on this; the power may go or the disk fail on the way; then it is tried again."""
        self._follow = self._beside = None
        may_rebuild = not home.exists or home.lost or home.condemned or home.durable_watermark is None
        created = home.created
        try:
            self.bench = self._open(disk, home)
        except PowerCut:
            self.happened["power cut during a start"] += 1
            rng = random.Random(self._variant[1])
            self._reopen(disk.crash(keep_some(rng)), home.crash(rng.randint(0, home.unsynced)))
            return
        except DiskFailed:
            self.happened["start failed by the disk"] += 1
            self._reopen(disk, home.crash(home.unsynced))
            return
        self.happened["start"] += 1
        self.happened["index rebuilt"] += home.created - created
        assert may_rebuild or home.created == created, self.bench.engine.notes
        self._after_start()

    def _after_start(self) -> None:
        cut, self._cut_in = self._cut_in, None
        self.ledger.settle(self.bench)
        self.ledger.check_rebuild(self.bench)
        self._cut_in = cut

    def _open(self, disk: FakeDisk, home: MemoryIndexHome) -> Bench:
        disk.step = home.step = self._on_step
        disk.glance = home.glance = self._on_look
        return Bench(disk, home, SETTINGS, lambda: self.now_ms)

    def _on_step(self, what: str) -> None:
        if self._cut_in is not None:
            self._cut_in -= 1
            if self._cut_in <= 0:
                self._cut_in = None
                raise PowerCut(what)
        self._on_look(what)


def _kind(step: str) -> str:
    """A step without the number of its file."""
    words = step.split()
    return " ".join([*(word for word in words if not word[0].isdigit()), *_suffix(words[-1])])


def _suffix(name: str) -> list[str]:
    return ["(of compaction)"] if name.endswith(".new") else []
