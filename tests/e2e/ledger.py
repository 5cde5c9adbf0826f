"""What clients were told, and what a read may therefore show.

A path is written by one worker at a time.  A write that was acknowledged is what the path holds from then
on.  One whose outcome is unknown leaves the path with two possible contents, the old and the new, each
whole; since it may even be done later, nobody writes to that path again.  A read is right when it shows
something that the path could hold at a moment while the read was under way.
"""

from __future__ import annotations

import random
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import NamedTuple

MIB = 1024 * 1024
POOL_BYTES = 24 * MIB


class Version(NamedTuple):
    """One content that somebody wrote.  It is made anew from these two when it is compared."""

    number: int
    size: int


class Contents:
    """Bytes of any size up to ``POOL_BYTES / 2``, different for each version.

    A header with the version's number, then a slice of random bytes at an offset of its own.
    """

    def __init__(self, seed: int) -> None:
        self._pool = random.Random(seed).randbytes(POOL_BYTES)

    def make(self, version: Version) -> bytes:
        """The bytes of a version; very small ones are not unique."""
        offset = version.number * 7919 % (POOL_BYTES // 2)
        header = struct.pack(">QQ", version.number, version.size)
        return (header + self._pool[offset : offset + version.size])[: version.size]


@dataclass
class _Possible:
    version: Version | None
    """None: there is no object."""
    begun: float
    """When the write that made it was begun."""
    until: float = float("inf")
    """When a later write was acknowledged."""


@dataclass
class _Path:
    possible: list[_Possible] = field(default_factory=list)
    unknown: bool = False


class Ledger:
    """All paths of one run.  Times are those of ``time.monotonic``."""

    def __init__(self, seed: int) -> None:
        self._contents = Contents(seed)
        self._lock = threading.Lock()
        self._paths: dict[str, _Path] = {}
        self._last_number = 0

    def begin(self, path: str, size: int | None) -> tuple[Version | None, bytes]:
        """A write of so many bytes, or with None a delete, is about to be asked for."""
        with self._lock:
            version = None
            if size is not None:
                self._last_number += 1
                version = Version(self._last_number, size)
            known = self._paths.setdefault(path, _Path([_Possible(None, 0.0)]))
            assert not known.unknown, f"{path} must not be written any more"
            known.possible.append(_Possible(version, time.monotonic()))
        return version, self._contents.make(version) if version else b""

    def acknowledged(self, path: str) -> None:
        """The write that was begun last is done."""
        now = time.monotonic()
        with self._lock:
            *before, last = self._paths[path].possible
            for possible in before:
                possible.until = min(possible.until, now)
            # Reads of what is long gone are over.
            self._paths[path].possible = [one for one in before if one.until > now - 120.0] + [last]

    def unknown(self, path: str) -> None:
        """The write that was begun last may have been done, or may still be."""
        with self._lock:
            self._paths[path].unknown = True

    def is_unknown(self, path: str) -> bool:
        """Whether a write to it ended without an acknowledgement."""
        with self._lock:
            return self._paths[path].unknown

    def paths(self) -> list[str]:
        """All that were ever written to."""
        with self._lock:
            return list(self._paths)

    def acknowledged_bytes(self) -> int:
        """Of the objects that are there for certain."""
        with self._lock:
            lasts = [path.possible[-1].version for path in self._paths.values() if not path.unknown]
            return sum(version.size for version in lasts if version is not None)

    def problem(self, path: str, begun: float, shown: bytes | None, offset: int = 0) -> str:
        """What is wrong with ``shown``, read since ``begun`` from ``offset`` to the end; else empty.

        None stands for "no such object".
        """
        with self._lock:
            candidates = [one.version for one in self._paths[path].possible if one.until >= begun]
        for version in candidates:
            wanted = None if version is None else self._contents.make(version)[offset:]
            if shown == wanted:
                return ""
        possible = ", ".join(
            "nothing" if one is None else f"{one.number} of {one.size} B" for one in candidates
        )
        return f"{path} from {offset}: {_described(shown)}; possible: {possible}"


def _described(shown: bytes | None) -> str:
    if shown is None:
        return "there is nothing"
    number, size = struct.unpack(">QQ", shown[:16]) if len(shown) >= 16 else (0, 0)
    return f"{len(shown)} bytes that begin with the header of version {number} of {size} B"
