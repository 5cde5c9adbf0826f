"""The bytes of one blob as an upstream sends them: bounded, in pieces of one size, never silent for long."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator

import aiohttp

from fabric.driver.registry.errors import blob_unknown
from fabric.driver.registry.mirror.failures import UpstreamWrong
from fabric.driver.registry.mirror.upstream import Upstream
from fabric.driver.registry.names import Digest
from fabric.settings import KIB

PIECE_BYTES = 128 * KIB
PIECE_S_MAX = 60.0
"""For one piece: an upstream that is slower than that is given up, however busily it trickles."""

_LENGTH = re.compile(r"[0-9]{1,19}")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-[0-9]{1,19}/([0-9]{1,19})")


async def head_blob(upstream: Upstream, there: str, digest: Digest) -> int:
    """Size in bytes of a blob of the repository that is called ``there`` upstream.

    Raises RegistryError BLOB_UNKNOWN, UpstreamFailed.
    """
    _refuse_missing(upstream, there, digest)
    reply = await upstream.ask("HEAD", there, f"blobs/{digest}", 0)
    _check_status(upstream, there, digest, reply.status)
    return _size(upstream, reply.headers.get("Content-Length"))


async def receive(
    upstream: Upstream, there: str, digest: Digest, start: int, size: int
) -> AsyncGenerator[tuple[int, bytes], None]:
    """The blob's size and nothing, as soon as it is known; then the size and a piece, again and again.

    From ``start`` on, where an earlier connection broke; ``size`` is what that one said, or -1.
    Raises RegistryError BLOB_UNKNOWN, UpstreamFailed.
    """
    _refuse_missing(upstream, there, digest)
    headers = {"Range": f"bytes={start}-"} if start else {}
    async with upstream.opened(there, f"blobs/{digest}", headers) as response:
        _check_status(upstream, there, digest, response.status)
        total = _total(upstream, response, start)
        if size not in (-1, total):
            raise UpstreamWrong(f"{upstream.table.upstream} said {size} bytes, and now {total}")
        yield total, b""
        position = start
        while position < total:
            async with asyncio.timeout(PIECE_S_MAX):
                data = await response.content.readexactly(min(PIECE_BYTES, total - position))
            position += len(data)
            yield total, data


def _refuse_missing(upstream: Upstream, there: str, digest: Digest) -> None:
    if upstream.missing.has(there, str(digest), time.monotonic()):
        raise blob_unknown(digest)


def _check_status(upstream: Upstream, there: str, digest: Digest, status: int) -> None:
    if status == 404:
        upstream.missing.note(there, str(digest), time.monotonic())
        raise blob_unknown(digest)
    if status not in (200, 206):
        raise UpstreamWrong(f"{upstream.table.upstream} answered {status}")


def _total(upstream: Upstream, response: aiohttp.ClientResponse, start: int) -> int:
    """The whole blob's size, by an answer that must begin at ``start``."""
    if not start:
        if response.status != 200:
            raise UpstreamWrong(f"{upstream.table.upstream} answered {response.status} to no Range")
        return _size(upstream, response.headers.get("Content-Length"))
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if response.status != 206 or found is None or int(found[1]) != start:
        raise UpstreamWrong(f"{upstream.table.upstream} does not go on in the middle of a blob")
    return _size(upstream, found[2])


def _size(upstream: Upstream, text: str | None) -> int:
    if text is None or _LENGTH.fullmatch(text) is None:
        raise UpstreamWrong(f"{upstream.table.upstream} does not say how long a blob is")
    if int(text) > upstream.table.blob_bytes_max:
        raise UpstreamWrong(f"a blob of {text} bytes is larger than this mirror takes")
    return int(text)
