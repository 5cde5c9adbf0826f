"""An object's fragments, in pages.

Each page holds up to ``FRAGMENTS_PER_PAGE_MAX`` fragments and is found by the offset of its first
byte, so that an append touches the last page and a new one, and a read from the middle finds its
page by one backward scan, whatever the size of the object.
"""

from __future__ import annotations

from collections.abc import Sequence

from fabric.master import keys, references
from fabric.master.delta import DeltaStore
from fabric.master.records import decode_page, encode
from fabric.master.store import Reader
from fabric.settings import FRAGMENTS_PER_PAGE_MAX
from fabric.wire.messages import FragmentRef


def append(
    delta: DeltaStore,
    object_id: int,
    size: int,
    last_start: int,
    last_count: int,
    fragments: Sequence[FragmentRef],
) -> tuple[int, int, int]:
    """Add fragments behind byte ``size``; returns the new size, last start and last count."""
    if not fragments:
        return size, last_start, last_count
    room = FRAGMENTS_PER_PAGE_MAX - last_count if last_count else 0
    if room:
        head = fragments[:room]
        references.add(delta, object_id, last_start, head)
        value = delta.get(keys.page_key(object_id, last_start))
        assert value is not None, "an object's record names its last page"
        delta.put(keys.page_key(object_id, last_start), encode([*decode_page(value), *head]))
        size += sum(fragment.length for fragment in head)
        last_count += len(head)
        fragments = fragments[room:]
    for first in range(0, len(fragments), FRAGMENTS_PER_PAGE_MAX):
        page = fragments[first : first + FRAGMENTS_PER_PAGE_MAX]
        delta.put(keys.page_key(object_id, size), encode(page))
        references.add(delta, object_id, size, page)
        last_start, last_count = size, len(page)
        size += sum(fragment.length for fragment in page)
    return size, last_start, last_count


def replace(delta: DeltaStore, object_id: int, start: int, old: FragmentRef, new: FragmentRef) -> bool:
    """Let a page name ``new``, of the same length, in the place of ``old``; False when it names no such."""
    key = keys.page_key(object_id, start)
    value = delta.get(key)
    page = decode_page(value) if value is not None else []
    if old not in page:
        return False
    page[page.index(old)] = new
    delta.put(key, encode(page))
    references.remove(delta, [old])
    references.add(delta, object_id, start, [new])
    return True


def page_at(
    store: Reader, object_id: int, offset: int, known_start: int | None = None
) -> tuple[int, list[FragmentRef]] | None:
    """Start and fragments of the page that contains byte ``offset``, were the object long enough.

    ``known_start`` is where that page begins, if the caller knows.  None when there is no such page.
    """
    if known_start is not None:
        value = store.get(keys.page_key(object_id, known_start))
        return None if value is None else (known_start, decode_page(value))
    stop = keys.page_key(object_id, min(offset, keys.OFFSET_MAX - 1) + 1)
    found = store.scan(keys.page_key(object_id, 0), stop, 1, True)
    if not found:
        return None
    key, value = found[0]
    return keys.last_number(key), decode_page(value)


def pages_of(store: Reader, object_id: int, limit: int) -> list[tuple[bytes, list[FragmentRef]]]:
    """Keys and fragments of the first ``limit`` pages."""
    pairs = store.scan(keys.page_key(object_id, 0), keys.page_key(object_id, keys.OFFSET_MAX), limit)
    return [(key, decode_page(value)) for key, value in pairs]
