"""Ways to break the fabric on purpose: each must be caught, or the checkers prove nothing.

A mutation replaces a piece of real code for as long as it lasts.  ``seeds`` is how many seeds, from 1 on, it
may take to be caught.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import msgspec

from fabric.chunk import recovery, writer
from fabric.chunk.data_file import DataFile
from fabric.chunk.engine import Engine
from fabric.chunk.jobs import CompareDone, CompareJob, StoreItem
from fabric.chunk.record import RECORD_HEADER_BYTES, SUPERBLOCK_BYTES
from fabric.chunk.standing import Standing
from fabric.driver.name_cache import NameCache
from fabric.master.catalog import Catalog
from fabric.master.deletion import Deletion
from fabric.master.fids import FidLeases
from fabric.master.groups import Groups
from fabric.master.watchers import Watchers
from fabric.proxy.together import Round
from fabric.proxy.upload import Upload


class Mutation(msgspec.Struct, frozen=True):
    """One way to break it."""

    name: str
    patches: list[tuple[Any, str, Any]]
    seeds: int
    promises: tuple[str, ...]
    """One of these is seen to be broken."""
    faults: tuple[str, ...] = ()
    """Kinds of faults that it shows under; none: any."""

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The code is broken as long as this lasts."""
        patchers = [mock.patch.object(target, name, broken) for target, name, broken in self.patches]
        for patcher in patchers:
            patcher.start()
        try:
            yield
        finally:
            for patcher in patchers:
                patcher.stop()


_append = DataFile.append


def _append_without_sync(self: DataFile, buffers: Any, length: int) -> None:
    with mock.patch.object(DataFile, "_sync", lambda self: None):
        _append(self, buffers, length)


_start_upload = Upload.start


def _start_without_the_last(self: Upload, now: float) -> Any:
    effects = _start_upload(self, now)
    if effects and self._group is not None and len(self._members) > 1:
        skipped = self._members[-1]
        self._missing.discard(skipped.server)
        return [e for e in effects if getattr(e, "endpoint", "") != skipped.endpoint]
    return effects


_start_round = Round.start


def _start_round_without_the_last(self: Round, now: float) -> Any:
    effects = _start_round(self, now)
    skipped = self._group.members[-1]
    if len(self._group.members) > 1:
        self._missing.discard(skipped)
        endpoint = self._context.view.nodes[skipped].endpoint
        return [effect for effect in effects if getattr(effect, "endpoint", "") != endpoint]
    return effects


def _refusal_without_epoch(self: Standing, group: int, epoch: int, now: float) -> Any:
    return _refusal(self, group, self.epoch, now)


_refusal = Standing.refusal


def _all_alive(self: Groups, group: Any) -> bool:
    return len(group.members) == group.replicas and all(node.alive for node in self.nodes_of(group))


def _load_without_high_water(self: FidLeases, store: Any, now: float) -> None:
    _load_fids(self, store, now)
    self.high_water = max(1, self.high_water - 40)


_load_fids = FidLeases.load


def _read_unchecked(self: DataFile, fid: int, offset: int, length: int, checksum: int) -> memoryview:
    return memoryview(self.pread(RECORD_HEADER_BYTES + length, offset))[RECORD_HEADER_BYTES:]


_compare = Engine._compare


def _expand_to_nothing(self: Deletion, delta: Any, now: float) -> Any:
    with mock.patch.object(self, "_members_of", lambda group: ()):
        return _expand(self, delta, now)


_expand = Deletion.expand


def _relocate_and_deny(self: Catalog, delta: Any, moved: Any, now: float) -> Any:
    return msgspec.structs.replace(_relocate(self, delta, moved, now), named=[False] * len(moved))


_relocate = Catalog.relocate


def _resurrecting(self: Engine, job: CompareJob) -> CompareDone:
    done = _compare(self, job)
    dead = set(done.dead)
    return msgspec.structs.replace(
        done, missing=[*done.missing, *(entry for entry in job.entries if entry.fid in dead)], dead=[]
    )


def _write_over_tombstones(
    self: Any, item: Any, position: int, records: Any, order: Any, reason: str
) -> None:
    old = self._index.get(item.fid)
    if isinstance(item, StoreItem) and item.fid not in records and old is not None and old.is_tombstone:
        record = writer._Record(item, old, len(item.payload), item.checksum, [position])
        records[item.fid] = record
        order.append(record)
    else:
        _plan(self, item, position, records, order, reason)


_plan = writer.Writer._plan


def _cut_at_first_damage(items: Any, sound_to: int) -> Iterator[Any]:
    for item in items:
        if not recovery._is_sound(item):
            return
        yield item


def _read_active_from_the_start(self: Any, data_file: DataFile, start: int, sound_to: int) -> None:
    _read_active(self, data_file, SUPERBLOCK_BYTES, SUPERBLOCK_BYTES)


_read_active = recovery._Recovery._read_active


def _answer_at_once(self: Watchers, effects: list[Any], now: float) -> list[Any]:
    told = _hold(self, [], now)
    return [*told, *effects]


_hold = Watchers._hold


_KILLS = ("kill chunk", "kill master", "power cut")

MUTATIONS = [
    Mutation("ACK before fsync", [(DataFile, "append", _append_without_sync)], 2, ("P1",)),
    Mutation("skip one replica", [(Upload, "start", _start_without_the_last)], 2, ("P1",)),
    Mutation(
        "skip one replica of several fragments",
        [(Round, "start", _start_round_without_the_last)],
        10,
        ("P1",),
    ),
    Mutation("RW on heartbeat", [(Groups, "_all_equal", _all_alive)], 5, ("P6",), ("replace disk",)),
    Mutation(
        "no epoch check",
        [(Standing, "refusal", _refusal_without_epoch)],
        15,
        ("P6",),
        ("cut from proxy", "read-only"),
    ),
    Mutation(
        "reuse a fid after a crash", [(FidLeases, "load", _load_without_high_water)], 10, ("P3",), _KILLS
    ),
    Mutation(
        "truncate at the first bad record",
        [
            (recovery, "without_torn_end", _cut_at_first_damage),
            (recovery._Recovery, "_read_active", _read_active_from_the_start),
        ],
        40,
        ("P1", "P6"),
        ("rot", "kill chunk"),
    ),
    Mutation(
        "commit after the lease", [(FidLeases, "is_live", lambda self, fid, now: True)], 20, ("P3",), ("end",)
    ),
    Mutation("serve without checksum", [(DataFile, "read", _read_unchecked)], 20, ("P5",), ("rot", "stop")),
    Mutation(
        "resurrect a delete",
        [(Engine, "_compare", _resurrecting), (writer.Writer, "_plan", _write_over_tombstones)],
        20,
        ("P6", "liveness"),  # replicas that bring back what others delete never become equal
    ),
    Mutation(
        "free what a commit may still name",
        [(FidLeases, "move_horizon", lambda self, delta, now: self.high_water)],
        5,
        ("P1", "P4", "P6", "P7"),
        ("audit or rebalance",),
    ),
    Mutation(
        "find no orphans",
        [(FidLeases, "move_horizon", lambda self, delta, now: 0)],
        30,
        ("P10",),
        ("kill client", "kill mid-commit", "audit or rebalance"),
    ),
    Mutation(
        "deny a move that was made",
        [(Catalog, "relocate", _relocate_and_deny)],
        5,
        ("P1", "P4", "P6", "P7"),
        ("drain group",),
    ),
    Mutation("confirm before all caches know", [(Watchers, "_hold", _answer_at_once)], 5, ("P2",)),
    Mutation(
        "use a name behind its lease",
        [(NameCache, "find", lambda self, path, now: self._names.get(path))],
        20,
        ("P2",),
        ("stop", "isolate"),
    ),
    Mutation("lose the delete list", [(Deletion, "expand", _expand_to_nothing)], 5, ("P6", "P10")),
]
