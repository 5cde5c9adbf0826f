"""Writes the body of an answer to its socket from threads, beside the event loop.

Large bodies cost a server little but copies into the kernel.  Made by the event loop they take turns on one
processor with all else that it does, a quarter of a MiB at a time; made by threads they use every processor,
a whole fragment at a time.  No thread waits for a client: what a socket does not take at once is
left until the event loop sees that there is room.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from concurrent.futures import Executor, Future

from aiohttp import web

from fabric.driver.object_store import Buffer, Deferred

PATIENCE_MS = 1
"""How long a thread waits for a full socket: a client that is fast has made room by then."""


class Outlet:
    """The socket of one answer.  Between ``take`` and ``close`` nobody else writes to it."""

    def __init__(self, transport: asyncio.Transport, descriptor: int, threads: Executor) -> None:
        self._transport = transport
        # A descriptor of its own: the transport may close its one, and its number be used again, any time.
        self._socket = socket.socket(fileno=os.dup(descriptor))
        self._socket.setblocking(False)
        self._threads = threads
        self._sending: Future[tuple[Buffer | None, int]] | None = None

    @classmethod
    def take(cls, request: web.Request, threads: Executor) -> Outlet | None:
        """The socket of a request whose answer has begun; None when bytes must go through the transport.

        So it is where the transport encrypts, and while it still holds bytes itself.
        """
        transport = request.transport
        if transport is None or transport.is_closing() or transport.get_write_buffer_size():
            return None
        its_socket = transport.get_extra_info("socket")
        if its_socket is None or transport.get_extra_info("sslcontext") is not None:
            return None
        return cls(transport, its_socket.fileno(), threads)

    async def write(self, data: Buffer | Deferred, stall_s: float) -> None:
        """Returns when the kernel has all bytes.

        Raises TimeoutError when it takes nothing for ``stall_s`` seconds, ConnectionError when the
        client is gone, and FabricError when a deferred piece cannot be had.
        """
        left = data
        while True:
            if self._transport.is_closing():
                raise ConnectionResetError("the client has gone")
            self._sending = self._threads.submit(_load_and_send, self._socket, left)
            found, sent = await asyncio.wrap_future(self._sending)
            if found is None:
                assert not isinstance(left, Buffer)
                left = await left.otherwise()
                continue
            left = memoryview(found)[sent:]
            if not left:
                return
            async with asyncio.timeout(stall_s):
                await self._room()

    async def _room(self) -> None:
        loop = asyncio.get_running_loop()
        room = asyncio.Event()
        loop.add_writer(self._socket, room.set)
        try:
            await room.wait()
        finally:
            loop.remove_writer(self._socket)

    def close(self) -> None:
        """Give the socket back to its transport; a thread that is still sending ends first."""
        if self._sending is None:
            self._socket.close()
        else:
            self._sending.add_done_callback(lambda _: self._socket.close())


async def loaded(piece: Buffer | Deferred, threads: Executor) -> Buffer:
    """The bytes of a piece.  Raises FabricError."""
    if isinstance(piece, Buffer):
        return piece
    found = await asyncio.get_running_loop().run_in_executor(threads, piece.load)
    return found if found is not None else await piece.otherwise()


def _load_and_send(to: socket.socket, piece: Buffer | Deferred) -> tuple[Buffer | None, int]:
    """The bytes, and how many of them were sent; None when there are none to be loaded.

    One thread does both: bytes that a processor has just read it need not fetch from another.
    """
    data = piece if isinstance(piece, Buffer) else piece.load()
    return data, 0 if data is None else _send(to, memoryview(data))


def _send(to: socket.socket, data: memoryview) -> int:
    """Send what the socket takes without a wait worth the name; how many bytes that was."""
    sent = 0
    poll: select.poll | None = None
    while sent < len(data):
        try:
            sent += to.send(data[sent:])
        except BlockingIOError:
            if poll is None:
                poll = select.poll()
                poll.register(to, select.POLLOUT)
            if not poll.poll(PATIENCE_MS):
                break
    return sent
