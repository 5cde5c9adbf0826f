"""What the HTTP server can do that the registry is made of: a sink and a source, nothing behind them."""

from __future__ import annotations

import asyncio
import socket
from multiprocessing.connection import Connection
from types import TracebackType

import uvloop
from aiohttp import web

from bench.child import Child
from fabric.settings import MIB

PIECE_BYTES = 1 * MIB


class BareHttp:
    """The bare server in a process of its own.  A context manager: leaving it ends the process."""

    def __init__(self) -> None:
        self._child = Child("the bare HTTP server", _serve)
        self.url = self._child.address
        """``PUT {url}/sink`` takes and forgets; ``GET {url}/source/N`` gives N bytes."""

    def __enter__(self) -> BareHttp:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.close()


def _serve(pipe: Connection) -> None:
    uvloop.run(_serve_until_closed(pipe))


async def _serve_until_closed(pipe: Connection) -> None:
    application = web.Application()
    application.router.add_put("/sink", _sink)
    application.router.add_get("/source/{size}", _source)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listener).start()
    pipe.send(f"http://127.0.0.1:{listener.getsockname()[1]}")
    await asyncio.to_thread(_wait_for_end, pipe)
    await runner.cleanup()


def _wait_for_end(pipe: Connection) -> None:
    try:
        pipe.recv()
    except (EOFError, KeyboardInterrupt):
        return


async def _sink(request: web.Request) -> web.Response:
    size = 0
    while data := await request.content.readany():
        size += len(data)
    return web.Response(status=201, text=str(size))


async def _source(request: web.Request) -> web.StreamResponse:
    left = int(request.match_info["size"])
    response = web.StreamResponse()
    response.content_length = left
    await response.prepare(request)
    piece = memoryview(bytes(PIECE_BYTES))
    while left:
        part = piece[: min(left, PIECE_BYTES)]
        await response.write(part)
        left -= len(part)
    await response.write_eof()
    return response
