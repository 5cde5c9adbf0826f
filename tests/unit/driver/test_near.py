"""Fragments read from the files of chunk servers: right bytes, or none."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import xxhash

from fabric.driver import near as near_module
from fabric.driver.budget import ByteBudget
from fabric.driver.fabric_store import FabricStore
from fabric.driver.near import AT_ONCE_BYTES_MAX, DENIED_S, OPEN_S, PROCESSORS, NearFiles
from fabric.driver.reader import Reader
from fabric.errors import BadChecksum
from fabric.node.host import host_id
from fabric.settings import MIB, Settings
from fabric.wire.messages import FragmentData, FragmentRef, GetFragment, GetObject, ObjectData, ObjectInfo
from tests.unit.driver.fake_client import FakeClient

SMALL, LARGE = os.urandom(1000), os.urandom(AT_ONCE_BYTES_MAX + 1)
POSITION = 37


def sum_of(data: bytes) -> int:
    return xxhash.xxh3_64_intdigest(data)


def in_file(directory: Path, data: bytes) -> str:
    path = directory / "00000001.data"
    path.write_bytes(bytes(POSITION) + data + b"what follows")
    return str(path)


def with_files(work: Callable[[NearFiles], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        files = NearFiles(**options)
        try:
            await work(files)
        finally:
            files.close()

    asyncio.run(run())


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("no_wait", [True, False])
def test_the_right_bytes_are_read(
    tmp_path: Path, data: bytes, no_wait: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not no_wait:

        def unsupported(*arguments: object) -> int:
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(near_module.os, "preadv", unsupported)
    file = in_file(tmp_path, data)

    async def work(files: NearFiles) -> None:
        for count in (1, 2):
            found = await files.read(file, POSITION, len(data), sum_of(data))
            assert found == data
            assert files.count == count

    with_files(work)


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_what_is_not_the_fragment_is_nothing(tmp_path: Path, data: bytes) -> None:
    file = in_file(tmp_path, data)

    async def work(files: NearFiles) -> None:
        assert await files.read(file, POSITION + 1, len(data), sum_of(data)) is None
        assert await files.read(file, POSITION, len(data), sum_of(data) ^ 1) is None
        assert await files.read(file, POSITION, len(data) + 100, sum_of(data)) is None, "it ends before"
        assert await files.read(str(tmp_path / "00000002.data"), POSITION, len(data), sum_of(data)) is None
        assert files.count == 0
        assert await files.read(file, POSITION, len(data), sum_of(data)) == data

    with_files(work)


def test_a_directory_that_may_not_be_read_is_left_alone_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, now, opened = in_file(tmp_path, SMALL), 0.0, []

    def denied(path: str, flags: int) -> int:
        opened.append(path)
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(near_module.os, "open", denied)

    async def work(files: NearFiles) -> None:
        nonlocal now
        for _ in range(3):
            assert await files.read(file, POSITION, len(SMALL), sum_of(SMALL)) is None
        assert len(opened) == 1
        assert files.host == "", "places are of no use now"
        now = DENIED_S + 1
        assert files.host == host_id()
        assert await files.read(file, POSITION, len(SMALL), sum_of(SMALL)) is None
        assert len(opened) == 2

    with_files(work, monotonic_s=lambda: now)


def test_a_file_that_was_removed_is_given_back_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_module, "OPEN_S", 0.05)
    file = in_file(tmp_path, SMALL)

    def links() -> list[str]:
        shown = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
        return [os.readlink(link) for link in shown if os.path.lexists(link)]

    async def work(files: NearFiles) -> None:
        assert await files.read(file, POSITION, len(SMALL), sum_of(SMALL)) == SMALL
        os.unlink(file)
        assert await files.read(file, POSITION, len(SMALL), sum_of(SMALL)) == SMALL
        async with asyncio.timeout(5):
            while any(str(tmp_path) in link for link in links()):
                await asyncio.sleep(0.01)
        assert await files.read(file, POSITION, len(SMALL), sum_of(SMALL)) is None

    with_files(work)
    assert OPEN_S <= 10


def test_a_machine_has_one_name_and_who_wants_bytes_has_none() -> None:
    assert host_id() == host_id() != ""

    async def work(files: NearFiles) -> None:
        assert files.host == ""

    with_files(work, is_on=False)


# --- who uses it ------------------------------------------------------------------------------------


class Cluster:
    """Answers with places first; with bytes when it is asked for those."""

    def __init__(self, file: str, data: bytes, checksum: int | None = None) -> None:
        self.data, self.file = data, file
        self.fragment = FragmentRef(1, 5, len(data), sum_of(data) if checksum is None else checksum)
        self.info = ObjectInfo("a", len(data), 1, 1, "", 0, {}, True)
        self.client = FakeClient(self.answer)

    def answer(self, message: Any, payload: Any) -> Any:
        place = (self.file, POSITION) if message.near else ("", 0)
        if isinstance(message, GetObject):
            data = self.data[message.offset : message.offset + message.length]
            checksum = self.fragment.checksum if message.near else sum_of(data)
            answer = ObjectData(self.info, 0, [self.fragment], False, message.offset, checksum, *place)
            return answer, b"" if message.near else data
        assert isinstance(message, GetFragment)
        data = self.data[message.offset : message.offset + message.length]
        return FragmentData(5, message.offset, sum_of(data), *place), b"" if message.near else data


def read_all(cluster: Cluster, offset: int = 0, length: int | None = None) -> bytes:
    async def run() -> bytes:
        store = FabricStore("tcp://nowhere:1")
        store._client = cluster.client  # type: ignore[assignment]
        reader = await store.open("a", offset, length)
        data = b"".join([bytes(piece) async for piece in reader])
        store._near.close()
        return data

    return asyncio.run(run())


def test_an_object_is_read_at_its_place(tmp_path: Path) -> None:
    cluster = Cluster(in_file(tmp_path, SMALL), SMALL)
    assert read_all(cluster) == SMALL
    assert read_all(cluster, 100, 50) == SMALL[100:150]
    assert read_all(cluster, 990) == SMALL[990:]
    assert [bool(message.near) for message in cluster.client.asked] == [True] * 3  # type: ignore[attr-defined]


def test_an_object_that_is_not_there_any_more_is_asked_for_again(tmp_path: Path) -> None:
    cluster = Cluster(in_file(tmp_path, b"x" * 1000), SMALL)
    assert read_all(cluster, 100, 50) == SMALL[100:150]
    assert [bool(message.near) for message in cluster.client.asked] == [True, False]  # type: ignore[attr-defined]
    assert [message.missed for message in cluster.client.asked] == [False, True]  # type: ignore[attr-defined]


def read_on(cluster: Cluster, offset: int, end: int) -> bytes:
    """What a reader makes of an object whose first bytes it has not got."""

    async def run() -> bytes:
        near = NearFiles()
        opened = ObjectData(cluster.info, 0, [cluster.fragment], False, offset, 0)
        client: Any = cluster.client
        reader = Reader(client, near, Settings(), ByteBudget(MIB), opened, memoryview(b""), end)
        try:
            return b"".join([bytes(piece) async for piece in reader])
        finally:
            near.close()

    return asyncio.run(run())


@pytest.mark.parametrize("there", [True, False])
def test_later_fragments_too(tmp_path: Path, there: bool) -> None:
    cluster = Cluster(in_file(tmp_path, SMALL if there else b"x" * 1000), SMALL)
    assert read_on(cluster, 100, 200) == SMALL[100:200]
    asked = [bool(message.near) for message in cluster.client.asked]  # type: ignore[attr-defined]
    assert asked == ([True] if there else [True, False])
    assert [message.missed for message in cluster.client.asked] == [not near for near in asked]  # type: ignore[attr-defined]


def test_wrong_bytes_are_never_given_out_whatever_a_place_holds(tmp_path: Path) -> None:
    cluster = Cluster(in_file(tmp_path, SMALL), SMALL, checksum=1)
    with pytest.raises(BadChecksum):
        read_on(cluster, 0, 1000)


def read_often(cluster: Cluster, between: Callable[[int, NearFiles], None], times: int = 3) -> None:
    """The object is read so many times by one process."""

    async def run() -> None:
        near = NearFiles()
        opened = ObjectData(cluster.info, 0, [cluster.fragment], False, 0, 0)
        client: Any = cluster.client
        try:
            for number in range(times):
                reader = Reader(client, near, Settings(), ByteBudget(MIB), opened, memoryview(b""), 900)
                assert b"".join([bytes(piece) async for piece in reader]) == cluster.data[:900]
                between(number, near)
        finally:
            near.close()

    asyncio.run(run())


def test_what_was_read_once_is_read_again_without_a_question(tmp_path: Path) -> None:
    cluster = Cluster(in_file(tmp_path, SMALL), SMALL)
    read_often(cluster, lambda number, near: None)
    assert len(cluster.client.asked) == 1


def test_a_place_that_holds_other_bytes_by_now_is_asked_for_anew(tmp_path: Path) -> None:
    """Compaction has moved the record, and told the proxy's chunk server where it is now."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    cluster = Cluster(in_file(old, SMALL), SMALL)

    def move(number: int, near: NearFiles) -> None:
        if number == 0:
            in_file(old, b"x" * 1000)
            cluster.file = in_file(new, SMALL)

    read_often(cluster, move, 4)
    assert [bool(message.near) for message in cluster.client.asked] == [True, True]  # type: ignore[attr-defined]


def test_a_place_is_not_used_while_files_may_not_be_opened(tmp_path: Path) -> None:
    cluster = Cluster(in_file(tmp_path, SMALL), SMALL)

    def deny(number: int, near: NearFiles) -> None:
        near._denied["/somewhere"] = near._monotonic_s() + DENIED_S

    read_often(cluster, deny, 2)
    assert [bool(message.near) for message in cluster.client.asked] == [True, False]  # type: ignore[attr-defined]


# --- pieces that are read by whoever takes them -----------------------------------------------------

BIG = os.urandom(AT_ONCE_BYTES_MAX * 2)


def read_deferred(
    cluster: Cluster,
    work: Callable[[list[Any], NearFiles], Awaitable[None]],
    offset: int = 0,
    others: int = PROCESSORS,
) -> None:
    """``work`` gets the pieces that a reader gives out unread after the object was read once."""

    async def run() -> None:
        near = NearFiles()
        near.deferring = others
        opened = ObjectData(cluster.info, 0, [cluster.fragment], False, offset, 0)
        client: Any = cluster.client

        def reader() -> Reader:
            return Reader(
                client, near, Settings(), ByteBudget(MIB), opened, memoryview(b""), len(cluster.data)
            )

        assert b"".join([bytes(piece) async for piece in reader()]) == cluster.data[offset:]
        deferred = reader()
        await work([piece async for piece in deferred.deferred()], near)
        await deferred.close()
        assert near.deferring == others
        near.close()

    asyncio.run(run())


@pytest.mark.parametrize("offset", [0, 1000])
def test_a_deferred_piece_is_read_when_it_is_wanted_and_by_nobody_else(tmp_path: Path, offset: int) -> None:
    cluster = Cluster(in_file(tmp_path, BIG), BIG)

    async def work(pieces: list[Any], near: NearFiles) -> None:
        (piece,) = pieces
        assert len(piece) == len(BIG) - offset
        assert bytes(await asyncio.to_thread(piece.load)) == BIG[offset:]

    read_deferred(cluster, work, offset)
    assert len(cluster.client.asked) == 1


def change(file: Path) -> None:
    file.write_bytes(bytes(len(BIG) + 1000))


@pytest.mark.parametrize("harm", [change, Path.unlink], ids=["other bytes", "no file"])
def test_what_is_not_there_any_more_is_had_otherwise_and_its_place_is_forgotten(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    file = in_file(tmp_path, BIG)
    cluster = Cluster(file, BIG)

    async def work(pieces: list[Any], near: NearFiles) -> None:
        (piece,) = pieces
        harm(Path(file))
        assert piece.load() is None
        assert bytes(await piece.otherwise()) == BIG
        if Path(file).exists():  # else it is read as long as it is open
            assert near.place_of(cluster.fragment.fid) is None

    read_deferred(cluster, work)


@pytest.mark.parametrize(
    ("data", "others"), [(SMALL, PROCESSORS), (BIG, PROCESSORS - 2)], ids=["small", "alone"]
)
def test_small_pieces_and_those_of_few_readers_are_read_ahead(
    tmp_path: Path, data: bytes, others: int
) -> None:
    cluster = Cluster(in_file(tmp_path, data), data)

    async def work(pieces: list[Any], near: NearFiles) -> None:
        assert b"".join(map(bytes, pieces)) == data

    read_deferred(cluster, work, others=others)


def test_a_file_that_cannot_be_opened_is_not_put_off(tmp_path: Path) -> None:
    file = in_file(tmp_path, BIG)
    cluster = Cluster(file, BIG)

    async def work(pieces: list[Any], near: NearFiles) -> None:
        near._close_old()
        Path(file).unlink()
        for descriptor, _ in near._open.values():
            os.close(descriptor)
        near._open.clear()
        assert near.deferred(cluster.fragment, 0, len(BIG), pieces[0].otherwise) is None

    read_deferred(cluster, work)


def test_what_only_the_disk_has_is_fetched_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = []
    monkeypatch.setattr(near_module, "_read_at_once", lambda *place: None)
    monkeypatch.setattr(
        near_module.os,
        "posix_fadvise",
        lambda fd, position, length, advice: fetched.append((position, length, advice)),
    )
    cluster = Cluster(in_file(tmp_path, BIG), BIG)

    async def work(pieces: list[Any], near: NearFiles) -> None:
        assert bytes(pieces[0].load()) == BIG

    read_deferred(cluster, work)
    assert fetched == [(POSITION, len(BIG), os.POSIX_FADV_WILLNEED)]


def test_a_place_of_no_use_is_tried_once(tmp_path: Path) -> None:
    cluster = Cluster(in_file(tmp_path, SMALL), SMALL)

    def lose(number: int, near: NearFiles) -> None:
        if number == 0:
            in_file(tmp_path, b"x" * 1000)
            cluster.file = ""  # bytes only from now on
        else:
            assert near.place_of(cluster.fragment.fid) is None

    read_often(cluster, lose)
