"""What is in a layer: read once, from front to end, in bounded memory, whoever made it.

A layer is a tar file, plain or compressed, from a client that may be hostile.  So nothing is read in
pieces whose size a header decides, a file's headers have a bound together (they may come in endless
chains), decompression is bounded step by step, and there is an end to how many files and bytes are looked
at.
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Protocol, cast

from fabric.driver.registry.v1.checksums import TARSUM_V1
from fabric.settings import GIB, KIB, MIB

HEADER_BYTES_MAX = MIB
"""Of one file: its names, extended attributes and all."""

GLOBAL_FIELDS_MAX = 64
LISTING_CHARACTERS_MAX = 64 * MIB
MEMBERS_MAX = 500_000
UNPACKED_BYTES_MAX = 256 * GIB
_STEP_BYTES = 64 * KIB
_XZ_MEMORY_BYTES_MAX = 128 * MIB

ReadPiece = Callable[[], bytes]
"""The next bytes of the layer; empty at its end."""

_XATTR = "SCHILY.xattr."

_LETTERS = {
    tarfile.REGTYPE: "f", tarfile.AREGTYPE: "f", tarfile.CONTTYPE: "t", tarfile.LNKTYPE: "l",
    tarfile.SYMTYPE: "s", tarfile.CHRTYPE: "c", tarfile.BLKTYPE: "b", tarfile.DIRTYPE: "d",
    tarfile.FIFOTYPE: "i", tarfile.GNUTYPE_SPARSE: "f",
}  # fmt: skip
"""How a listing tells the kinds of files."""


class UnreadableLayer(Exception):
    """Not a tar file that we can read, or too large a one."""


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Gunzip:
    """zlib with the interface that bz2 and lzma share."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


def _decompressor(head: bytes) -> _Decompressor | None:
    if head.startswith(b"\x1f\x8b"):
        return _Gunzip()
    if head.startswith(b"BZh"):
        return bz2.BZ2Decompressor()
    if head.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES_MAX)
    return None


def unpacked(read: ReadPiece) -> Iterator[bytes]:
    """The layer's bytes without compression.  Raises UnreadableLayer."""
    head = b""
    while len(head) < 6 and (piece := read()):
        head += piece
    engine = _decompressor(head)
    if engine is None:
        yield head
        yield from iter(read, b"")
        return
    try:
        yield from _decompressed(engine, head, read)
    except (zlib.error, lzma.LZMAError, OSError, ValueError) as error:
        raise UnreadableLayer(f"the layer's compression is broken: {error}") from error


def _decompressed(engine: _Decompressor, data: bytes, read: ReadPiece) -> Iterator[bytes]:
    while True:
        piece = engine.decompress(data, _STEP_BYTES)
        data = b""
        if piece:
            yield piece
        if engine.eof:
            data = engine.unused_data or read()
            following = _decompressor(data)
            if following is None:
                return  # the end, or padding behind it
            engine = following
        elif engine.needs_input:
            data = read()
            if not data and not piece:
                raise UnreadableLayer("the layer's compression ends too early")


class _Forward:
    """As much of a file as ``tarfile`` needs; it only goes forward."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.header_bytes_left = 0
        """Headers may come in chains, all of them in memory."""
        self._pieces = pieces
        self._held = b""
        self._position = 0

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        while self._position < position and self.take(min(_STEP_BYTES, position - self._position)):
            pass
        return self._position

    def read(self, size: int) -> bytes:
        """Bytes of headers: ``tarfile`` is asked for nothing else."""
        self.header_bytes_left -= size
        if self.header_bytes_left < 0:
            raise UnreadableLayer("headers that are too large")
        return self.take(size)

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes; fewer at the end."""
        parts = []
        missing = size
        while missing and (self._held or self._fill()):
            part, self._held = self._held[:missing], self._held[missing:]
            missing -= len(part)
            parts.append(part)
        self._position += size - missing
        if self._position > UNPACKED_BYTES_MAX:
            raise UnreadableLayer(f"more than {UNPACKED_BYTES_MAX} bytes of files")
        return b"".join(parts)

    def _fill(self) -> bool:
        self._held = next(self._pieces, b"")
        return bool(self._held)


def members(read: ReadPiece) -> Iterator[tuple[tarfile.TarInfo, Iterator[bytes]]]:
    """Each file's header and its bytes, which need not be taken.  Raises UnreadableLayer."""
    forward = _Forward(piece for piece in unpacked(read) if piece)
    forward.header_bytes_left = HEADER_BYTES_MAX
    try:
        # Of a header's text nothing may get lost: it is hashed.
        tar = tarfile.TarFile(fileobj=cast(IO[bytes], forward), errors="surrogateescape")
        for _ in range(MEMBERS_MAX):
            forward.header_bytes_left = HEADER_BYTES_MAX
            member = tar.next()
            if member is None:
                return
            tar.members.clear()  # type: ignore[attr-defined]  # it remembers every one
            if len(tar.pax_headers) > GLOBAL_FIELDS_MAX:
                raise UnreadableLayer("too many fields for all files")
            yield member, _content(forward, member)
    except (tarfile.TarError, RecursionError) as error:
        raise UnreadableLayer(f"not a tar file: {error}") from error
    raise UnreadableLayer(f"more than {MEMBERS_MAX} files")


def _content(forward: _Forward, member: tarfile.TarInfo) -> Iterator[bytes]:
    left = member.size if member.isreg() and not member.issparse() else 0
    while left:
        piece = forward.take(min(left, _STEP_BYTES))
        if not piece:
            raise UnreadableLayer(f"{member.name[:200]!r} ends too early")
        left -= len(piece)
        yield piece


# --- tarsum ---------------------------------------------------------------------------------------


def tar_sum(read: ReadPiece, image_json: bytes, kind: str) -> str:
    """The hex digits of a tarsum of that kind.  Raises UnreadableLayer."""
    sums = []
    for member, content in members(read):
        running = hashlib.sha256(_header(member, kind))
        for piece in content:
            running.update(piece)
        sums.append(running.hexdigest())
    total = hashlib.sha256(image_json)
    for one in sorted(sums):
        total.update(one.encode())
    return total.hexdigest()


def _header(member: tarfile.TarInfo, kind: str) -> bytes:
    """The fields that count, names and values without a gap."""
    is_folder = member.isdir() and not member.name.endswith("/")
    fields: list[tuple[str, object]] = [
        ("name", member.name + "/" if is_folder else member.name),
        ("mode", member.mode),
        ("uid", member.uid),
        ("gid", member.gid),
        ("size", member.size),
        ("mtime", int(member.mtime // 1)),
        ("typeflag", member.type.decode("latin-1")),
        ("linkname", member.linkname),
        ("uname", member.uname),
        ("gname", member.gname),
        ("devmajor", member.devmajor),
        ("devminor", member.devminor),
    ]
    if kind == TARSUM_V1:
        found = {key.removeprefix(_XATTR): text for key, text in member.pax_headers.items()
                 if key.startswith(_XATTR)}  # fmt: skip
        fields = [field for field in fields if field[0] != "mtime"] + sorted(found.items())
    return "".join(f"{name}{value}" for name, value in fields).encode(errors="surrogateescape")


# --- listing --------------------------------------------------------------------------------------


def listing(read: ReadPiece) -> list[list[object]]:
    """Each file as path, kind, whether it is deleted, size, time, mode, user and group.

    A union file system's mark for a deleted file stands for that file; its other marks are left out.
    Raises UnreadableLayer.
    """
    entries: list[list[object]] = []
    characters_left = LISTING_CHARACTERS_MAX
    for member, _ in members(read):
        path = "/" + member.name.removeprefix("./").lstrip("/") if member.name != "." else "/"
        folder, slash, name = path.rpartition("/")
        characters_left -= len(path)
        if characters_left < 0:
            raise UnreadableLayer("the names of its files are too long")
        if name.startswith(".wh..wh."):
            continue
        is_deleted = name.startswith(".wh.")
        shown = folder + slash + name.removeprefix(".wh.")
        entries.append([
            shown.encode(errors="surrogateescape").decode(errors="replace"),
            _LETTERS.get(member.type, "u"), is_deleted, member.size, int(member.mtime // 1), member.mode,
            member.uid, member.gid,
        ])  # fmt: skip
    return entries
