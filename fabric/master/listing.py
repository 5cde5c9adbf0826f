"""Listings: names in byte order, folded at a delimiter, one bounded page at a time.

A folded prefix may stand for millions of names, so it is stepped over with one seek: the scan goes on
at the first key that does not begin with it.
"""

from __future__ import annotations

from collections.abc import Iterator

from fabric.master import keys
from fabric.master.paths import check_text
from fabric.master.records import decode_object
from fabric.master.store import Reader
from fabric.wire.messages import Listing, ListObjects, ObjectInfo

FOLDING_SCAN = 64
"""Keys fetched at once while folding: few, because most of them may be stepped over."""


def list_objects(store: Reader, request: ListObjects) -> Listing:
    """One page.  Raises BadRequest for a prefix or ``after`` that is too long."""
    check_text(request.prefix)
    check_text(request.after)
    objects: list[ObjectInfo] = []
    prefixes: list[str] = []
    last = ""
    for name, value in _entries(store, request):
        if len(objects) + len(prefixes) == request.limit:
            return Listing(objects, prefixes, last)
        last = name
        if value is None:
            prefixes.append(name)
        else:
            objects.append(decode_object(value).info(name))
    return Listing(objects, prefixes, "")


def _entries(store: Reader, request: ListObjects) -> Iterator[tuple[str, bytes | None]]:
    """Names with their records, and folded prefixes with None, in byte order."""
    delimiter = request.delimiter.encode()
    inside = len(keys.OBJECTS) + len(request.prefix.encode())
    start, stop = _range(request, delimiter, inside)
    scan = FOLDING_SCAN if delimiter else request.limit + 1
    while pairs := store.scan(start, stop, scan):
        for key, value in pairs:
            if key < start:
                continue  # below a prefix that was folded since the scan
            end = key.find(delimiter, inside) if delimiter else -1
            if end < 0:
                start = key + b"\0"
                yield key[len(keys.OBJECTS) :].decode(), value
            else:
                folded = key[: end + len(delimiter)]
                start = keys.after_all(folded)
                yield folded[len(keys.OBJECTS) :].decode(), None


def _range(request: ListObjects, delimiter: bytes, inside: int) -> tuple[bytes, bytes]:
    """Where the scan starts and stops."""
    prefix = keys.object_key(request.prefix)
    start = prefix
    if request.after:
        after = keys.object_key(request.after)
        # An ``after`` that is itself a folded prefix has been listed: all of its names are done.
        is_folded = (
            delimiter
            and after.startswith(prefix)
            and after.find(delimiter, inside) == len(after) - len(delimiter)
            and len(after) >= inside + len(delimiter)
        )
        start = max(prefix, keys.after_all(after) if is_folded else after + b"\0")
    return start, keys.after_all(prefix)
