"""Which object names a fragment: the fragment lists of the catalog read the other way round.

Every page that is written writes its references in the same transaction, so the two never disagree.  Three
questions need them: is a fragment an orphan, what must a replica hold, and what is left in a group.

A fragment without a reference is an orphan once its fid is below the horizon (``fids``): then no commit can
name it any more, now or after any restart.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from fabric.master import keys
from fabric.master.delta import DeltaStore
from fabric.master.records import decode_page
from fabric.master.store import Reader
from fabric.wire.messages import FragmentRef

PAGES_PER_STEP = 200
"""Of an older store, when references are made for what it holds."""
REMOVED_PER_STEP = 5_000
"""Of its own references, before that."""


class Reference(msgspec.Struct, frozen=True):
    """``fid`` is named by the page of ``object_id`` that begins at ``start``."""

    fid: int
    object_id: int
    start: int


def add(delta: DeltaStore, object_id: int, start: int, fragments: Iterable[FragmentRef]) -> None:
    """The page that begins at ``start`` names these now."""
    value = keys.reference_value(object_id, start)
    for fragment in fragments:
        delta.put(keys.reference_key(fragment.group, fragment.fid), value)


def remove(delta: DeltaStore, fragments: Iterable[FragmentRef]) -> None:
    """Nothing names these any more."""
    for fragment in fragments:
        delta.delete(keys.reference_key(fragment.group, fragment.fid))


def find(store: Reader, group: int, fid: int) -> Reference | None:
    """What names a fragment; None when nothing does."""
    value = store.get(keys.reference_key(group, fid))
    return None if value is None else Reference(fid, *keys.page_of(value))


def in_bucket(
    store: Reader, group: int, bucket: int, after: int, last: int | None, limit: int
) -> list[Reference]:
    """Those with ``after`` < fid <= ``last`` (None: to the end of the bucket), by fid, at most ``limit``."""
    prefix = keys.references_prefix(group, bucket)
    stop = keys.after_all(prefix) if last is None else prefix + keys.number(last) + b"\0"
    pairs = store.scan(prefix + keys.number(after) + b"\0", stop, limit)
    return [Reference(keys.last_number(key), *keys.page_of(value)) for key, value in pairs]


def of_group(store: Reader, group: int, after: bytes, limit: int) -> tuple[list[Reference], bytes]:
    """The next ones of a group behind the place ``after`` (empty: from the first), and the place reached.

    The place is empty when there are no more.
    """
    prefix = keys.references_prefix(group)
    pairs = store.scan(after + b"\0" if after else prefix, keys.after_all(prefix), limit)
    found = [Reference(keys.last_number(key), *keys.page_of(value)) for key, value in pairs]
    return found, pairs[-1][0] if len(pairs) == limit else b""


def is_any(store: Reader, group: int) -> bool:
    """Does anything name a fragment of this group?"""
    prefix = keys.references_prefix(group)
    return bool(store.scan(prefix, keys.after_all(prefix), 1))


def is_any_kept(store: Reader, group: int, limit: int) -> bool:
    """Does any object that is not deleted name a fragment of this group?  Looks at ``limit`` at most."""
    found, _ = of_group(store, group, b"", limit)
    objects = {reference.object_id for reference in found}
    return len(found) == limit or any(store.get(keys.doomed_key(each)) is None for each in objects)


def fragment(store: Reader, group: int, reference: Reference) -> FragmentRef | None:
    """The fragment as its page has it; None when the page has changed since."""
    value = store.get(keys.page_key(reference.object_id, reference.start))
    page = decode_page(value) if value is not None else []
    return next((f for f in page if (f.group, f.fid) == (group, reference.fid)), None)


def is_built(store: Reader) -> bool:
    """Has every page of the store its references?"""
    value = store.get(keys.REFERENCES_BUILT)
    return value == b"" if value is not None else not store.scan(*_pages(b""), 1)


def build(delta: DeltaStore) -> None:
    """The next step with a store that an earlier version wrote; ``is_built`` says when it is done."""
    earlier = keys.REFERENCES_OF_EARLIER
    removed = delta.scan(earlier, keys.after_all(earlier), REMOVED_PER_STEP)
    for key, _ in removed:
        delta.delete(key)
    if removed:
        return
    pairs = delta.scan(*_pages(delta.get(keys.REFERENCES_BUILT) or b""), PAGES_PER_STEP)
    for key, value in pairs:
        object_id, start = keys.page_of(key)
        add(delta, object_id, start, decode_page(value))
    delta.put(keys.REFERENCES_BUILT, pairs[-1][0] if len(pairs) == PAGES_PER_STEP else b"")


def _pages(after: bytes) -> tuple[bytes, bytes]:
    return (after + b"\0" if after else keys.PAGES), keys.after_all(keys.PAGES)
