r"""Work that operators give to the master: begun, looked at, ended, and remembered over restarts.

    StartTask --> running --> done, or failed
                     \--> cancelled

A running task is looked at once a second; ``task_kinds`` says what each kind does.  Starting what runs
already finds the running task, so every command can be repeated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from fabric.errors import Refused
from fabric.master import keys
from fabric.master.delta import DeltaStore
from fabric.master.journal import After
from fabric.master.records import TaskRecord, decode_task, encode
from fabric.master.store import Reader
from fabric.master.task_kinds import KINDS, Cluster, check_request
from fabric.node.effects import Effect
from fabric.wire.messages import FragmentRef, Moved, StartTask, TaskStarted, TaskStatus

RUNNING, DONE, FAILED, CANCELLED = "running", "done", "failed", "cancelled"
LOOK_S = 1.0
KEPT = 100
"""Tasks remembered; the oldest that have ended go."""
PACE_AFTER_S = 2.0
"""So much of a task must have been seen before its end is estimated."""

Note = Callable[[str, str], None]
"""Tells an event: about which task, what."""


class _Seen(msgspec.Struct):
    """Of a running task, since this life of the master looks at it."""

    at: float
    done: int


class Tasks:
    """All tasks.  ``note`` takes events."""

    def __init__(self, cluster: Cluster, bytes_per_s: int, note: Note) -> None:
        """``bytes_per_s`` is the default limit for moving fragments."""
        self._cluster = cluster
        self._bytes_per_s = bytes_per_s
        self._note = note
        self._records: dict[int, TaskRecord] = {}
        self._seen: dict[int, _Seen] = {}
        self._look_at: float | None = None

    def load(self, store: Reader, now: float) -> None:
        """Take up what an earlier life of the master was asked for."""
        for key, value in store.scan(keys.TASKS, keys.after_all(keys.TASKS), 10 * KEPT):
            record = decode_task(value)
            self._records[keys.last_number(key)] = record
            self._seen[record.task] = _Seen(now, record.done)
        self._follow(now)

    # --- what operators ask -----------------------------------------------------------------------

    def start(
        self, delta: DeltaStore, request: StartTask, now: float, wall_ms: int
    ) -> tuple[TaskStarted, After]:
        """Begin a task, or find the one that runs.  Raises Refused, BadRequest."""
        check_request(request)
        running = self._find(request)
        if running is not None:
            if request.bytes_per_s and not request.dry_run:
                running.bytes_per_s = request.bytes_per_s
                self._save(delta, running)
            return TaskStarted(self.status(running, now), False, []), self._followed([])
        kind = KINDS[request.kind]
        record = TaskRecord(
            task=0 if request.dry_run else max(self._records, default=0) + 1,
            kind=request.kind,
            group=request.group,
            server=request.server,
            replacement=request.replacement,
            state=RUNNING,
            reason="",
            started_at_ms=wall_ms,
            ended_at_ms=0,
            total=0,
            done=0,
            bytes_per_s=request.bytes_per_s,
        )
        plan = kind.plan(self._cluster, request)
        if request.dry_run:
            return TaskStarted(self.status(record, now), False, plan), self._followed([])
        after = kind.begin(self._cluster, delta, record)
        self._records[record.task] = record
        self._seen[record.task] = _Seen(now, 0)
        self._save(delta, record)
        self._forget_old(delta)
        self._note(f"task {record.task}", f"{_title(record)} begins: {'; '.join(plan)}")
        return TaskStarted(self.status(record, now), True, plan), self._followed([after])

    def cancel(self, delta: DeltaStore, task: int, now: float, wall_ms: int) -> tuple[TaskStarted, After]:
        """End a running task; open a group again that was drained.  Raises Refused."""
        record = self._records.get(task)
        if record is None:
            raise Refused(f"there is no task {task}; see `fabric admin tasks --all`")
        is_open = record.state == RUNNING or (record.kind == "drain-group" and record.state == DONE)
        if not is_open:
            return TaskStarted(self.status(record, now), False, []), self._followed([])
        after = KINDS[record.kind].cancel(self._cluster, delta, record)
        self._end(record, CANCELLED, "by an operator", wall_ms)
        self._save(delta, record)
        return TaskStarted(self.status(record, now), True, []), self._followed([after])

    def statuses(self, now: float) -> list[TaskStatus]:
        """All, by number."""
        return [self.status(record, now) for _, record in sorted(self._records.items())]

    def status(self, record: TaskRecord, now: float) -> TaskStatus:
        """One task as operators see it."""
        return TaskStatus(
            task=record.task,
            kind=record.kind,
            group=record.group,
            server=record.server,
            replacement=record.replacement,
            state=record.state,
            reason=record.reason,
            started_at_ms=record.started_at_ms,
            ended_at_ms=record.ended_at_ms,
            total=record.total,
            done=min(record.done, record.total),
            unit=KINDS[record.kind].unit,
            bytes_per_s=record.bytes_per_s,
            left_ms=self._left_ms(record, now),
        )

    # --- what others ask --------------------------------------------------------------------------

    def audit_for(self, group: int) -> int:
        """Number of the audit that servers of a group are to make; 0: none."""
        return max(
            (record.audit for record in self._running() if record.audit and record.group in (0, group)),
            default=0,
        )

    def on_relocated(
        self, delta: DeltaStore, moved: Sequence[Moved], left: Sequence[FragmentRef]
    ) -> Callable[[], None]:
        """These were moved, of which objects named ``left`` until now; call what is returned when durable."""
        done = [move for move in moved if move.source in left]
        self._count(delta, done)

        def on_durable() -> None:
            self._cluster.moves.moved([move.source for move in done], [move.target for move in done])
            self._set_sources()

        return on_durable

    # --- time -------------------------------------------------------------------------------------

    def due_at(self) -> float | None:
        """When ``look`` is next due."""
        return self._look_at

    def look(self, delta: DeltaStore, now: float, wall_ms: int) -> Callable[[float], None]:
        """See how far running tasks are.  Call what is returned once the delta is durable."""
        for record in list(self._running()):
            before = msgspec.structs.replace(record)
            seen = self._seen[record.task]
            progress = KINDS[record.kind].progress(self._cluster, record, now, seen.at)
            record.total, record.done, record.reason = progress.total, progress.done, progress.reason
            if progress.end:
                self._end(record, progress.end, progress.reason, wall_ms)
            if record != before:
                self._save(delta, record)
        self._look_at = None
        return self._follow

    # --- parts ------------------------------------------------------------------------------------

    def _running(self) -> list[TaskRecord]:
        return [record for record in self._records.values() if record.state == RUNNING]

    def _find(self, request: StartTask) -> TaskRecord | None:
        """The running task that does what is asked for."""
        for record in self._running():
            if record.kind != request.kind:
                continue
            if record.kind in ("drain-group", "repair", "gc", "rebalance"):
                same = record.group == request.group
            else:
                same = record.server == request.server and request.replacement in ("", record.replacement)
            if same:
                return record
        return None

    def _count(self, delta: DeltaStore, moved: Sequence[Moved]) -> None:
        sizes: Counter[tuple[int, int]] = Counter()
        for move in moved:
            sizes[move.source.group, move.target.group] += move.source.length
        for record in self._running():
            size = 0
            if record.kind == "drain-group":
                size = sum(size for (source, _), size in sizes.items() if source == record.group)
            for shift in record.shifts:
                part = sizes[shift.source, shift.target]
                shift.left_bytes -= part
                size += part
            if size:
                record.done += size
                self._save(delta, record)

    def _end(self, record: TaskRecord, state: str, reason: str, wall_ms: int) -> None:
        record.state, record.reason, record.ended_at_ms = state, reason, wall_ms
        record.audit = 0
        self._note(f"task {record.task}", f"{_title(record)} is {state}: {reason}")

    def _save(self, delta: DeltaStore, record: TaskRecord) -> None:
        if record.task:
            delta.put(keys.task_key(record.task), encode(record))

    def _forget_old(self, delta: DeltaStore) -> None:
        ended = [number for number, record in sorted(self._records.items()) if record.state != RUNNING]
        for number in ended[: max(0, len(self._records) - KEPT)]:
            del self._records[number]
            self._seen.pop(number, None)
            delta.delete(keys.task_key(number))

    def _followed(self, afters: Sequence[After | None]) -> After:
        def on_durable(now: float) -> list[Effect]:
            effects = [effect for after in afters if after is not None for effect in after(now)]
            self._follow(now)
            return effects

        return on_durable

    def _follow(self, now: float) -> None:
        """Look again, and have moved what the tasks want moved."""
        self._look_at = now + LOOK_S if self._running() else None
        self._set_sources()

    def _set_sources(self) -> None:
        """A drained group goes on being emptied: a late commit may name a fragment that was stored before."""
        drained = [group.group for group in self._cluster.groups.groups.values() if group.draining]
        shifts = [shift for record in self._running() for shift in record.shifts if shift.left_bytes > 0]
        self._cluster.moves.set_sources(
            [(group, 0, 0) for group in drained]
            + [
                (shift.source, shift.target, shift.left_bytes)
                for shift in shifts
                if shift.source not in drained
            ]
        )
        limits = [record.bytes_per_s for record in self._running() if record.bytes_per_s]
        self._cluster.moves.bytes_per_s = min(limits, default=self._bytes_per_s)

    def _left_ms(self, record: TaskRecord, now: float) -> int:
        seen = self._seen.get(record.task)
        if record.state != RUNNING or seen is None:
            return 0 if record.state != RUNNING else -1
        gained, took_s = record.done - seen.done, now - seen.at
        if gained <= 0 or took_s < PACE_AFTER_S:
            return -1
        return int(1000 * took_s / gained * max(0, record.total - record.done))


def _title(record: TaskRecord) -> str:
    what = {
        "drain-group": f"drain of group {record.group}",
        "rebalance": "rebalance",
        "add-node": f"adding {record.server} to group {record.group}",
        "replace-node": f"replacing {record.server} by {record.replacement}",
        "drain-node": f"drain of {record.server}",
        "repair": f"repair of group {record.group}" if record.group else "repair of all groups",
        "gc": "search for orphans",
    }
    return what[record.kind]
