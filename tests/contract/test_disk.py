"""The disk contract, over the real disk and the fake one that crash tests use."""

from __future__ import annotations

import multiprocessing
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fabric.errors import DiskFailed, NoSpace
from fabric.node.disk import Disk
from fabric.node.os_disk import OsDisk, write_durably
from sim.crashes import keep_all, keep_some
from sim.disk import FakeDisk, PowerCut


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


def test_a_handle_follows_its_file_through_rename_and_removal(disk: Disk) -> None:
    file = disk.create("a.new")
    file.pwritev([b"one"], 0)
    disk.rename("a.new", "a")
    file.pwritev([b"two"], 3)
    assert disk.open("a").pread(10, 0) == b"onetwo"
    disk.remove("a")
    assert file.pread(10, 0) == b"onetwo"
    file.fdatasync()
    file.close()


def test_renaming_replaces_what_had_the_name(disk: Disk) -> None:
    old, new = disk.create("a"), disk.create("b")
    old.pwritev([b"old"], 0)
    new.pwritev([b"new"], 0)
    disk.rename("b", "a")
    assert disk.names() == ["a"]
    assert disk.open("a").pread(3, 0) == b"new"
    assert old.pread(3, 0) == b"old"
    old.close()
    new.close()


def test_forgetting_changes_nothing(disk: Disk) -> None:
    file = disk.create("a")
    file.pwritev([b"x" * 10_000], 0)
    file.forget(100, 5000)
    file.fdatasync()
    file.forget(0, 10_000)
    assert file.pread(10_000, 0) == b"x" * 10_000
    file.close()


def test_a_closed_file_is_an_error(disk: Disk) -> None:
    file = disk.create("a")
    file.close()
    for broken in (lambda: file.pread(1, 0), lambda: file.pwritev([b"x"], 0)):
        with pytest.raises(DiskFailed):
            broken()
    file.close()


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
    assert disk.names() == ["kept", "late", "lost"], "the disk itself stays as it was"


def outcomes(disk: FakeDisk, look: Callable[[FakeDisk], object], piece_bytes: int = 0) -> set[object]:
    """All that very many power cuts leave."""
    return {look(disk.crash(keep_some(random.Random(seed)), piece_bytes)) for seed in range(400)}


def test_any_subset_of_unsynced_writes_survives_each_torn_at_any_byte() -> None:
    disk = FakeDisk()
    file = disk.create("a")
    file.pwritev([b"...."], 0)
    file.fdatasync()
    disk.sync_directory()
    file.pwritev([b"ab"], 0)
    file.pwritev([b"cd"], 2)
    ab, cd = (b"..", b"a.", b"ab"), (b"..", b"c.", b"cd")
    assert outcomes(disk, lambda after: after.open("a").pread(9, 0)) == {x + y for x in ab for y in cd}


def test_a_write_may_lose_its_middle() -> None:
    disk = FakeDisk()
    file = disk.create("a")
    disk.sync_directory()
    file.pwritev([b"abc"], 0)
    found = outcomes(disk, lambda after: after.open("a").pread(9, 0), piece_bytes=1)
    assert found == {b"", b"a", b"ab", b"abc", b"\0b", b"\0bc", b"\0\0c", b"a\0c"}


def test_any_subset_of_unsynced_names_survives() -> None:
    disk = FakeDisk()
    for name in ("a", "b"):
        disk.create(name)
    disk.sync_directory()
    disk.remove("a")
    disk.rename("b", "c")
    disk.create("d")
    found = outcomes(disk, lambda after: tuple(after.names()))
    assert found == {(*a, bc, *d) for a in ((), ("a",)) for bc in ("b", "c") for d in ((), ("d",))}
    disk.sync_directory()
    assert disk.crash().names() == ["c", "d"]


def test_a_file_whose_name_is_lost_is_lost_with_its_bytes_and_a_removal_that_is_lost_brings_them_back() -> (
    None
):
    disk = FakeDisk()
    file = disk.create("a")
    file.pwritev([b"one"], 0)
    file.fdatasync()
    assert disk.crash().names() == []
    disk.sync_directory()
    disk.remove("a")
    assert disk.crash().open("a").pread(3, 0) == b"one"


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
    assert disk.crash(keep_all).open("a").pread(3, 0) == b""
    file.forget(0, 2)
    assert file.pread(3, 0) == b"\0\0e", "what memory forgets, no disk has"
    file.pwritev([b"one"], 0)
    file.fdatasync()
    assert disk.crash().open("a").pread(3, 0) == b"one"


def test_a_failed_sync_of_the_directory_makes_no_name_durable() -> None:
    disk = FakeDisk()
    disk.create("a")
    disk.fail_directory_syncs = 1
    with pytest.raises(DiskFailed):
        disk.sync_directory()
    assert disk.crash().names() == []
    disk.sync_directory()
    assert disk.crash().names() == ["a"]


def test_a_full_disk_takes_a_part_of_a_write_and_what_was_allocated() -> None:
    disk = FakeDisk(capacity=100)
    file = disk.create("a")
    file.allocate(0, 60)
    disk.create("b").pwritev([b"x" * 40], 0)
    file.pwritev([b"y" * 60], 0)
    with pytest.raises(NoSpace):
        file.pwritev([b"z" * 20], 50)
    assert file.pread(100, 0) == b"y" * 50 + b"z" * 10
    with pytest.raises(NoSpace):
        file.allocate(60, 1)
    disk.remove("b")
    file.allocate(60, 40)
    assert disk.free_bytes() == 0


def test_bytes_that_cannot_be_read() -> None:
    disk = FakeDisk()
    file = disk.create("a")
    file.pwritev([b"x" * 100], 0)
    disk.make_unreadable("a", 40, 50)
    assert file.pread(40, 0) == b"x" * 40
    for offset, length in ((0, 41), (45, 1), (49, 10)):
        with pytest.raises(DiskFailed):
            file.pread(length, offset)
    assert file.pread(10, 50) == b"x" * 10


def test_every_change_is_a_step_and_may_be_the_one_that_does_not_happen() -> None:
    def changes(disk: FakeDisk) -> None:
        file = disk.create("a.new")
        file.pwritev([b"x"], 0)
        file.allocate(1, 9)
        file.truncate(5)
        file.fdatasync()
        disk.rename("a.new", "a")
        disk.sync_directory()
        disk.remove("a")

    steps: list[str] = []
    disk = FakeDisk()
    disk.step = steps.append
    changes(disk)
    kinds = ["create", "write", "allocate", "truncate", "sync", "rename", "sync", "remove"]
    assert [step.split()[0] for step in steps] == kinds
    for last in range(len(steps)):
        disk = FakeDisk()
        left = iter(range(last))

        def cut(what: str, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise PowerCut(what)

        disk.step = cut
        with pytest.raises(PowerCut, match=kinds[last]):
            changes(disk)
        assert len(disk.log) == sum(kind in ("write", "sync") for kind in kinds[:last])


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
