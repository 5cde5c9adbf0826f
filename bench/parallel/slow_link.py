"""A link on which each connection is slow: a relay that lets so many bytes a second through each.

So it is where the distance, not the line, bounds a connection: its window goes over once in each round trip.
"""

from __future__ import annotations

import asyncio
from multiprocessing.connection import Connection
from types import TracebackType

from bench.child import Child

PIECE_BYTES = 64 * 1024


class SlowLink:
    """The relay, in a process of its own.  A context manager: leaving it ends the process."""

    def __init__(self, host: str, port: int, bytes_per_s: int) -> None:
        self._child = Child("the slow link", _relay, host, port, bytes_per_s)
        self.url = self._child.address

    def __enter__(self) -> SlowLink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.terminate()
        self._child.close()


def _relay(pipe: Connection, host: str, port: int, bytes_per_s: int) -> None:
    asyncio.run(_serve(pipe, host, port, bytes_per_s))


async def _serve(pipe: Connection, host: str, port: int, bytes_per_s: int) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, port, limit=PIECE_BYTES)
        await asyncio.gather(_copy(reader, far_writer, bytes_per_s), _copy(far_reader, writer, bytes_per_s))

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=PIECE_BYTES)
    pipe.send(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    await server.serve_forever()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bytes_per_s: int) -> None:
    """Everything that comes, at that rate; then the end."""
    clock = asyncio.get_running_loop().time
    free_at = clock()
    try:
        while piece := await reader.read(PIECE_BYTES):
            writer.write(piece)
            await writer.drain()
            free_at = max(free_at, clock()) + len(piece) / bytes_per_s
            await asyncio.sleep(free_at - clock())
    except ConnectionError:
        pass  # either side may hang up: the other is told so
    finally:
        writer.close()
