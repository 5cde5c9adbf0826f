"""Large bodies, which threads write to the socket: every byte once and in order, whoever reads them."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import socket
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import ClassVar

import pytest
import uvloop

from fabric.driver.object_store import Buffer, Deferred
from fabric.driver.registry.http_outlet import Outlet
from fabric.driver.registry.http_stream import WRITE_BYTES
from fabric.errors import NoGoodCopy
from fabric.settings import MIB, Settings
from tests.unit.driver.registry import memory_store
from tests.unit.driver.registry.harness import Registry, registry
from tests.unit.driver.registry.memory_store import MemoryReader

BLOB = os.urandom(9 * MIB + 12_345)
"""More than the kernel holds for a client that does not read."""

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}

Test = Callable[..., Awaitable[None]]


def on_both_loops(test: Test) -> Callable[..., None]:
    """The transports of the two hand out their sockets in ways of their own."""

    @pytest.mark.parametrize("loop", list(LOOPS))
    @functools.wraps(test)
    def run(loop: str) -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(test())  # type: ignore[arg-type]

    del run.__wrapped__  # type: ignore[attr-defined]  # pytest would look there for the parameters
    return run


async def asked(
    client: Registry, digest: str, *headers: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which the blob was asked for.  It takes little before it is read from."""
    own = socket.socket()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    own.setblocking(False)
    await asyncio.get_running_loop().sock_connect(own, ("127.0.0.1", client.port))
    reader, writer = await asyncio.open_connection(sock=own, limit=64 * 1024)
    ask(writer, digest, *headers)
    return reader, writer


async def admitted(client: Registry, digest: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which some of the blob came.  A place is free only a little after the last byte."""
    while True:
        reader, writer = await asked(client, digest)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 429"):
            await reader.readexactly(100_000)
            return reader, writer
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.01)


def ask(writer: asyncio.StreamWriter, digest: str, *headers: str) -> None:
    lines = [f"GET /v2/app/blobs/{digest} HTTP/1.1", "Host: x", *headers]
    writer.write("\r\n".join([*lines, "", ""]).encode())


async def body_of(reader: asyncio.StreamReader, pause_s: float = 0.0) -> bytes:
    """The body of the next answer; with ``pause_s`` a rest after each piece."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    left = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    pieces = []
    while left:
        piece = await reader.read(min(left, MIB))
        assert piece, f"{left} bytes are missing"
        pieces.append(piece)
        left -= len(piece)
        await asyncio.sleep(pause_s)
    return b"".join(pieces)


def open_sockets() -> int:
    links = (
        os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd") if _is_open(number)
    )
    return sum(link.startswith("socket:") for link in links)


def _is_open(number: str) -> bool:
    return Path(f"/proc/self/fd/{number}").is_symlink()


@on_both_loops
async def test_one_answer_after_the_other_on_one_connection() -> None:
    async with registry() as client:
        digest = await client.push_blob(BLOB)
        reader, writer = await asked(client, digest)
        ask(writer, digest, "Range: bytes=5000000-")
        ask(writer, digest, "Range: bytes=7-17,4000000-8999999")
        ask(writer, digest, "Range: bytes=1-3")
        assert await body_of(reader) == BLOB
        assert await body_of(reader) == BLOB[5_000_000:]
        several = await body_of(reader)
        assert BLOB[7:18] in several
        assert BLOB[4_000_000:9_000_000] in several
        assert await body_of(reader) == BLOB[1:4]
        writer.close()


@on_both_loops
async def test_a_large_body_goes_past_the_framework() -> None:
    written = 0
    write = Outlet.write

    async def counted(self: Outlet, data: memoryview, stall_s: float) -> None:
        nonlocal written
        written += len(data)
        await write(self, data, stall_s)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Outlet, "write", counted)
        async with registry() as client:
            digest = await client.push_blob(BLOB)
            reader, writer = await asked(client, digest)
            assert await body_of(reader, pause_s=0.001) == BLOB
            writer.close()
    assert written == len(BLOB) - WRITE_BYTES


@on_both_loops
async def test_many_slow_readers_at_once_and_no_descriptor_stays() -> None:
    async with registry() as client:
        digest = await client.push_blob(BLOB)
        before = open_sockets()

        async def pull() -> None:
            reader, writer = await asked(client, digest)
            assert await body_of(reader, pause_s=0.001) == BLOB
            writer.close()
            await writer.wait_closed()

        async with asyncio.timeout(60):
            await asyncio.gather(*(pull() for _ in range(8)))
            while open_sockets() > before:
                await asyncio.sleep(0.01)


@on_both_loops
async def test_others_are_answered_while_a_reader_takes_nothing() -> None:
    async with registry() as client:
        digest = await client.push_blob(BLOB)
        idle = [await asked(client, digest) for _ in range(20)]
        async with asyncio.timeout(30):
            for _ in range(3):
                assert (await client.call("GET", f"/v2/app/blobs/{digest}")).body == BLOB
            for reader, writer in idle:
                assert await body_of(reader) == BLOB
                writer.close()


@on_both_loops
async def test_a_reader_that_leaves_or_stalls_frees_its_place_and_its_descriptors() -> None:
    settings = Settings(registry_downloads_max=1, client_stall_timeout_s=0.3)
    async with registry(settings=settings) as client:
        digest = await client.push_blob(BLOB)
        before = open_sockets()
        for leaves in (True, False):
            async with asyncio.timeout(10):
                reader, writer = await admitted(client, digest)
            if leaves:
                writer.transport.abort()
            async with asyncio.timeout(10):
                while (await client.call("GET", f"/v2/app/blobs/{digest}")).status == 429:
                    await asyncio.sleep(0.01)
            if not leaves:
                async with asyncio.timeout(10):
                    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                        await reader.readexactly(len(BLOB))
                writer.close()
        async with asyncio.timeout(10):
            while open_sockets() > before + 1:  # the one that ``call`` keeps alive
                await asyncio.sleep(0.01)


@on_both_loops
async def test_a_reader_that_leaves_is_no_error() -> None:
    """It is what every interrupted pull does; an operator who looks for errors must not find it."""
    records: list[logging.LogRecord] = []
    listener = logging.Handler(logging.WARNING)
    listener.emit = records.append  # type: ignore[method-assign]
    logging.getLogger().addHandler(listener)
    try:
        async with registry(settings=Settings(registry_downloads_max=1)) as client:
            digest = await client.push_blob(BLOB)
            for _ in range(10):
                async with asyncio.timeout(10):
                    _, writer = await admitted(client, digest)
                writer.transport.abort()
            async with asyncio.timeout(10):
                _, writer = await admitted(client, digest)
            writer.close()
    finally:
        logging.getLogger().removeHandler(listener)
    assert [record.getMessage() for record in records] == []


def test_a_socket_is_not_closed_under_a_thread_that_sends() -> None:
    """Its number could belong to another connection by then."""

    class Late:
        """An executor whose thread has not ended yet."""

        def submit(self, *call: object) -> object:
            from concurrent.futures import Future

            self.future: Future[int] = Future()
            self.future.set_running_or_notify_cancel()
            return self.future

    async def run() -> None:
        ours, theirs = socket.socketpair()
        _, writer = await asyncio.open_connection(sock=ours)
        late = Late()
        outlet = Outlet(writer.transport, ours.fileno(), late)  # type: ignore[arg-type]
        writing = asyncio.create_task(outlet.write(b"x" * 1000, 1.0))
        await asyncio.sleep(0)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        outlet.close()
        assert outlet._socket.fileno() >= 0
        late.future.set_result(0)
        assert outlet._socket.fileno() == -1
        writer.close()
        theirs.close()

    asyncio.run(run())


# --- pieces in line -----------------------------------------------------------------------------------


class Held:
    """A piece that loads when it may; says which thread has it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.thread: int | None = None
        self.may = threading.Event()

    def __len__(self) -> int:
        return len(self._data)

    def load(self) -> bytes:
        self.thread = threading.get_ident()
        assert self.may.wait(10)
        return self._data

    async def otherwise(self) -> memoryview:
        raise AssertionError("it loads")


@asynccontextmanager
async def an_outlet(
    threads: Executor | int = 4,
) -> AsyncGenerator[tuple[Outlet, socket.socket], None]:
    """The outlet of one end of a pair of sockets, and the other end.  They hold little between them."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 * 1024)
    theirs.setblocking(False)
    _, writer = await asyncio.open_connection(sock=ours)
    with ThreadPoolExecutor(threads) if isinstance(threads, int) else nullcontext(threads) as executor:
        outlet = Outlet(writer.transport, ours.fileno(), executor)
        try:
            async with asyncio.timeout(10):
                yield outlet, theirs
        finally:
            outlet.close()
            writer.close()
            theirs.close()


async def received(theirs: socket.socket, count: int) -> bytes:
    """The next so many bytes."""
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < count:
        data += await loop.sock_recv(theirs, count - len(data))
    return data


async def a_while() -> None:
    """Enough turns of the loop for whatever needs no thread and no client."""
    for _ in range(20):
        await asyncio.sleep(0)


@on_both_loops
async def test_a_thread_goes_on_with_the_piece_in_line() -> None:
    async with an_outlet() as (outlet, theirs):
        await outlet.write(b"begin", 1.0)
        first, second, third = Held(b"one"), Held(b"two"), Held(b"three")
        await outlet.write(first, 1.0)
        second.may.set()
        writing = asyncio.create_task(outlet.write(second, 1.0))
        await a_while()
        assert not writing.done(), "one piece waits, not two"
        first.may.set()
        await writing
        await outlet.write(third, 1.0)
        finishing = asyncio.create_task(outlet.finish(1.0))
        await a_while()
        assert not finishing.done()
        third.may.set()
        await finishing
        assert first.thread == second.thread, "no way back to the loop between them"
        assert await received(theirs, 16) == b"beginonetwothree"


@on_both_loops
async def test_nothing_waits_in_line_for_a_client_that_is_slow() -> None:
    """Else each slow client would hold one more piece in memory."""
    async with an_outlet() as (outlet, theirs):
        for _ in range(3):
            slow = asyncio.create_task(outlet.write(b"s" * MIB, 5.0))
            while outlet._keeps_up or not outlet._line:
                await asyncio.sleep(0.001)
            assert not slow.done(), "most of it is not sent"
            assert await received(theirs, MIB) == b"s" * MIB
            await slow
        await outlet.write(b"quick", 1.0)
        await outlet.write(slow_again := Held(b"s" * MIB), 1.0)
        next_one = asyncio.create_task(outlet.write(b"next", 1.0))
        slow_again.may.set()
        await received(theirs, 5 + MIB)
        await next_one
        await outlet.finish(1.0)
        assert await received(theirs, 4) == b"next"


@on_both_loops
async def test_an_outlet_that_is_closed_begins_no_other_piece() -> None:
    async with an_outlet() as (outlet, theirs):
        await outlet.write(b"begin", 1.0)
        first, second = Held(b"one"), Held(b"two")
        await outlet.write(first, 1.0)
        writing = asyncio.create_task(outlet.write(second, 1.0))
        while first.thread is None:
            await asyncio.sleep(0.001)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        outlet.close()
        first.may.set()
        while outlet._socket.fileno() >= 0:
            await asyncio.sleep(0.001)
        assert second.thread is None
        assert await received(theirs, 8) == b"beginone"


class Followed:
    """A piece that loads when the next one is in line; so the thread that sends always finds one."""

    def __init__(self, outlet: Outlet, enough: threading.Event) -> None:
        self._outlet, self._enough = outlet, enough

    def __len__(self) -> int:
        return 1

    def load(self) -> bytes:
        while len(self._outlet._line) < 2 and not self._enough.wait(0.001):
            pass
        return b"f"

    async def otherwise(self) -> memoryview:
        raise AssertionError("it loads")


@on_both_loops
async def test_a_fast_client_does_not_keep_a_thread_from_the_others() -> None:
    enough = threading.Event()
    async with an_outlet(threads=1) as (outlet, theirs), an_outlet(outlet._threads) as (other, _):

        async def without_end() -> None:
            await outlet.write(b"f", 1.0)  # from now on one may wait in line
            while not enough.is_set():
                await outlet.write(Followed(outlet, enough), 1.0)

        fast = asyncio.create_task(without_end())
        try:
            await received(theirs, 10)
            await other.write(b"me too", 1.0)
        finally:
            enough.set()
        await fast


@on_both_loops
async def test_a_client_that_leaves_is_told_to_whoever_waits_in_line() -> None:
    async with an_outlet() as (outlet, theirs):
        await outlet.write(b"begin", 1.0)
        first = Held(b"o" * MIB)
        await outlet.write(first, 1.0)
        writing = asyncio.create_task(outlet.write(b"two", 1.0))
        await a_while()
        theirs.close()
        first.may.set()
        with pytest.raises(ConnectionError):
            await writing
            await outlet.finish(1.0)


# --- pieces that whoever sends them reads -------------------------------------------------------------


class Later:
    """A piece that is there when it is loaded, or only otherwise."""

    def __init__(self, data: bytes, loads: bool, fails: bool = False) -> None:
        self._data, self._loads, self._fails = data, loads, fails
        self.thread = ""

    def __len__(self) -> int:
        return len(self._data)

    def load(self) -> bytes | None:
        self.thread = threading.current_thread().name
        return self._data if self._loads else None

    async def otherwise(self) -> memoryview:
        if self._fails:
            raise NoGoodCopy("every replica is gone")
        await asyncio.sleep(0)
        return memoryview(self._data)


class DeferringReader(MemoryReader):
    """Of its pieces the third is lost in some way."""

    pieces: ClassVar[list[Later]] = []
    third_fails: ClassVar[bool] = False

    async def deferred(self) -> AsyncGenerator[Buffer | Deferred, None]:
        number = 0
        whole = memoryview(b"".join(self._data))
        for start in range(0, len(whole), 2 * MIB + 7):
            piece = whole[start : start + 2 * MIB + 7]
            number += 1
            if number == 2:
                yield piece
                continue
            later = Later(bytes(piece), number != 3, self.third_fails)
            self.pieces.append(later)
            yield later


@contextmanager
def deferring(*, third_fails: bool = False) -> Iterator[list[Later]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory_store, "MemoryReader", DeferringReader)
        patch.setattr(DeferringReader, "pieces", [])
        patch.setattr(DeferringReader, "third_fails", third_fails)
        yield DeferringReader.pieces


@on_both_loops
async def test_deferred_pieces_come_in_order_from_threads_and_otherwise() -> None:
    with deferring() as pieces:
        async with registry() as client:
            digest = await client.push_blob(BLOB)
            reader, writer = await asked(client, digest)
            ask(writer, digest, "Range: bytes=5000000-")
            ask(writer, digest, "Range: bytes=7-17,4000000-8999999")
            assert await body_of(reader, pause_s=0.001) == BLOB
            assert await body_of(reader) == BLOB[5_000_000:]
            several = await body_of(reader)
            assert BLOB[7:18] in several
            assert BLOB[4_000_000:9_000_000] in several
            writer.close()
    assert len(pieces) > 6
    assert all(piece.thread.startswith("send") for piece in pieces), "never by the event loop"


@on_both_loops
async def test_a_deferred_piece_that_cannot_be_had_cuts_the_connection() -> None:
    with deferring(third_fails=True):
        async with registry() as client:
            digest = await client.push_blob(BLOB)
            reader, writer = await asked(client, digest)
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"200 OK" in head
            with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)) as raised:
                await reader.readexactly(len(BLOB))
            if isinstance(raised.value, asyncio.IncompleteReadError):
                assert BLOB.startswith(raised.value.partial)
            writer.close()
