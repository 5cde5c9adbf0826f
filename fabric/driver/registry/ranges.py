"""Byte ranges: the Range of a download (RFC 9110, section 14) and the Content-Range of an upload."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fabric.driver.registry.errors import RegistryError

RANGES_MAX = 16
"""Ranges in one answer; a request for more is answered with everything."""

_UPLOAD_RANGE = re.compile(r"([0-9]{1,19})-([0-9]{1,19})")
_RANGES = re.compile(r"bytes=(.*)", re.IGNORECASE | re.DOTALL)
_ONE_RANGE = re.compile(r"([0-9]{0,40})-([0-9]{0,40})")


@dataclass(frozen=True, slots=True)
class ByteRange:
    """``length`` bytes from ``start``; never empty, except as the whole of nothing."""

    start: int
    length: int

    @property
    def last(self) -> int:
        """Position of the last byte."""
        return self.start + self.length - 1


def download_ranges(header: str, size: int) -> Sequence[ByteRange] | None:
    """The parts of ``size`` bytes that a Range header asks for, in its order; None: all of it.

    A header that cannot be read, of another unit, of too many ranges or of more bytes than there are
    counts as absent, as the RFC allows.  Raises RegistryError 416 when nothing of the ranges exists, or
    one of them ends before it begins.
    """
    wanted = _RANGES.fullmatch(header)
    if wanted is None:
        return None
    texts = [text.strip(" \t") for text in wanted[1].split(",")]
    matches = [_ONE_RANGE.fullmatch(text) for text in texts if text]
    if not matches or len(matches) > RANGES_MAX:
        return None
    found = []
    for match in matches:
        if match is None or match.group(1, 2) == ("", ""):
            return None
        found.append(_part(match[1], match[2], size))
    parts = [part for part in found if part is not None]
    if not size and any(match is not None and not match[1] for match in matches):
        return None  # the last so many bytes of nothing are all there is
    if not parts:
        raise _not_satisfiable(size)
    return None if sum(part.length for part in parts) > size else parts


def _part(first: str, last: str, size: int) -> ByteRange | None:
    """What exists of one range; None when nothing does."""
    if first and last and int(first) > int(last):
        raise _not_satisfiable(size)
    if first:
        start, end = int(first), min(size, int(last) + 1) if last else size
    else:
        start, end = max(0, size - int(last)), size
    return ByteRange(start, end - start) if start < end else None


def _not_satisfiable(size: int) -> RegistryError:
    message = f"nothing of that range exists in {size} bytes"
    return RegistryError(416, "SIZE_INVALID", message, None, {"Content-Range": f"bytes */{size}"})


def upload_range(header: str) -> ByteRange | None:
    """What a chunk's Content-Range declares, such as ``0-1023``; None when it is malformed."""
    match = _UPLOAD_RANGE.fullmatch(header.strip())
    if match is None:
        return None
    first, last = int(match[1]), int(match[2])
    return ByteRange(first, last - first + 1) if first <= last else None


def progress_header(size: int) -> str:
    """The Range header that says how much of an upload is here.

    The header has no form for "nothing yet".  ``0-0`` is what Docker's registry has always said then, and
    what clients know; a client that has not sent a byte must not take it for one that arrived.
    """
    return f"0-{max(0, size - 1)}"
