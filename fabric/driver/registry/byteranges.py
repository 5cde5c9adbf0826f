"""How a blob, or parts of it, are laid out in the body of an answer (RFC 9110, sections 14.4 and 14.6).

All of it is 200, one part is 206 with a Content-Range, several are 206 with a ``multipart/byteranges``
body: each part behind a heading of its own, the whole of a length that is known before a byte is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fabric.driver.registry.ranges import ByteRange


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes that stand before a range, and the range."""

    heading: bytes
    range: ByteRange


@dataclass(frozen=True, slots=True)
class Layout:
    """A body: its parts in order, then ``ending``; ``headers`` replace those of the whole blob."""

    status: int
    parts: Sequence[Part]
    ending: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Bytes of the body."""
        return sum(len(part.heading) + part.range.length for part in self.parts) + len(self.ending)


def lay_out(ranges: Sequence[ByteRange] | None, size: int, media_type: str, boundary: str) -> Layout:
    """The body for these ranges of ``size`` bytes; None: for all of them.

    ``boundary`` must be a text that no client can have put into the blob.
    """
    if ranges is None:
        return Layout(200, [Part(b"", ByteRange(0, size))])
    if len(ranges) == 1:
        return Layout(206, [Part(b"", ranges[0])], headers={"Content-Range": _content_range(ranges[0], size)})
    parts = [
        Part(
            f"\r\n--{boundary}\r\nContent-Type: {media_type}\r\n"
            f"Content-Range: {_content_range(one, size)}\r\n\r\n".encode(),
            one,
        )
        for one in ranges
    ]
    headers = {"Content-Type": f"multipart/byteranges; boundary={boundary}"}
    return Layout(206, parts, f"\r\n--{boundary}--\r\n".encode(), headers)


def _content_range(one: ByteRange, size: int) -> str:
    return f"bytes {one.start}-{one.last}/{size}"
