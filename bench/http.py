"""Pushes and pulls of one blob through the registry, by curl: somebody else's client and clock.

A push is three requests, or two: POST opens the upload, PATCH sends the bytes as docker does (chunked)
and PUT closes it; or one PUT sends the bytes and closes it.  The time of a push is that of all of its
requests.  The digest is known before; every push sends other bytes than all before it.  Only bodies of
the right size with the right status count.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urljoin

from bench.errors import BenchError
from bench.stats import Sample
from fabric.settings import MIB

REPOSITORY = "bench/image"
TIMEOUT_S = 300


class Transfer(NamedTuple):
    """One request as curl saw it."""

    status: int
    seconds: float
    uploaded: int
    downloaded: int
    location: str


class Blob:
    """A file of random bytes that can be changed, so that its digest is a new one."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self.digest = ""
        rng = random.Random(size)
        with path.open("wb") as file:
            for start in range(0, size, MIB):
                file.write(rng.randbytes(min(MIB, size - start)))
        self._versions = 0

    def renew(self) -> None:
        """Other bytes: the first eight become a counter; the digest follows."""
        self._versions += 1
        with self.path.open("r+b") as file:
            file.write(self._versions.to_bytes(8, "big"))
        with self.path.open("rb") as file:
            self.digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def curl(url: str, *arguments: str, output: str = "/dev/null") -> Transfer:
    """One request.  Raises BenchError when curl is missing or fails."""
    program = shutil.which("curl")
    if program is None:
        raise BenchError("curl is not installed; leave the HTTP cases out with --only put --only get")
    written = "%{http_code} %{time_total} %{size_upload} %{size_download}"
    # No Expect: it costs a round trip, or a second where the server ignores it.
    command = [program, "-sS", "-H", "Expect:", "-m", str(TIMEOUT_S), "-D", "-", "-o", output, "-w", written]
    done = subprocess.run([*command, *arguments, url], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"curl {url}: {done.stderr.strip()} (status {done.returncode})")
    *headers, figures = done.stdout.splitlines()
    status, seconds, uploaded, downloaded = figures.split()
    locations = [line.partition(":")[2].strip() for line in headers if line.lower().startswith("location:")]
    return Transfer(
        int(status), float(seconds), int(uploaded), int(downloaded), locations[-1] if locations else ""
    )


def push(registry: str, blob: Blob, patch: bool) -> Sample:
    """Upload the blob under a new digest.  Raises BenchError for any answer that is not the right one."""
    blob.renew()
    body = ("-T", str(blob.path), "-H", "Content-Type: application/octet-stream")
    empty = ("-X", "PUT", "-H", "Content-Length: 0")
    uploads = f"{registry}/v2/{REPOSITORY}/blobs/uploads/"
    transfers = [_expect(202, "POST", curl(uploads, "-X", "POST", "-H", "Content-Length: 0"))]
    if patch:
        chunked = ("-X", "PATCH", "-H", "Transfer-Encoding: chunked")
        transfers.append(_expect(202, "PATCH", curl(_location(registry, transfers), *chunked, *body)))
    location = _location(registry, transfers)
    separator = "&" if "?" in location else "?"
    closing = curl(f"{location}{separator}digest={blob.digest}", *(empty if patch else body))
    transfers.append(_expect(201, "PUT", closing))
    sent = sum(transfer.uploaded for transfer in transfers)
    # curl counts the frames of a chunked body too.
    if not blob.size <= sent <= blob.size * 1.01 + 100:
        raise BenchError(f"curl sent {sent} of {blob.size} bytes")
    seconds = sum(transfer.seconds for transfer in transfers)
    return Sample([seconds], blob.size, seconds)


def _location(registry: str, transfers: list[Transfer]) -> str:
    return urljoin(registry, transfers[-1].location)


def pull(registry: str, blob: Blob) -> Sample:
    """Download the blob that was pushed last."""
    return _download(f"{registry}/v2/{REPOSITORY}/blobs/{blob.digest}", blob.size)


def verify(registry: str, blob: Blob, scratch: Path) -> None:
    """Download the blob that was pushed last and compare every byte.  Raises BenchError."""
    target = scratch / "pulled"
    try:
        _expect(200, "GET", curl(f"{registry}/v2/{REPOSITORY}/blobs/{blob.digest}", output=str(target)))
        with target.open("rb") as file:
            found = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        if found != blob.digest:
            raise BenchError(f"pulled {found}, pushed {blob.digest}")
    finally:
        target.unlink(missing_ok=True)


def bare_push(server: str, blob: Blob) -> Sample:
    """The same bytes into the bare server."""
    sent = _expect(201, "PUT", curl(f"{server}/sink", "-T", str(blob.path)))
    return Sample([sent.seconds], blob.size, sent.seconds)


def bare_pull(server: str, blob: Blob) -> Sample:
    """As many bytes from the bare server."""
    return _download(f"{server}/source/{blob.size}", blob.size)


OPERATIONS: dict[str, Callable[[str, Blob], Sample]] = {
    "push-patch": lambda registry, blob: push(registry, blob, patch=True),
    "push-put": lambda registry, blob: push(registry, blob, patch=False),
    "pull": pull,
}


def _download(url: str, size: int) -> Sample:
    got = _expect(200, "GET", curl(url))
    if got.downloaded != size:
        raise BenchError(f"{url}: {got.downloaded} bytes came, {size} expected")
    return Sample([got.seconds], size, got.seconds)


def _expect(status: int, method: str, transfer: Transfer) -> Transfer:
    if transfer.status != status:
        raise BenchError(f"{method} answered with status {transfer.status}, not {status}")
    return transfer
