"""A damaged or foreign directory is refused with a reason, never opened as if it were fine."""

from __future__ import annotations

from pathlib import Path

import pytest

from fabric.master.leveldb_store import DIRECTORY, MARKER, open_store
from fabric.master.store import StoreDamaged, StoreFailed, StoreInUse


def filled(directory: Path, compacted: bool = False) -> Path:
    """A closed store of 2,000 keys, in a log or in tables; returns LevelDB's directory."""
    store = open_store(directory)
    for batch in range(20):
        store.write({b"key-%02d-%03d" % (batch, n): b"value %d" % n * 5 for n in range(100)})
    if compacted:
        store._database.compact_range()
    store.close()
    return directory / DIRECTORY


def test_what_was_written_is_there_after_reopening(tmp_path: Path) -> None:
    filled(tmp_path)
    store = open_store(tmp_path)

    assert store.get(b"key-07-042") == b"value 42" * 5
    assert store.verify() == 2_000
    store.close()


def test_a_batch_is_synced_before_write_returns(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    asked = []

    class Watched:
        def write_batch(self, **options: object) -> object:
            asked.append(options)
            return database.write_batch(**options)

    database, store._database = store._database, Watched()
    store.write({b"a": b"1"})
    store._database = database
    assert asked == [{"sync": True}]
    assert store.get(b"a") == b"1"
    store.close()


def test_a_store_whose_current_file_is_gone_is_damaged_not_empty(tmp_path: Path) -> None:
    (filled(tmp_path) / "CURRENT").unlink()

    with pytest.raises(StoreDamaged, match="damaged"):
        open_store(tmp_path)
    assert list((tmp_path / DIRECTORY).glob("*.l*")), "refusing must not delete anything"


def test_a_store_whose_directory_is_gone_is_damaged_not_new(tmp_path: Path) -> None:
    filled(tmp_path).rename(tmp_path / "elsewhere")

    with pytest.raises(StoreDamaged, match=DIRECTORY):
        open_store(tmp_path)


def test_a_store_without_its_marker_is_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / MARKER).unlink()

    with pytest.raises(StoreDamaged, match="marker"):
        open_store(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "[1]", "nonsense", '{"format": 2, "state": "ready"}'])
def test_a_marker_that_says_something_else_is_refused(tmp_path: Path, content: str) -> None:
    filled(tmp_path)
    (tmp_path / MARKER).write_text(content)

    with pytest.raises(StoreDamaged, match=MARKER):
        open_store(tmp_path)


@pytest.mark.parametrize("compacted", [False, True], ids=["log", "table"])
@pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
def test_a_flipped_byte_in_a_log_or_table_is_refused(tmp_path: Path, compacted: bool, where: float) -> None:
    directory = filled(tmp_path, compacted)
    file = max(directory.glob("*.ldb" if compacted else "*.log"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[int(len(content) * where)] ^= 0x40
    file.write_bytes(content)

    with pytest.raises(StoreDamaged, match=r"damaged|checksum"):
        open_store(tmp_path)


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    directory = filled(tmp_path, compacted=True)
    max(directory.glob("*.ldb"), key=lambda path: path.stat().st_size).unlink()

    with pytest.raises(StoreDamaged):
        open_store(tmp_path)


def test_a_value_under_another_key_fails_its_own_checksum(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.write({b"a": b"1"})
    store._database.put(b"b", store._database.get(b"a"))

    with pytest.raises(StoreDamaged, match="b'b'"):
        store.get(b"b")
    with pytest.raises(StoreDamaged, match="b'b'"):
        store.scan(b"a", b"c", 5)
    store.close()


def test_a_first_start_that_was_interrupted_starts_again(tmp_path: Path) -> None:
    directory = filled(tmp_path)
    (tmp_path / MARKER).write_text('{"format": 1, "state": "creating"}')
    (directory / "CURRENT").unlink()

    store = open_store(tmp_path)
    assert store.verify() == 0
    store.close()


def test_a_second_opening_is_told_that_the_store_is_in_use(tmp_path: Path) -> None:
    store = open_store(tmp_path)

    with pytest.raises(StoreInUse, match="already in use"):
        open_store(tmp_path)
    store.close()
    open_store(tmp_path).close()


def test_a_directory_that_cannot_be_made_is_a_failure_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreFailed, match="file"):
        open_store(tmp_path / "file" / "store")
