"""The operations of one commit, applied to a delta: all of them, or an error and none.

Every operation sees what those before it did.  An object's bytes have an id of their own, which a
move keeps: that makes a move cheap whatever the object's size.  When no path leads to an id any more
the id is doomed, in the same transaction, so that its fragments cannot be forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fabric.errors import BadRequest, NotFound, Precondition
from fabric.master import keys, pages
from fabric.master.delta import DeltaStore
from fabric.master.paths import check_path
from fabric.master.records import ObjectRecord, decode_object, encode
from fabric.settings import FRAGMENTS_PER_PAGE_MAX, JOINED_FRAGMENTS_MAX
from fabric.wire.messages import (
    AnyOperation,
    AppendOperation,
    CheckOperation,
    DeleteOperation,
    FragmentRef,
    JoinOperation,
    MoveOperation,
    ObjectInfo,
    PutOperation,
)

ATTRIBUTES_MAX = 16

CheckFragments = Callable[[Sequence[FragmentRef]], None]
"""Raises BadRequest or FidExpired when a fragment cannot be committed now."""


class Transaction:
    """One commit under way."""

    def __init__(
        self, delta: DeltaStore, generation: int, created_at_ms: int, check_fragments: CheckFragments
    ) -> None:
        self._delta = delta
        self._created_at_ms = created_at_ms
        self._check_fragments = check_fragments
        self.generation = generation
        """The highest number given out; each object that a commit changes gets the next one."""
        self.results: list[ObjectInfo | None] = []
        self.doomed: list[int] = []
        """Object ids that no path leads to any more."""
        self.stale_paths: list[str] = []
        """Paths whose immutable object was removed or replaced."""
        self.changed_paths: list[str] = []
        """Paths that had an object, and whoever knows it knows it no longer as it is."""
        self.fids: list[int] = []
        """Fids that became part of objects."""
        self._joined = 0
        """Fragments that went from one object to another."""

    def run(self, operations: Sequence[AnyOperation]) -> None:
        """Do them in order.  Raises FabricError and its kin; the delta is useless then."""
        for operation in operations:
            self.results.append(_STEPS[type(operation)](self, operation))

    # --- one operation each -----------------------------------------------------------------------

    def _put(self, operation: PutOperation) -> ObjectInfo:
        check_path(operation.path)
        present = self._read(operation.path)
        _check_generation(operation.path, present, operation.if_generation)
        self._take_fragments(operation.fragments)
        if present is not None:
            self._doom(operation.path, present)
        self.generation += 1
        object_id = self.generation
        size, last_start, last_count = pages.append(self._delta, object_id, 0, 0, 0, operation.fragments)
        record = ObjectRecord(
            object_id,
            size,
            self.generation,
            self._created_at_ms,
            operation.digest,
            operation.attributes,
            operation.immutable,
            last_start,
            last_count,
        )
        return self._write(operation.path, record, present)

    def _append(self, operation: AppendOperation) -> ObjectInfo:
        check_path(operation.path)
        present = self._read(operation.path)
        present = self._growing(operation.path, operation.expected_size)
        self._take_fragments(operation.fragments)
        attributes = {**present.attributes, **operation.attributes}
        if len(attributes) > ATTRIBUTES_MAX:
            raise BadRequest(f"{operation.path}: {len(attributes)} attributes, {ATTRIBUTES_MAX} allowed")
        return self._grow(operation.path, present, operation.fragments, attributes)

    def _join(self, operation: JoinOperation) -> ObjectInfo:
        path, source = operation.path, operation.source
        check_path(path)
        check_path(source)
        if path == source:
            raise BadRequest(f"{path} cannot be joined to itself")
        present = self._growing(path, operation.expected_size)
        joined = self._read(source)
        if joined is None:
            raise NotFound(f"no object at {source}")
        if joined.immutable:
            raise BadRequest(f"{source} is immutable: its fragments stay where they are")
        fragments = self._leave_pages(source, joined)
        self._delta.delete(keys.object_key(source))
        self.changed_paths.append(source)
        return self._grow(path, present, fragments, present.attributes)

    def _move(self, operation: MoveOperation) -> ObjectInfo:
        source, target = operation.source, operation.target
        check_path(source)
        check_path(target)
        moved = self._read(source)
        if moved is None:
            raise NotFound(f"no object at {source}")
        present = moved if target == source else self._read(target)
        _check_generation(target, present, operation.if_generation)
        if moved.immutable:
            self.stale_paths.append(source)
        if target != source:
            if present is not None:
                self._doom(target, present)
            self._delta.delete(keys.object_key(source))
            self.changed_paths.append(source)
        self.generation += 1
        record = ObjectRecord(
            moved.object_id,
            moved.size,
            self.generation,
            moved.created_at_ms,
            operation.digest or moved.digest,
            operation.attributes if operation.replace_attributes else moved.attributes,
            operation.immutable,
            moved.last_start,
            moved.last_count,
        )
        return self._write(target, record, present)

    def _delete(self, operation: DeleteOperation) -> None:
        check_path(operation.path)
        present = self._read(operation.path)
        if present is None:
            if operation.missing_ok or operation.if_generation == 0:
                return
            raise NotFound(f"no object at {operation.path}")
        _check_generation(operation.path, present, operation.if_generation)
        self._doom(operation.path, present)
        self._delta.delete(keys.object_key(operation.path))
        self.changed_paths.append(operation.path)

    def _check(self, operation: CheckOperation) -> None:
        check_path(operation.path)
        present = self._read(operation.path)
        if operation.generation == -1:
            if present is None:
                raise Precondition(f"{operation.path} does not exist")
            return
        _check_generation(operation.path, present, operation.generation)

    # --- parts ------------------------------------------------------------------------------------

    def _growing(self, path: str, expected_size: int) -> ObjectRecord:
        """What is at ``path``, if something can be put at its end now."""
        present = self._read(path)
        if present is None:
            raise NotFound(f"no object at {path}")
        if present.immutable:
            raise BadRequest(f"{path} is immutable: nothing can be appended")
        if present.size != expected_size:
            raise Precondition(f"{path} has {present.size} bytes, {expected_size} were expected")
        return present

    def _grow(
        self, path: str, present: ObjectRecord, fragments: Sequence[FragmentRef], attributes: dict[str, str]
    ) -> ObjectInfo:
        size, last_start, last_count = pages.append(
            self._delta, present.object_id, present.size, present.last_start, present.last_count, fragments
        )
        self.generation += 1
        record = ObjectRecord(
            present.object_id,
            size,
            self.generation,
            present.created_at_ms,
            present.digest,
            attributes,
            False,
            last_start,
            last_count,
        )
        return self._write(path, record, present)

    def _leave_pages(self, path: str, record: ObjectRecord) -> list[FragmentRef]:
        """Take an object's fragments out of its pages.

        Their references stay: whoever names the fragments next, in this transaction, overwrites them.
        """
        room = JOINED_FRAGMENTS_MAX - self._joined
        fragments: list[FragmentRef] = []
        for key, page in pages.pages_of(self._delta, record.object_id, room // FRAGMENTS_PER_PAGE_MAX + 2):
            fragments += page
            self._delta.delete(key)
        if len(fragments) > room:
            raise BadRequest(f"{path}: one commit joins {JOINED_FRAGMENTS_MAX} fragments at most")
        self._joined += len(fragments)
        return fragments

    def _read(self, path: str) -> ObjectRecord | None:
        value = self._delta.get(keys.object_key(path))
        return None if value is None else decode_object(value)

    def _write(self, path: str, record: ObjectRecord, present: ObjectRecord | None) -> ObjectInfo:
        if present is not None and _seen(present) != _seen(record):
            self.changed_paths.append(path)
        self._delta.put(keys.object_key(path), encode(record))
        return record.info(path)

    def _take_fragments(self, fragments: Sequence[FragmentRef]) -> None:
        self._check_fragments(fragments)
        self.fids += [fragment.fid for fragment in fragments]

    def _doom(self, path: str, record: ObjectRecord) -> None:
        if record.immutable:
            self.stale_paths.append(path)
        if record.last_count:
            self._delta.put(keys.doomed_key(record.object_id), b"")
            self.doomed.append(record.object_id)


def _seen(record: ObjectRecord) -> tuple[object, ...]:
    """What others may keep a copy of: not the generation.  An empty attribute is as good as none."""
    attributes = {name: value for name, value in record.attributes.items() if value}
    return record.size, record.digest, attributes, record.immutable


_STEPS: dict[type, Callable[[Transaction, AnyOperation], ObjectInfo | None]] = {
    PutOperation: Transaction._put,  # type: ignore[dict-item]
    AppendOperation: Transaction._append,  # type: ignore[dict-item]
    MoveOperation: Transaction._move,  # type: ignore[dict-item]
    DeleteOperation: Transaction._delete,  # type: ignore[dict-item]
    CheckOperation: Transaction._check,  # type: ignore[dict-item]
    JoinOperation: Transaction._join,  # type: ignore[dict-item]
}


def _check_generation(path: str, present: ObjectRecord | None, wanted: int) -> None:
    """Hold an ``if_generation`` against what is at ``path``: -1 anything, 0 nothing, n just that."""
    if wanted == -1:
        return
    if wanted < -1:
        raise BadRequest(f"{path}: {wanted} is not a generation")
    found = 0 if present is None else present.generation
    if found != wanted:
        have = f"is at generation {found}" if found else "does not exist"
        want = f"generation {wanted} was expected" if wanted else "it was expected not to"
        raise Precondition(f"{path} {have}, but {want}" if found or wanted else f"{path} {have}")
