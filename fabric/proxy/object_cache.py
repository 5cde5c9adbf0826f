"""Objects that cannot change, remembered until they are deleted.

Only objects that their writer declared immutable (blobs and manifests by digest) are kept, so a
stale entry can only be one of a deleted object.  The master publishes deletions; when a published
number is missed, everything is forgotten.

A deletion may overtake the answer to an ``Open`` that was asked before it.  So every question is
announced by ``ask``; when its path is forgotten meanwhile, ``answer`` does not keep what comes.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from fabric.wire.messages import Opened

BYTES_MAX = 64 * 1024 * 1024
_ENTRY_BYTES, _FRAGMENT_BYTES = 1024, 192
"""What an entry, and each fragment in it, takes in memory; measured, rounded up."""


class Question(msgspec.Struct):
    """Opens of one path under way, none of them older than the last forgetting."""

    path: str
    open: int = 0


class ObjectCache:
    """Path -> its first page of fragments; least recently used entries go first."""

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._entries: OrderedDict[str, Opened] = OrderedDict()
        self._bytes_max = bytes_max
        self._bytes = 0
        self._questions: dict[str, Question] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, path: str, offset: int) -> Opened | None:
        """The page that contains byte ``offset``, if it is here."""
        entry = self._entries.get(path)
        if entry is None:
            return None
        self._entries.move_to_end(path)
        if not entry.more:
            return entry
        return entry if offset < sum(fragment.length for fragment in entry.fragments) else None

    def ask(self, path: str) -> Question:
        """The master is being asked about ``path`` now; give what this returns to ``answer``."""
        question = self._questions.setdefault(path, Question(path))
        question.open += 1
        return question

    def answer(self, question: Question, opened: Opened | None) -> None:
        """The question has ended; remember an immutable object's first page, ignore anything else."""
        path = question.path
        in_time = self._questions.get(path) is question
        question.open -= 1
        if in_time and question.open == 0:
            del self._questions[path]
        if opened is None or not in_time or not opened.info.immutable or opened.start != 0:
            return
        self._drop(path)
        self._entries[path] = opened
        self._bytes += _size(opened)
        while self._bytes > self._bytes_max:
            self._drop(next(iter(self._entries)))

    def forget(self, path: str) -> None:
        """This path was deleted, replaced or is in doubt."""
        self._questions.pop(path, None)
        self._drop(path)

    def clear(self) -> None:
        """A published number was missed: anything may have been deleted."""
        self._questions.clear()
        self._entries.clear()
        self._bytes = 0

    def _drop(self, path: str) -> None:
        entry = self._entries.pop(path, None)
        if entry is not None:
            self._bytes -= _size(entry)


def _size(opened: Opened) -> int:
    attributes = sum(len(key) + len(value) for key, value in opened.info.attributes.items())
    return _ENTRY_BYTES + _FRAGMENT_BYTES * len(opened.fragments) + attributes
