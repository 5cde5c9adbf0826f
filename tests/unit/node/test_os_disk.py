"""How the real disk writes: in parts, each on its way to the disk while the next is being copied.

What it must promise is in ``tests/contract/test_disk.py``.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.errors import DiskFailed
from fabric.node import os_disk
from fabric.node.disk import Buffer
from fabric.node.os_disk import PART_BYTES, OsDisk
from fabric.node.pieces import BUFFERS_PER_CALL_MAX, PIECE_BYTES
from fabric.settings import KIB, MIB


class Calls:
    """What the system was asked for, in order; everything is done too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[tuple[str, int, int]] = []
        pwritev, fdatasync = os.pwritev, os.fdatasync

        def writing(fd: int, buffers: Sequence[Buffer], offset: int) -> int:
            written = pwritev(fd, buffers, offset)
            self.made.append(("write", offset, written))
            return written

        def beginning(fd: int, offset: int, length: int, flags: int) -> int:
            self.made.append(("begin", offset, length))
            return -1  # Nothing may hang on it.

        def syncing(fd: int) -> None:
            self.made.append(("sync", 0, 0))
            fdatasync(fd)

        self.yields = 0

        def yielding() -> None:
            self.yields += 1

        monkeypatch.setattr(os, "pwritev", writing)
        monkeypatch.setattr(os, "sched_yield", yielding)
        monkeypatch.setattr(os, "fdatasync", syncing)
        monkeypatch.setattr(os_disk, "_sync_file_range", beginning)

    def joined(self) -> list[tuple[str, int, int]]:
        """With writes that follow each other as one."""
        made: list[tuple[str, int, int]] = []
        for what, offset, size in self.made:
            if what == "write" and made and made[-1][0] == "write" and sum(made[-1][1:]) == offset:
                made[-1] = (what, made[-1][1], made[-1][2] + size)
            else:
                made.append((what, offset, size))
        return made


def test_the_disk_works_on_one_fragment_while_the_next_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = OsDisk(tmp_path).create("a")
    header, payload = bytes(72), random.Random(1).randbytes(4 * MIB)
    record = len(header) + len(payload)
    calls = Calls(monkeypatch)

    file.pwritev([header, memoryview(payload), header, memoryview(payload)], 4096)
    file.fdatasync()

    assert calls.joined() == [
        ("write", 4096, record),
        ("begin", 4096, record),
        ("write", 4096 + record, record),
        ("begin", 4096 + record, record),
        ("sync", 0, 0),
    ]
    assert max(size for what, _, size in calls.made if what == "write") == PIECE_BYTES
    assert calls.yields >= record // PIECE_BYTES, "others may run between two pieces"
    assert file.pread(2 * record, 4096) == (header + payload) * 2


def test_small_writes_are_one_call_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = OsDisk(tmp_path).create("a")
    calls = Calls(monkeypatch)

    file.pwritev([b"x" * KIB] * 64, 0)

    assert calls.made == [("write", 0, 64 * KIB)]


@pytest.mark.parametrize("absent", [True, False])
def test_the_hint_may_be_unknown_to_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: bool
) -> None:
    if absent:
        monkeypatch.setattr(os_disk, "_sync_file_range", None)
    file = OsDisk(tmp_path).create("a")
    payload = random.Random(2).randbytes(PART_BYTES)

    file.pwritev([payload, payload], 8)
    file.fdatasync()

    assert file.pread(2 * PART_BYTES, 8) == payload * 2


def test_a_hint_for_a_file_that_cannot_be_synced_hides_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = OsDisk(tmp_path).create("a")
    Calls(monkeypatch)

    def failing(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", failing)

    file.pwritev([bytes(PART_BYTES)] * 2, 0)
    with pytest.raises(DiskFailed, match="Input/output"):
        file.fdatasync()


LENGTHS = st.lists(st.sampled_from([0, 1, 72, KIB, MIB, PART_BYTES - 1, PART_BYTES, 4 * MIB]), max_size=40)


@given(LENGTHS, st.integers(0, 2 * BUFFERS_PER_CALL_MAX))
def test_parts_are_the_write_in_order_and_none_is_too_much_for_a_call(lengths: list[int], small: int) -> None:
    shared = memoryview(bytes(4 * MIB))
    buffers: list[Buffer] = [shared[:length] for length in [*lengths, *[1] * small]]

    parts = list(os_disk._parts(buffers))

    assert [len(buffer) for part in parts for buffer in part] == [len(buffer) for buffer in buffers]
    assert all(0 < len(part) <= BUFFERS_PER_CALL_MAX for part in parts)
    for part in parts[:-1]:
        size = sum(map(len, part))
        assert size >= PART_BYTES or len(part) == BUFFERS_PER_CALL_MAX
        assert size - len(part[-1]) < PART_BYTES
