"""An HTTP client that costs next to nothing, the same one for every server.

Client and server share the cores here, so what the client does is taken from the server.  Bodies go out by
``sendfile``, from the page cache into the socket without a copy; bodies that come in are thrown away by the
kernel (``MSG_TRUNC``), unless they are to be checked.  A thread for each connection; the interpreter's lock
is free while they wait.  HTTP/1.1 with Content-Length only, which is what these servers answer with.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

from bench.errors import BenchError
from bench.http import Blob
from bench.stats import Sample

TIMEOUT_S = 120.0
PIECE_BYTES = 1024 * 1024
HEAD_BYTES_MAX = 64 * 1024
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


class Answer(NamedTuple):
    """A status, the headers with small letters, and how many bytes the body had."""

    status: int
    headers: dict[str, str]
    body_bytes: int
    sha256: str
    """Of the body, when it was to be checked; else empty."""


class Connection:
    """One connection, kept alive.  A context manager."""

    def __init__(self, url: str) -> None:
        """Raises OSError."""
        parts = urlsplit(url)
        self._host = parts.netloc
        self._socket = socket.create_connection((parts.hostname, parts.port), TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(PIECE_BYTES)

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def ask(
        self,
        method: str,
        target: str,
        body: bytes | Path = b"",
        *,
        kind: str = "application/octet-stream",
        check: bool = False,
    ) -> Answer:
        """One request and the whole of its answer.  Raises BenchError, OSError."""
        size = body.stat().st_size if isinstance(body, Path) else len(body)
        head = f"{method} {target} HTTP/1.1\r\nHost: {self._host}\r\nAccept: */*, {MANIFEST_TYPE}\r\n"
        if method not in ("GET", "HEAD"):
            head += f"Content-Type: {kind}\r\nContent-Length: {size}\r\n"
        self._socket.sendall(head.encode() + b"\r\n")
        if isinstance(body, Path):
            with body.open("rb") as file:
                self._socket.sendfile(file)
        elif body:
            self._socket.sendall(body)
        return self._answer(method, check)

    def _answer(self, method: str, check: bool) -> Answer:
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            piece = self._socket.recv(HEAD_BYTES_MAX)
            if not piece or len(data) > HEAD_BYTES_MAX:
                raise BenchError(f"{method}: the server closed the connection, or never ended its headers")
            data += piece
        status, headers = parse_head(data[:end])
        size = body_bytes(method, status, headers)
        begun = data[end + 4 :]
        digest = hashlib.sha256(begun) if check else None
        left = size - len(begun)
        while left > 0:
            flags = 0 if check else socket.MSG_TRUNC
            count = self._socket.recv_into(self._buffer, min(left, PIECE_BYTES), flags)
            if not count:
                raise BenchError(f"{method}: the answer ended {left} bytes too early")
            if digest is not None:
                digest.update(memoryview(self._buffer)[:count])
            left -= count
        return Answer(status, headers, size, digest.hexdigest() if digest is not None else "")


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers of an answer.  Raises BenchError."""
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
        raise BenchError(f"no HTTP answer: {first[:80]}")
    pairs = (line.partition(":") for line in lines)
    return int(words[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}


def body_bytes(method: str, status: int, headers: dict[str, str]) -> int:
    """How long the body is that follows.  Raises BenchError when the headers do not say."""
    if method == "HEAD" or status in (204, 304):
        return 0
    if "content-length" not in headers:
        raise BenchError(f"{method}: an answer without Content-Length")
    return int(headers["content-length"])


def expect(answer: Answer, *statuses: int) -> Answer:
    """The answer, if its status is one of these.  Raises BenchError."""
    if answer.status not in statuses:
        raise BenchError(f"answered with status {answer.status}, not {' or '.join(map(str, statuses))}")
    return answer


# --- what is done with it -------------------------------------------------------------------------


def push(registry: str, repository: str, blob: Blob) -> Sample:
    """Upload a blob as docker does: POST, PATCH with all bytes, PUT.  Raises BenchError."""
    with Connection(registry) as connection:
        started = perf_counter()
        begun = expect(connection.ask("POST", f"/v2/{repository}/blobs/uploads/"), 202)
        sent = expect(connection.ask("PATCH", _local(registry, begun), blob.path), 202)
        target = _local(registry, sent)
        joint = "&" if "?" in target else "?"
        expect(connection.ask("PUT", f"{target}{joint}digest={blob.digest}"), 201)
        seconds = perf_counter() - started
    return Sample([seconds], blob.size, seconds)


def put_manifest(registry: str, repository: str, tag: str, manifest: bytes) -> None:
    """Upload a manifest.  Raises BenchError."""
    with Connection(registry) as connection:
        target = f"/v2/{repository}/manifests/{tag}"
        expect(connection.ask("PUT", target, manifest, kind=MANIFEST_TYPE), 201)


def put_file(server: str, target: str, blob: Blob) -> Sample:
    """One PUT of the whole file, as SeaweedFS's filer takes it.  Raises BenchError."""
    with Connection(server) as connection:
        started = perf_counter()
        expect(connection.ask("PUT", target, blob.path), 200, 201)
        seconds = perf_counter() - started
    return Sample([seconds], blob.size, seconds)


def get(server: str, target: str, size: int, at_once: int = 1) -> Sample:
    """As many GETs of the same at the same time, until the last has all its bytes.  Raises BenchError."""

    def one() -> float:
        started = perf_counter()
        with Connection(server) as connection:
            answer = expect(connection.ask("GET", target), 200)
        if answer.body_bytes != size:
            raise BenchError(f"{answer.body_bytes} bytes came, {size} were put")
        return perf_counter() - started

    latencies, elapsed = at_the_same_time(one, at_once)
    return Sample(latencies, size * at_once, elapsed)


def verify(server: str, target: str, blob: Blob) -> None:
    """Get it once and compare every byte.  Raises BenchError."""
    with Connection(server) as connection:
        answer = expect(connection.ask("GET", target, check=True), 200)
    if f"sha256:{answer.sha256}" != blob.digest:
        raise BenchError(f"{server}{target} gave other bytes than were put")


def at_the_same_time(work: Callable[[], float], count: int) -> tuple[list[float], float]:
    """Results of ``count`` threads, and the time until the last of them had ended."""
    with ThreadPoolExecutor(count) as pool:
        started = perf_counter()
        futures = [pool.submit(work) for _ in range(count)]
        results = [future.result() for future in futures]
        return results, perf_counter() - started


def _local(registry: str, answer: Answer) -> str:
    """Path and query of where an upload goes on."""
    parts = urlsplit(urljoin(registry, answer.headers.get("location", "")))
    return parts.path + (f"?{parts.query}" if parts.query else "")
