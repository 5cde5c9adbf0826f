"""``FabricStore`` and ``Storage`` over a proxy that keeps objects in memory, on real sockets."""

from __future__ import annotations

import asyncio
import gc
import io
import random
import threading
import time

import pytest

from fabric.driver import Storage
from fabric.driver.fabric_store import FabricStore
from fabric.errors import (
    BadChecksum,
    BadRange,
    BadRequest,
    Busy,
    Internal,
    NotFound,
    NoWritableGroup,
    Precondition,
    Unavailable,
)
from fabric.settings import FRAGMENT_BYTES_MAX, FRAGMENTS_PER_PAGE_MAX, Settings
from fabric.wire.messages import (
    Commit,
    Committed,
    DeleteOperation,
    GetObject,
    MoveOperation,
    ObjectData,
    ObjectInfo,
    PutFragment,
    PutObject,
    PutOperation,
)
from tests.unit.driver.fake_proxy import MemoryProxy, ScriptedProxy
from tests.unit.node.echo import running

BIG = (random.Random(5).randbytes(1000) * 17_000)[: 4 * FRAGMENT_BYTES_MAX] + b"the last, short fragment"
"""Five fragments: two pages of the fake proxy."""


@pytest.fixture
def proxy():
    return MemoryProxy()


@pytest.fixture
def storage(proxy):
    with running(proxy) as it, Storage(it.endpoint, Settings(write_patience_s=1.0)) as storage:
        yield storage
    gc.collect()  # what was left behind complains now


def uploads(proxy: MemoryProxy) -> list[str]:
    return [path for path in proxy.objects if path.startswith("uploads/")]


def test_a_stream_under_way_is_dated_and_the_object_is_not(storage, proxy):
    """So that a registry on the same fabric does not take it for an abandoned upload."""
    before_ms = time.time_ns() // 1_000_000
    info = storage.stream_write("stream", io.BytesIO(b"content"))
    begun = [
        operation
        for message in proxy.received
        if isinstance(message, Commit)
        for operation in message.operations
        if isinstance(operation, PutOperation) and operation.path.startswith("uploads/")
    ]
    assert [before_ms <= int(put.attributes["started"]) <= before_ms + 60_000 for put in begun] == [True]
    assert info.attributes == {}


# --- whole objects --------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"x", BIG[:FRAGMENT_BYTES_MAX], BIG], ids=len)
def test_content_comes_back_as_it_was_put(storage, proxy, content):
    info = storage.put_content("dir/name", content)
    assert (info.path, info.size) == ("dir/name", len(content))
    assert storage.get_content("dir/name") == content
    assert storage.get_size("dir/name") == len(content)
    assert uploads(proxy) == []


def test_content_is_replaced_whole(storage):
    storage.put_content("a", BIG)
    storage.put_content("a", b"short")
    assert storage.get_content("a") == b"short"


def test_a_missing_path_is_a_file_not_found_error(storage):
    for question in (
        storage.get_content,
        storage.get_size,
        storage.stat,
        storage.remove,
        storage.list_directory,
        lambda path: storage.move(path, "b"),
        lambda path: next(storage.stream_read(path)),
    ):
        with pytest.raises(FileNotFoundError):
            question("missing")
    assert not storage.exists("missing")


# --- streams --------------------------------------------------------------------------------------


def test_a_stream_is_written_in_bounded_pieces_and_appears_at_the_end_only(storage, proxy):
    seen: list[bool] = []

    class Source(io.BytesIO):
        def read(self, size=-1):
            assert 0 < size <= FRAGMENT_BYTES_MAX
            seen.append(storage.exists("stream"))
            return super().read(size)

    info = storage.stream_write("stream", Source(BIG))
    assert info.size == len(BIG)
    assert set(seen) == {False}
    assert b"".join(storage.stream_read("stream")) == BIG
    assert uploads(proxy) == []


def test_an_empty_stream_is_an_empty_object(storage):
    assert storage.stream_write("empty", io.BytesIO()).size == 0
    assert list(storage.stream_read("empty")) == []


def test_a_source_that_fails_leaves_nothing_visible(storage, proxy):
    class Broken(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > FRAGMENT_BYTES_MAX:
                raise OSError("the disk of the caller")
            return super().read(size)

    with pytest.raises(OSError, match="the disk of the caller"):
        storage.stream_write("stream", Broken(BIG))
    assert proxy.objects == {}


def test_a_store_that_fails_raises_its_error_and_leaves_nothing_visible(storage, proxy):
    proxy.refuse[PutFragment] = NoWritableGroup("chunk-2 is OFFLINE")
    with pytest.raises(NoWritableGroup, match="chunk-2 is OFFLINE"):
        storage.stream_write("stream", io.BytesIO(BIG))
    assert proxy.objects == {}


def test_the_first_error_is_raised_though_cleaning_up_fails_too(storage, proxy):
    class Broken(io.BytesIO):
        def read(self, size=-1):
            proxy.refuse[Commit] = Internal("the second error")
            raise OSError("the first error")

    with pytest.raises(OSError, match="the first error"):
        storage.stream_write("stream", Broken(BIG))


@pytest.mark.parametrize(
    ("bytes_range", "expected"),
    [
        ((0, 0), BIG[:1]),
        ((10, 19), BIG[10:20]),
        ((FRAGMENT_BYTES_MAX - 1, FRAGMENT_BYTES_MAX), BIG[FRAGMENT_BYTES_MAX - 1 : FRAGMENT_BYTES_MAX + 1]),
        ((4 * FRAGMENT_BYTES_MAX - 5, None), BIG[4 * FRAGMENT_BYTES_MAX - 5 :]),
        ((len(BIG) - 3, len(BIG) + 100), BIG[-3:]),
    ],
    ids=["first byte", "inside", "over an edge", "to the end", "beyond the end"],
)
def test_a_range_has_both_ends_in_it(storage, bytes_range, expected):
    storage.put_content("a", BIG)
    assert b"".join(storage.stream_read("a", bytes_range)) == expected


@pytest.mark.parametrize("bytes_range", [(-1, 5), (5, 4)])
def test_what_is_not_a_range_is_refused(storage, bytes_range):
    storage.put_content("a", b"0123456789")
    with pytest.raises(BadRange):
        next(storage.stream_read("a", bytes_range))


def test_a_stream_that_is_read_half_leaves_nothing_under_way(storage):
    storage.put_content("a", BIG)
    pieces = storage.stream_read("a")
    assert next(pieces) == BIG[:FRAGMENT_BYTES_MAX]
    pieces.close()
    assert storage._store._read_budget.used == 0


def test_a_stream_outlives_its_storage_without_noise(proxy):
    with running(proxy) as it:
        with Storage(it.endpoint) as storage:
            storage.put_content("a", BIG)
            pieces = storage.stream_read("a")
            next(pieces)
        with pytest.raises(Unavailable):
            next(pieces)
        gc.collect()


# --- names ----------------------------------------------------------------------------------------


def test_a_directory_lists_objects_and_directories_once_sorted(storage):
    for path in ("a/z", "a/b/1", "a/b/2", "a/c/d/e", "ab", "top"):
        storage.put_content(path, b"x")
    assert storage.list_directory("a") == ["a/b", "a/c", "a/z"]
    assert storage.list_directory("/a/") == ["a/b", "a/c", "a/z"]
    assert storage.list_directory() == ["a", "ab", "top"]


def test_a_long_directory_is_listed_over_pages(storage, monkeypatch):
    monkeypatch.setattr("fabric.driver.storage.LIST_LIMIT_MAX", 3)
    for number in range(10):
        storage.put_content(f"d/{number}", b"x")
    assert storage.list_directory("d") == [f"d/{number}" for number in range(10)]


def test_exists_is_true_of_objects_and_directories(storage):
    storage.put_content("a/b", b"x")
    assert storage.exists("a/b")
    assert storage.exists("a")
    assert not storage.exists("a/b/c")
    assert not storage.exists("a/bc")


def test_remove_takes_an_object_and_everything_under_it_and_nothing_beside_it(storage, monkeypatch):
    monkeypatch.setattr("fabric.driver.storage.OPERATIONS_MAX", 2)
    for path in ("a", "a/1", "a/2", "a/3/4", "ab"):
        storage.put_content(path, b"x")
    storage.remove("a")
    assert storage.list_directory() == ["ab"]


def test_move_renames_and_replaces(storage):
    storage.put_content("a", b"new")
    storage.put_content("b", b"old")
    assert storage.move("a", "b").path == "b"
    assert storage.get_content("b") == b"new"
    assert not storage.exists("a")


# --- its ends -------------------------------------------------------------------------------------


def test_close_is_harmless_twice_and_ends_everything_after_it(proxy):
    with running(proxy) as it:
        storage = Storage(it.endpoint)
        storage.close()
        storage.close()
        with pytest.raises(Unavailable):
            storage.get_content("a")
        gc.collect()


def test_close_ends_what_other_threads_wait_for():
    silent = ScriptedProxy(None)
    with running(silent) as it:
        storage = Storage(it.endpoint)
        errors: list[BaseException] = []

        def wait() -> None:
            try:
                storage.get_content("a")
            except Unavailable as error:
                errors.append(error)

        threads = [threading.Thread(target=wait) for _ in range(3)]
        for thread in threads:
            thread.start()
        while len(silent.received) < 3:
            pass
        storage.close()
        for thread in threads:
            thread.join(5)
            assert not thread.is_alive()
        assert len(errors) == 3


def test_several_threads_may_use_one_storage(storage):
    def work(number: int) -> None:
        for turn in range(20):
            storage.put_content(f"{number}/{turn}", b"%d" % turn)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(
        storage.get_content(f"{number}/{turn}") == b"%d" % turn for number in range(4) for turn in range(20)
    )


# --- the store beneath ----------------------------------------------------------------------------


def with_store(role, scenario, **settings):
    async def whole(endpoint: str):
        store = FabricStore(endpoint, Settings(**settings))
        await store.start()
        try:
            return await asyncio.wait_for(scenario(store), 5)
        finally:
            await store.close()
            assert (store._write_budget.used, store._read_budget.used) == (0, 0)

    with running(role) as it:
        return asyncio.run(whole(it.endpoint))


CHECKSUM_OF_GOOD = 0x6E9D131583D73E79
"""xxh3-64 of ``good``."""
INFO = ObjectInfo("a", 1, 1, 1, "", 0, {}, False)


@pytest.mark.parametrize(
    "work",
    [lambda store: store.commit([DeleteOperation("a")]), lambda store: store.put("a", b"x")],
    ids=["commit", "put"],
)
def test_a_repeated_change_carries_the_same_operation_id_and_another_change_another(work):
    async def scenario(store: FabricStore):
        await work(store)
        await work(store)

    proxy = ScriptedProxy(Busy("full"), Unavailable("gone"), Committed([INFO]))
    with_store(proxy, scenario)
    ids = [message.operation_id for message in proxy.received]
    assert ids[0] == ids[1] == ids[2] != ids[3]


def test_put_says_everything_about_the_object(proxy):
    async def scenario(store: FabricStore):
        await store.put("a", b"x", digest="sha256:1", attributes={"k": "v"}, if_generation=0, immutable=True)
        with pytest.raises(Precondition):
            await store.put("a", b"y", if_generation=0)

    with_store(proxy, scenario)
    sent = proxy.received[0]
    assert isinstance(sent, PutObject)
    assert (sent.digest, sent.attributes, sent.if_generation, sent.immutable) == (
        "sha256:1",
        {"k": "v"},
        0,
        True,
    )


def test_put_of_several_fragments_is_one_commit(proxy):
    async def scenario(store: FabricStore):
        await store.put("a", BIG, digest="sha256:1", attributes={"k": "v"}, if_generation=0, immutable=True)
        assert (await store.read("a", len(BIG)))[1] == BIG

    with_store(proxy, scenario)
    (commit,) = [message for message in proxy.received if isinstance(message, Commit)]
    (put,) = commit.operations
    assert isinstance(put, PutOperation)
    assert len(put.fragments) == 5
    assert (put.digest, put.attributes, put.if_generation, put.immutable) == ("sha256:1", {"k": "v"}, 0, True)


def test_more_than_a_page_of_fragments_is_not_staged(proxy):
    async def scenario(store: FabricStore):
        with pytest.raises(BadRequest):
            await store.stage(bytes(FRAGMENT_BYTES_MAX * FRAGMENTS_PER_PAGE_MAX + 1))

    with_store(proxy, scenario)
    assert proxy.received == []


def test_read_refuses_an_object_that_is_too_large(proxy):
    async def scenario(store: FabricStore):
        await store.put("a", b"12345")
        assert (await store.read("a", 5))[1] == b"12345"
        with pytest.raises(BadRequest, match="a has 5 bytes, 4 are taken at most"):
            await store.read("a", 4)

    with_store(proxy, scenario)


def test_a_commit_holds_together(proxy):
    async def scenario(store: FabricStore):
        await store.put("a", b"x")
        with pytest.raises(NotFound):
            await store.commit([MoveOperation("a", "b"), DeleteOperation("missing")])
        assert (await store.stat("a")).size == 1

    with_store(proxy, scenario)


def test_damaged_first_bytes_are_asked_for_again_and_never_given_out(proxy):
    answers: list[GetObject] = []

    def damage(times: int):
        def step(message):
            answers.append(message)
            data = b"good" if len(answers) > times else b"evil"
            return ObjectData(INFO, 0, [], False, 0, CHECKSUM_OF_GOOD), data

        return step

    async def scenario(store: FabricStore):
        return await anext((await store.open("a")).__aiter__())

    assert bytes(with_store(ScriptedProxy(damage(2)), scenario)) == b"good"
    answers.clear()
    with pytest.raises(BadChecksum):
        with_store(ScriptedProxy(damage(100)), scenario)
    assert len(answers) == 3


def test_operation_ids_are_unique_and_those_of_one_store_grow() -> None:
    one, other = FabricStore("tcp://127.0.0.1:1"), FabricStore("tcp://127.0.0.1:1")
    ids = [one._operation_id() for _ in range(600)]
    assert ids == sorted(set(ids))
    assert {len(each) for each in ids} == {16}
    assert other._operation_id()[:8] != ids[0][:8]
