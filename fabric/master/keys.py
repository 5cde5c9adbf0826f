"""The keys of the master's store, all in one place.

========================================  ===========================================================
``o/<path>``                              object: ``ObjectRecord``
``f/<object id><start offset>``           a page of its fragments: list of ``FragmentRef``
``b/<group><bucket><fid>``                which page names a fragment: object id, start offset
``x/<object id>``                         a doomed object: no path leads to it, its pages still exist
``d/<server> 00 <fid>``                   fragment that this server has yet to delete
``i/<operation id>``                      answer to a commit: its number, then ``Committed``
``n/<server>``                            chunk server: ``NodeRecord``
``g/<group>``                             group: ``GroupRecord``
``t/<task>``                              task of an operator: ``TaskRecord``
``e/<number>``                            event: ``EventRecord``
``m/term``  ``m/generation``  ``m/fids``  counters
``m/horizon``                             all fids below it have expired
``m/by-bucket``                           up to which page ``b/`` is complete; empty: all of it
``m/watched``                             prefixes of names of which copies are kept elsewhere
========================================  ===========================================================

An earlier version kept what is in ``b/`` in ``r/``, with other buckets; it is removed.

Numbers are 8 bytes, a bucket is 1, big endian, so that they sort by value.  Paths and server names are UTF-8.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import msgspec

from fabric.ids import bucket_of

_NUMBER = struct.Struct(">Q")
_PAIR = struct.Struct(">QQ")
_REFERENCE = struct.Struct(">QBQ")

TERM = b"m/term"
GENERATION = b"m/generation"
FIDS = b"m/fids"
HORIZON = b"m/horizon"
REFERENCES_BUILT = b"m/by-bucket"
WATCHED = b"m/watched"

OBJECTS = b"o/"
PAGES = b"f/"
REFERENCES = b"b/"
REFERENCES_OF_EARLIER = b"r/"
DOOMED = b"x/"
DELETES = b"d/"
OPERATIONS = b"i/"
NODES = b"n/"
GROUPS = b"g/"
TASKS = b"t/"
EVENTS = b"e/"

OFFSET_MAX = 2**64 - 1


def number(value: int) -> bytes:
    """A counter or id as it is stored."""
    return _NUMBER.pack(value)


def to_number(value: bytes) -> int:
    """Reads what ``number`` wrote, also at the start of a longer value."""
    return int(_NUMBER.unpack_from(value)[0])


def prefixes(values: Sequence[str]) -> bytes:
    """Prefixes of paths as they are stored."""
    return msgspec.msgpack.encode(values)


def to_prefixes(value: bytes | None) -> list[str]:
    """Reads what ``prefixes`` wrote; none when there is nothing."""
    return [] if value is None else msgspec.msgpack.decode(value, type=list[str])


def last_number(key: bytes) -> int:
    """The number that a key ends with."""
    return int(_NUMBER.unpack_from(key, len(key) - 8)[0])


def after_all(prefix: bytes) -> bytes:
    """The smallest key that is greater than every key beginning with ``prefix``."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else b"\xff" * 9


def object_key(path: str) -> bytes:
    """Of an object's record."""
    return b"o/" + path.encode()


def page_key(object_id: int, start: int) -> bytes:
    """Of the page whose first byte is at ``start``."""
    return b"f/" + _PAIR.pack(object_id, start)


def page_of(key: bytes) -> tuple[int, int]:
    """Object id and start offset that a page's key, or the value of a reference, names."""
    object_id, start = _PAIR.unpack_from(key, len(key) - _PAIR.size)
    return object_id, start


def reference_key(group: int, fid: int) -> bytes:
    """Of what names a fragment."""
    return REFERENCES + _REFERENCE.pack(group, bucket_of(fid), fid)


def reference_value(object_id: int, start: int) -> bytes:
    """The page that names a fragment."""
    return _PAIR.pack(object_id, start)


def references_prefix(group: int, bucket: int | None = None) -> bytes:
    """Of all fragments of a group that something names, or of one bucket of them."""
    return REFERENCES + _NUMBER.pack(group) + (b"" if bucket is None else bytes([bucket]))


def task_key(task: int) -> bytes:
    """Of an operator's task."""
    return b"t/" + _NUMBER.pack(task)


def event_key(event: int) -> bytes:
    """Of an event."""
    return b"e/" + _NUMBER.pack(event)


def doomed_key(object_id: int) -> bytes:
    """Of an object whose fragments are to be deleted."""
    return b"x/" + _NUMBER.pack(object_id)


def operation_key(operation_id: bytes) -> bytes:
    """Of a remembered commit."""
    return b"i/" + operation_id


def deletes_prefix(server: str) -> bytes:
    """Of all fragments that a server has yet to delete."""
    return b"d/" + server.encode() + b"\0"


def node_key(server: str) -> bytes:
    """Of a chunk server's registration."""
    return b"n/" + server.encode()


def group_key(group: int) -> bytes:
    """Of a group."""
    return b"g/" + _NUMBER.pack(group)
