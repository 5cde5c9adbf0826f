"""The disk contract, over the real disk and the fake one that crash tests use."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fabric.errors import DiskFailed, NoSpace
from fabric.node.disk import Disk
from fabric.node.os_disk import OsDisk, write_durably
from tests.unit.chunk.fake_disk import FakeDisk


@pytest.fixture(params=["os", "fake"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    if request.param == "fake":
        yield FakeDisk()
        return
    real = OsDisk(tmp_path / "deep" / "disk")
    yield real
    real.close()


def test_what_is_written_is_read(disk: Disk) -> None:
    file = disk.create("a")
    file.pwritev([b"hello ", memoryview(b"wide "), b"world"], 3)
    assert file.pread(100, 0) == b"\0\0\0hello wide world"
    assert file.pread(4, 9) == b"wide"
    assert file.pread(4, 1000) == b""
    assert file.size() == 19
    file.close()


def test_more_buffers_than_the_system_takes_at_once(disk: Disk) -> None:
    file = disk.create("a")
    buffers = [bytes([number % 251]) * (number % 7) for number in range(5000)]
    file.pwritev(buffers, 8)
    assert file.pread(10**6, 8) == b"".join(buffers)
    file.close()


def test_allocated_space_is_zeros_and_keeps_what_is_there(disk: Disk) -> None:
    file = disk.create("a")
    file.pwritev([b"x" * 10], 0)
    file.allocate(5, 100)
    assert file.size() == 105
    assert file.pread(200, 0) == b"x" * 10 + bytes(95)
    file.fdatasync()
    file.close()


def test_truncating_drops_and_grows_with_zeros(disk: Disk) -> None:
    file = disk.create("a")
    file.pwritev([b"x" * 100], 0)
    file.truncate(10)
    file.truncate(20)
    assert file.pread(100, 0) == b"x" * 10 + bytes(10)
    file.close()


def test_names_come_and_go(disk: Disk) -> None:
    disk.create("b").close()
    disk.create("a").close()
    disk.rename("b", "c")
    disk.sync_directory()
    assert disk.names() == ["a", "c"]
    disk.remove("a")
    assert disk.names() == ["c"]


def test_a_taken_name_and_an_absent_file_are_errors(disk: Disk) -> None:
    disk.create("a").close()
    for refused in (
        lambda: disk.create("a"),
        lambda: disk.open("b"),
        lambda: disk.remove("b"),
        lambda: disk.rename("b", "c"),
    ):
        with pytest.raises(DiskFailed):
            refused()


def test_an_opened_file_shows_what_another_handle_wrote(disk: Disk) -> None:
    one = disk.create("a")
    one.pwritev([b"abc"], 0)
    two = disk.open("a")
    assert two.pread(3, 0) == b"abc"
    two.pwritev([b"X"], 1)
    assert one.pread(3, 0) == b"aXc"
    one.close()
    two.close()


def test_space_is_told(disk: Disk) -> None:
    assert 0 < disk.free_bytes() <= disk.capacity_bytes()


# --- the fake one keeps its promises about power cuts ------------------------------------------------


def test_a_power_cut_takes_what_was_not_synced() -> None:
    disk = FakeDisk()
    kept, lost = disk.create("kept"), disk.create("lost")
    kept.pwritev([b"one"], 0)
    kept.fdatasync()
    disk.sync_directory()
    kept.pwritev([b"two"], 3)
    lost.pwritev([b"three"], 0)
    late = disk.create("late")
    late.pwritev([b"four"], 0)
    late.fdatasync()

    after = disk.crash()

    assert after.names() == ["kept", "lost"]
    assert after.open("kept").pread(10, 0) == b"one"
    assert after.open("lost").pread(10, 0) == b""
    assert disk.crash(lambda change: 2).open("kept").pread(10, 0) == b"onetw"


def test_a_failed_sync_loses_the_bytes_and_a_second_one_hides_it() -> None:
    disk = FakeDisk()
    file = disk.create("a")
    disk.sync_directory()
    file.pwritev([b"one"], 0)
    disk.fail_syncs = 1
    with pytest.raises(DiskFailed):
        file.fdatasync()
    file.fdatasync()
    assert file.pread(3, 0) == b"one"
    assert disk.crash(lambda change: len(change.data)).open("a").pread(3, 0) == b""


# --- the real one --------------------------------------------------------------------------------


def _try_to_lock(directory: Path) -> None:
    try:
        OsDisk(directory)
    except DiskFailed as error:
        os._exit(7 if "in use by another process" in error.message else 8)
    os._exit(0)


def test_a_second_process_on_the_same_directory_is_told_so(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    disk = OsDisk(tmp_path)
    second = spawn.Process(target=_try_to_lock, args=(tmp_path,))
    second.start()
    second.join(30)
    disk.close()
    third = spawn.Process(target=_try_to_lock, args=(tmp_path,))
    third.start()
    third.join(30)
    assert (second.exitcode, third.exitcode) == (7, 0)


def test_short_writes_go_on_where_they_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = OsDisk(tmp_path)
    file = disk.create("a")
    real_pwritev = os.pwritev

    def stingy(fd: int, buffers: list[bytes], offset: int) -> int:
        return real_pwritev(fd, [b"".join(map(bytes, buffers))[:7]], offset)

    monkeypatch.setattr(os, "pwritev", stingy)
    buffers = [b"a" * 5, b"", b"b" * 20, memoryview(b"c" * 3)]
    file.pwritev(buffers, 2)
    assert file.pread(100, 2) == b"".join(map(bytes, buffers))
    file.close()
    disk.close()


@pytest.mark.parametrize(
    ("number", "kind"), [("ENOSPC", NoSpace), ("EDQUOT", NoSpace), ("EIO", DiskFailed), ("EROFS", DiskFailed)]
)
def test_system_errors_become_ours(
    number: str, kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    disk = OsDisk(tmp_path)
    file = disk.create("a")

    def refuse(*_: object) -> None:
        raise OSError(getattr(errno, number), "injected")

    for name in ("pwritev", "fdatasync", "posix_fallocate"):
        monkeypatch.setattr(os, name, refuse)
    for broken in (lambda: file.pwritev([b"x"], 0), file.fdatasync, lambda: file.allocate(0, 10)):
        with pytest.raises(kind, match="injected"):
            broken()
    monkeypatch.undo()
    file.close()
    disk.close()


def test_a_file_system_without_allocation_gets_a_longer_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    disk = OsDisk(tmp_path)
    file = disk.create("a")

    def unsupported(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "injected")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    file.allocate(10, 90)
    assert file.size() == 100
    file.allocate(10, 20)
    assert file.size() == 100
    file.close()
    disk.close()


def test_a_small_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "note"
    write_durably(path, b"one")
    write_durably(path, b"two")
    assert path.read_bytes() == b"two"
    assert [entry.name for entry in tmp_path.iterdir()] == ["note"]
