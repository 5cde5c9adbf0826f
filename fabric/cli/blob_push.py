"""A client of uploads in parts: one file through several connections, with what went wrong tried again.

Every part is a request that is safe to repeat, so any failure that may pass (no connection, a broken one,
408, 429, 5xx) is answered by the same request a little later.  What is missing is asked of the registry,
never remembered: a new process that knows the upload's location goes on where the last one was.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from fabric.settings import MIB

PIECE_BYTES = MIB
"""Read from the file and given to the connection at once."""

DIGEST_STEP_BYTES = 16 * MIB
"""After so many it can be cancelled."""

PART_BYTES = 64 * MIB
ATTEMPTS_MAX = 8
"""Of one request, without a success in between."""
PAUSE_S_MAX = 15.0
CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 120.0
"""Without a byte from the registry."""

_PASSING = {408, 425, 429, 500, 502, 503, 504}

OnBytes = Callable[[int], object]
"""Told of bytes as they go out; of fewer than none when they have to go again."""


class PushError(Exception):
    """The registry refused, or could not be reached often enough."""


class UploadGone(PushError):
    """There is no such upload (any more)."""


@dataclass(frozen=True, slots=True)
class Span:
    """``size`` bytes of the file from ``start``."""

    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a registry said."""

    status: int
    headers: Any
    document: Any


class BlobPush:
    """Pushes one open file.  ``urls`` are addresses of the same registry: parts go to all of them in turn."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        urls: Sequence[str],
        name: str,
        descriptor: int,
        size: int,
        on_bytes: OnBytes,
    ) -> None:
        self._session = session
        self._urls = [url.rstrip("/") for url in urls]
        self._next = itertools.cycle(self._urls)
        self._name = name
        self._descriptor = descriptor
        self._size = size
        self._on_bytes = on_bytes
        self.location = ""
        """Path of the upload; who knows it can go on with it."""

    # --- steps ------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """A new upload.  Raises PushError, also when the registry does not take parts."""
        answer = await self._ask("POST", f"/v2/{self._name}/_fabric/uploads/parts", {202})
        self.location = urlsplit(answer.headers["Location"]).path

    async def resume(self, location: str) -> int:
        """Go on with an upload; returns how many bytes it has.  Raises UploadGone, PushError."""
        self.location = location
        return self._size - sum(gap.size for gap in await self._missing())

    async def send(self, connections: int, part_bytes: int) -> None:
        """Send whatever is missing, through so many connections.  Raises PushError."""
        while missing := await self._missing():
            queue = deque(parts_of(missing, part_bytes))
            async with asyncio.TaskGroup() as group:
                for _ in range(min(connections, len(queue))):
                    group.create_task(self._work(queue))

    async def finish(self, digest: str, on_digested: Callable[[int], object]) -> None:
        """Make it a blob; waits while the registry computes the digest.  Raises PushError."""
        path = f"{self.location}?digest={digest}&size={self._size}"
        while True:
            answer = await self._ask("PUT", path, {201, 202})
            if answer.status == 201:
                return
            on_digested(int(answer.headers.get("Fabric-Digested", 0)))
            await asyncio.sleep(_seconds(answer.headers.get("Retry-After"), 1.0))

    # --- parts ------------------------------------------------------------------------------------

    async def _missing(self) -> list[Span]:
        answer = await self._ask("GET", self.location, {200})
        missing, position = [], int(answer.document["size"])
        for part in answer.document["waiting"]:
            if part["start"] > position:
                missing.append(Span(position, part["start"] - position))
            position = part["start"] + part["size"]
        if position < self._size:
            missing.append(Span(position, self._size - position))
        return missing

    async def _work(self, queue: deque[Span]) -> None:
        while queue:
            await self._send_part(queue.popleft())

    async def _send_part(self, part: Span) -> None:
        headers = {
            "Content-Range": f"{part.start}-{part.start + part.size - 1}",
            "Content-Length": str(part.size),
            "Content-Type": "application/octet-stream",
        }
        await self._ask("PATCH", self.location, {202}, headers, part)

    async def _body(self, part: Span, sent: list[int]) -> AsyncIterator[bytes]:
        for start in range(part.start, part.start + part.size, PIECE_BYTES):
            count = min(PIECE_BYTES, part.start + part.size - start)
            piece = await asyncio.to_thread(os.pread, self._descriptor, count, start)
            if len(piece) != count:
                raise PushError("the file became shorter while it was read")
            sent[0] += count
            self._on_bytes(count)
            yield piece

    # --- one request ------------------------------------------------------------------------------

    async def _ask(
        self,
        method: str,
        path: str,
        expected: set[int],
        headers: dict[str, str] | None = None,
        part: Span | None = None,
    ) -> Answer:
        """The answer, of one of the statuses that are expected.  Raises PushError."""
        problem = ""
        for attempt in range(ATTEMPTS_MAX):
            if attempt:
                await asyncio.sleep(min(PAUSE_S_MAX, 0.2 * 2**attempt))
            sent = [0]
            url = next(self._next) + path
            try:
                data = self._body(part, sent) if part is not None else b""
                async with self._session.request(method, url, data=data, headers=headers or {}) as response:
                    answer = Answer(response.status, response.headers, await _document(response))
            except (aiohttp.ClientError, TimeoutError) as error:
                problem = f"{url}: {error or type(error).__name__}"
            else:
                if answer.status in expected:
                    return answer
                problem = f"{method} {url}: {answer.status}: {_message(answer)}"
                if answer.status not in _PASSING:
                    raise UploadGone(problem) if _is_gone(answer) else PushError(problem)
            self._on_bytes(-sent[0])
        raise PushError(f"given up after {ATTEMPTS_MAX} attempts: {problem}")


def parts_of(spans: Sequence[Span], part_bytes: int) -> Iterator[Span]:
    """The spans cut at multiples of ``part_bytes``, in order."""
    for span in spans:
        start, end = span.start, span.start + span.size
        while start < end:
            stop = min(end, (start // part_bytes + 1) * part_bytes)
            yield Span(start, stop - start)
            start = stop


async def file_digest(descriptor: int, size: int) -> str:
    """The digest of a file's first ``size`` bytes, computed on a thread."""
    digest = hashlib.sha256()

    def add(start: int, end: int) -> None:
        for position in range(start, end, PIECE_BYTES):
            digest.update(os.pread(descriptor, min(PIECE_BYTES, end - position), position))

    for start in range(0, size, DIGEST_STEP_BYTES):
        await asyncio.to_thread(add, start, min(size, start + DIGEST_STEP_BYTES))
    return f"sha256:{digest.hexdigest()}"


def new_session(connections: int, authorization: str = "") -> aiohttp.ClientSession:
    """A session for so many connections at once; ``authorization`` goes into the header of that name."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections + 2),
        headers={"Authorization": authorization} if authorization else {},
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=ANSWER_TIMEOUT_S),
    )


async def _document(response: aiohttp.ClientResponse) -> Any:
    if response.content_type != "application/json":
        await response.read()
        return None
    return await response.json()


def _message(answer: Answer) -> str:
    errors = answer.document.get("errors") if isinstance(answer.document, dict) else None
    return "; ".join(f"{each['code']}: {each['message']}" for each in errors or []) or "no explanation"


def _is_gone(answer: Answer) -> bool:
    return answer.status == 404 and "BLOB_UPLOAD_UNKNOWN" in _message(answer)


def _seconds(text: str | None, default: float) -> float:
    return min(PAUSE_S_MAX, float(text)) if text is not None and text.isdigit() else default
