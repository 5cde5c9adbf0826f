"""Writes the body of an answer to its socket from threads, beside the event loop.

Large bodies cost a server little but copies into the kernel.  Made by the event loop they take turns on one
processor with all else that it does, a quarter of a MiB at a time; made by threads they use every processor,
a whole fragment at a time.  No thread waits for a client: what a socket does not take at once is
left until the event loop sees that there is room.

For a client that keeps up the next piece is in line when one is sent: the thread goes on with it, and what
the event loop does for a piece it does beside that, not in between.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections import deque
from concurrent.futures import Executor, Future

from aiohttp import web

from fabric.driver.object_store import Buffer, Deferred

IN_A_ROW_MAX = 4
"""Pieces that a thread sends of one answer before it turns to another that waits for a thread."""
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
        self._line: deque[Buffer | Deferred] = deque()
        """What is not sent yet.  A thread that sends owns the first; who asks for bytes only appends."""
        self._sending: Future[bool] | None = None
        self._moved = asyncio.Event()
        """A piece was sent, or the thread has ended."""
        self._keeps_up = False
        """The socket had room for all of the last ``write``."""
        self._closed = False

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
        """Returns when the kernel has all bytes or, of a client that keeps up, all before these.

        Raises TimeoutError when it takes nothing for ``stall_s`` seconds, ConnectionError when the
        client is gone, and FabricError when a deferred piece cannot be had.
        """
        waiting_max = 1 if self._keeps_up else 0
        self._keeps_up = True
        self._line.append(data)
        await self._send_until(waiting_max, stall_s)

    async def finish(self, stall_s: float) -> None:
        """Returns when the kernel has all bytes.  Raises what ``write`` raises."""
        await self._send_until(0, stall_s)

    async def _send_until(self, left_max: int, stall_s: float) -> None:
        """Send until at most so many pieces are left; one of them is being sent then."""
        while True:
            if self._transport.is_closing():
                raise ConnectionResetError("the client has gone")
            self._moved.clear()
            if self._sending is None or self._sending.done():
                await self._go_on(stall_s)
            if len(self._line) <= left_max:
                return
            await self._moved.wait()

    async def _go_on(self, stall_s: float) -> None:
        """Have a thread send what is in line, once what stopped the last one is out of the way."""
        stopped, self._sending = self._sending, None
        if stopped is not None and stopped.result():
            await self._clear_the_way(stall_s)
        if self._line:
            loop = asyncio.get_running_loop()
            self._sending = self._threads.submit(self._send_line, loop)
            self._sending.add_done_callback(lambda _: loop.call_soon_threadsafe(self._moved.set))

    async def _clear_the_way(self, stall_s: float) -> None:
        first = self._line[0]
        if not isinstance(first, Buffer):
            self._line[0] = await first.otherwise()
            return
        self._keeps_up = False
        async with asyncio.timeout(stall_s):
            await self._room()

    def _send_line(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Send some pieces, one after the other.  True when one is left that has no room, or no bytes."""
        for _ in range(IN_A_ROW_MAX):
            if not self._line or self._closed:
                break
            piece = self._line[0]
            # One thread does both: bytes that a processor has just read it need not fetch from another.
            data = piece if isinstance(piece, Buffer) else piece.load()
            if data is None:
                return True
            view = memoryview(data)
            sent = _send(self._socket, view)
            if sent < len(view):
                self._line[0] = view[sent:]
                return True
            self._line.popleft()
            loop.call_soon_threadsafe(self._moved.set)
        return False

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
        self._closed = True
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
