"""Byte ranges: the Range of a download (RFC 9110, section 14) and the Content-Range of an upload."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fabric.driver.registry.errors import RegistryError

_UPLOAD_RANGE = re.compile(r"([0-9]{1,19})-([0-9]{1,19})")
_ONE_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,19})-([0-9]{0,19})[ \t]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """``length`` bytes from ``start``; never empty."""

    start: int
    length: int

    @property
    def last(self) -> int:
        """Position of the last byte."""
        return self.start + self.length - 1


def download_range(header: str, size: int) -> ByteRange | None:
    """The part of ``size`` bytes that a Range header asks for; None: all of it.

    A header that is malformed, of another unit, or asks for several ranges counts as absent, as the RFC
    allows.  Raises RegistryError 416 when nothing of the range exists.
    """
    match = _ONE_RANGE.fullmatch(header)
    if match is None or match.group(1, 2) == ("", ""):
        return None
    first, last = match.groups()
    if first and last and int(first) > int(last):
        return None
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
    if start >= end:
        raise RegistryError(
            416, "SIZE_INVALID", f"nothing of that range exists in {size} bytes", None,
            {"Content-Range": f"bytes */{size}"},
        )  # fmt: skip
    return ByteRange(start, end - start)


def upload_range(header: str) -> ByteRange | None:
    """What a chunk's Content-Range declares, such as ``0-1023``; None when it is malformed."""
    match = _UPLOAD_RANGE.fullmatch(header.strip())
    if match is None:
        return None
    first, last = int(match[1]), int(match[2])
    return ByteRange(first, last - first + 1) if first <= last else None


def progress_header(size: int) -> str:
    """The Range header that says how much of an upload is here; ``0-0`` also when nothing is."""
    return f"0-{max(0, size - 1)}"
