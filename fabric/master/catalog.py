"""The catalog: what every path names.

``keys`` has the layout of the store, ``transaction`` the operations of a commit, ``listing`` the
listings.  Reads here see what is durable.  A commit is applied to a delta, together with the answer to
it under its operation id; both become durable in one write, which is the only point of visibility.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from fabric.errors import BadRequest, FidExpired, Internal, NotFound
from fabric.master import keys, pages, references
from fabric.master.delta import DeltaStore
from fabric.master.fids import FidLeases
from fabric.master.operation_ids import OperationIds
from fabric.master.paths import check_path
from fabric.master.records import ObjectRecord, decode_object
from fabric.master.store import Reader
from fabric.master.transaction import Transaction
from fabric.wire.messages import Commit, Committed, Found, FragmentRef, Fragments, Moved, Opened


class Applied(msgspec.Struct, frozen=True):
    """A commit that is in a delta, and what follows once the delta is durable."""

    answer: Committed
    operation_id: bytes = b""
    """To be remembered; empty when this was a repetition."""
    doomed: Sequence[int] = ()
    stale_paths: Sequence[str] = ()
    changed_paths: Sequence[str] = ()


class Relocation(msgspec.Struct, frozen=True):
    """What came of a ``Relocate``."""

    named: list[bool]
    """For each fragment: an object names the new one now."""
    left: Sequence[FragmentRef] = ()
    """Old ones that objects named until now."""
    doomed: Sequence[int] = ()
    """Ids of objects without a path that hold those."""


class Catalog:
    """Commits and reads.  ``is_group`` says whether a group id is one of ours."""

    def __init__(
        self, store: Reader, fids: FidLeases, operation_ids: OperationIds, is_group: Callable[[int], bool]
    ) -> None:
        self._store = store
        self._fids = fids
        self._operation_ids = operation_ids
        self._is_group = is_group
        self._generation = 0

    def load(self) -> None:
        """Take up the counters of the store."""
        value = self._store.get(keys.GENERATION)
        self._generation = 0 if value is None else keys.to_number(value)

    # --- writing ----------------------------------------------------------------------------------

    def commit(self, batch: DeltaStore, commit: Commit, now: float, created_at_ms: int) -> Applied:
        """Apply a commit to the batch, or find the answer to an earlier one with its operation id.

        Raises NotFound, Precondition, FidExpired or BadRequest; the batch is as before then.
        """
        earlier = self._operation_ids.find(batch, commit.operation_id)
        if earlier is not None:
            return Applied(earlier)
        delta = DeltaStore(batch)
        taken: set[int] = set()

        def check_fragments(fragments: Sequence[FragmentRef]) -> None:
            for fragment in fragments:
                self._check_fragment(fragment, taken, now)
                taken.add(fragment.fid)

        transaction = Transaction(delta, self._generation, created_at_ms, check_fragments)
        transaction.run(commit.operations)
        self._generation = transaction.generation
        delta.put(keys.GENERATION, keys.number(self._generation))
        answer = Committed(transaction.results)
        self._operation_ids.remember(delta, commit.operation_id, self._generation, answer)
        self._fids.mark_used(transaction.fids)
        batch.absorb(delta)
        return Applied(
            answer,
            commit.operation_id,
            transaction.doomed,
            transaction.stale_paths,
            transaction.changed_paths,
        )

    def relocate(self, delta: DeltaStore, moved: Sequence[Moved], now: float) -> Relocation:
        """Let objects name fragments where they were moved to.  What cannot be any more is left as it is."""
        named: list[bool] = []
        left: list[FragmentRef] = []
        for move in moved:
            if references.find(delta, move.target.group, move.target.fid) is not None:
                named.append(True)  # said before: a fid is named once
                continue
            named.append(self._relocate_one(delta, move, now))
            if named[-1]:
                left.append(move.source)
        if not left:
            return Relocation(named)
        # Readers may have the old fragments on their list: they get the time that a delete gives them.
        self._generation += 1
        delta.put(keys.GENERATION, keys.number(self._generation))
        pages.append(delta, self._generation, 0, 0, 0, left)
        delta.put(keys.doomed_key(self._generation), b"")
        return Relocation(named, left, [self._generation])

    def _relocate_one(self, delta: DeltaStore, move: Moved, now: float) -> bool:
        source, target = move.source, move.target
        reference = references.find(delta, source.group, source.fid)
        if reference is None or delta.get(keys.doomed_key(reference.object_id)) is not None:
            return False
        if (target.length, target.checksum) != (source.length, source.checksum):
            return False
        try:
            self._check_fragment(target, set(), now)
        except (BadRequest, FidExpired):
            return False
        if not pages.replace(delta, reference.object_id, reference.start, source, target):
            return False
        self._fids.mark_used([target.fid])
        return True

    def _check_fragment(self, fragment: FragmentRef, taken: set[int], now: float) -> None:
        fid = fragment.fid
        if fragment.length == 0:
            raise BadRequest(f"fragment {fid} has no bytes")
        if not self._is_group(fragment.group):
            raise BadRequest(f"fragment {fid} names group {fragment.group}, which does not exist")
        if not self._fids.is_live(fid, now):
            raise FidExpired(f"the lease of fid {fid} is over; store the fragment again")
        if fid in taken or self._fids.is_used(fid):
            raise BadRequest(f"fid {fid} is already part of an object")

    # --- reading ----------------------------------------------------------------------------------

    def stat(self, path: str) -> Found:
        """What is at ``path``.  Raises NotFound, BadRequest."""
        return Found(self._read(path).info(path))

    def open(self, path: str, offset: int) -> Opened:
        """The object and the page around ``offset``, empty at the end.  Raises NotFound,
        BadRequest, Internal when a page is missing."""
        record = self._read(path)
        page = self._page(record.object_id, offset, record.size, record.last_start)
        if page is None:
            raise Internal(f"the fragments of {path} from byte {offset} are missing in the catalog")
        return Opened(record.info(path), *page)

    def fragments(self, object_id: int, offset: int) -> Fragments:
        """The page of an object's fragments around ``offset``, empty at the end.

        Also of an object that was deleted a moment ago, so that its readers may finish.  Raises
        NotFound when the object has no fragments.
        """
        last = pages.page_at(self._store, object_id, keys.OFFSET_MAX)
        if last is None:
            raise NotFound(f"no fragments of object {object_id}")
        size = last[0] + sum(fragment.length for fragment in last[1])
        page = self._page(object_id, offset, size, last[0])
        if page is None:
            raise NotFound(f"no fragments of object {object_id}")
        return Fragments(*page)

    def _read(self, path: str) -> ObjectRecord:
        check_path(path)
        value = self._store.get(keys.object_key(path))
        if value is None:
            raise NotFound(f"no object at {path}")
        return decode_object(value)

    def _page(
        self, object_id: int, offset: int, size: int, last_start: int
    ) -> tuple[int, list[FragmentRef], bool] | None:
        """Start, fragments, and whether more follow.  The store may already be ahead of ``size``."""
        if offset >= size:
            return size, [], False
        # Most objects have one page, and its key is known.
        known = last_start if offset >= last_start else None
        found = pages.page_at(self._store, object_id, offset, known)
        if found is None:
            return None
        start, fragments = found
        end = start + sum(fragment.length for fragment in fragments)
        return start, fragments, end < size
