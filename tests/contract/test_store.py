"""The contract of ``master.store``, held against every implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric.master.delta import DeltaStore
from fabric.master.leveldb_store import open_store
from fabric.master.store import Store, WriteBatch, Written, store_worker
from sim.store import MemoryStore


@pytest.fixture(params=["memory", "leveldb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    leveldb = open_store(tmp_path / "store")
    yield leveldb
    leveldb.close()


def test_a_key_that_was_never_written_has_no_value(store: Store) -> None:
    assert store.get(b"absent") is None
    assert store.scan(b"", b"\xff", 10) == []


def test_a_batch_sets_and_removes(store: Store) -> None:
    store.write({b"a": b"1", b"b": b"2"})
    store.write({b"a": None, b"b": b"3", b"never there": None})

    assert store.get(b"a") is None
    assert store.get(b"b") == b"3"


def test_an_empty_value_is_a_value(store: Store) -> None:
    store.write({b"k": b""})

    assert store.get(b"k") == b""
    assert store.scan(b"k", b"l", 1) == [(b"k", b"")]


def test_a_scan_includes_its_start_and_excludes_its_stop(store: Store) -> None:
    store.write({bytes([n]): b"v" for n in range(1, 6)})

    assert [key for key, _ in store.scan(b"\x02", b"\x04", 10)] == [b"\x02", b"\x03"]
    assert [key for key, _ in store.scan(b"\x02", b"\x04", 10, True)] == [b"\x03", b"\x02"]


def test_a_scan_of_one_key_finds_it_in_both_directions(store: Store) -> None:
    store.write({b"f1": b"1", b"f2": b"2"})

    assert store.scan(b"f1", b"f1\x01", 5) == [(b"f1", b"1")]
    assert store.scan(b"f1", b"f1\x01", 5, True) == [(b"f1", b"1")]


def test_a_limit_keeps_the_first_in_the_direction_of_the_scan(store: Store) -> None:
    store.write({bytes([n]): b"v" for n in range(9)})

    assert [key for key, _ in store.scan(b"\x00", b"\xff", 2)] == [b"\x00", b"\x01"]
    assert [key for key, _ in store.scan(b"\x00", b"\xff", 2, True)] == [b"\x08", b"\x07"]
    assert store.scan(b"\x00", b"\xff", 0) == []


def test_a_scan_that_stops_before_it_starts_is_empty(store: Store) -> None:
    store.write({b"m": b"v"})

    assert store.scan(b"z", b"a", 5) == []
    assert store.scan(b"z", b"a", 5, True) == []


def test_the_worker_writes_a_batch_and_says_so(store: Store) -> None:
    assert store_worker(store)(WriteBatch({b"k": b"v"})) == Written()
    assert store.get(b"k") == b"v"


@pytest.mark.parametrize("reverse", [False, True])
def test_a_key_hidden_by_a_delta_takes_no_place_among_those_of_a_scan(reverse: bool) -> None:
    base = MemoryStore()
    base.write({b"a": b"1", b"b": b"2", b"c": b"3"})
    delta = DeltaStore(base)
    delta.delete(b"c" if reverse else b"a")

    found = delta.scan(b"a", b"d", 2, reverse)
    assert [key for key, _ in found] == ([b"b", b"a"] if reverse else [b"b", b"c"])


KEYS = st.text("abc", min_size=1, max_size=2).map(str.encode)
"""Few enough that batches often meet on one."""
CHANGES = st.dictionaries(KEYS, st.none() | st.binary(max_size=3), max_size=12)


def check_against_dict(make: Callable[[], Store], batches: list[dict[bytes, bytes | None]]) -> Store:
    store, model = make(), {}
    for batch in batches:
        store.write(batch)
        model.update(batch)
    expected = sorted((key, value) for key, value in model.items() if value is not None)
    assert store.scan(b"", b"\xff" * 4, 10_000) == expected
    assert store.scan(b"", b"\xff" * 4, 10_000, True) == expected[::-1]
    return store


@settings(max_examples=30, deadline=None)
@given(batches=st.lists(CHANGES, max_size=5))
def test_batches_on_leveldb_do_what_they_do_to_a_dict(
    tmp_path_factory: pytest.TempPathFactory, batches: list[dict[bytes, bytes | None]]
) -> None:
    store = check_against_dict(lambda: open_store(tmp_path_factory.mktemp("store")), batches)
    store.close()  # type: ignore[attr-defined]


@given(
    below=CHANGES,
    middle=CHANGES,
    above=CHANGES,
    start=KEYS,
    stop=KEYS,
    limit=st.integers(0, 8),
    reverse=st.booleans(),
)
def test_a_delta_shows_what_the_store_will_hold(
    below: dict[bytes, bytes | None],
    middle: dict[bytes, bytes | None],
    above: dict[bytes, bytes | None],
    start: bytes,
    stop: bytes,
    limit: int,
    reverse: bool,
) -> None:
    base, written = MemoryStore(), MemoryStore()
    base.write(below)
    delta = DeltaStore(base)
    delta.changes.update(middle)
    inner = DeltaStore(delta)
    inner.changes.update(above)
    for changes in (below, middle, above):
        written.write(changes)

    assert inner.scan(start, stop, limit, reverse) == written.scan(start, stop, limit, reverse)
    assert inner.get(start) == written.get(start)
    delta.absorb(inner)
    assert delta.scan(start, stop, limit, reverse) == written.scan(start, stop, limit, reverse)
