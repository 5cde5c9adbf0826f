"""Every error that crosses a role boundary: one class, one stable code, one answer to "try again?".

A code is part of the wire protocol and never changes its meaning.  ``error_from_code`` turns a
received code back into the class, so that a caller catches ``NoWritableGroup`` and not a string.
"""

from __future__ import annotations

import builtins
from typing import ClassVar


class FabricError(Exception):
    """Something the fabric refused or could not do.

    ``code`` is stable across versions; ``retryable`` says that the same request may succeed later.
    """

    code: ClassVar[str] = "INTERNAL"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str = "") -> None:
        super().__init__(message or type(self).__name__)
        self.message = message or type(self).__name__


class Internal(FabricError):
    """A bug of ours: the request was fine and we failed it."""

    code = "INTERNAL"


# --- the caller's fault -------------------------------------------------------------------------


class BadMessage(FabricError):
    """The frames are not a message of this protocol."""

    code = "BAD_MESSAGE"

    def __init__(self, message: str = "", request_id: int = 0) -> None:
        super().__init__(message)
        self.request_id = request_id


class UnknownKind(BadMessage):
    """The header's kind is not one that this peer answers."""

    code = "UNKNOWN_KIND"


class BadVersion(BadMessage):
    """The peer speaks another protocol version."""

    code = "BAD_VERSION"


class TooLarge(BadMessage):
    """A header, payload or frame count is above the limit."""

    code = "TOO_LARGE"


class BadRequest(FabricError):
    """The message is well formed, its values are not acceptable."""

    code = "BAD_REQUEST"


class NotFound(FabricError, builtins.FileNotFoundError):
    """No object at that path."""

    code = "NOT_FOUND"


class Precondition(FabricError):
    """``if_generation``, an expected size or a check did not hold; nothing was changed."""

    code = "PRECONDITION"


class BadRange(FabricError):
    """The byte range lies outside the object."""

    code = "BAD_RANGE"


class Refused(FabricError):
    """An operator's command that would break a promise, or names nothing that exists."""

    code = "REFUSED"


# --- the world's fault, here and now ------------------------------------------------------------


class Busy(FabricError):
    """A byte limit is reached; come back in a moment."""

    code = "BUSY"
    retryable = True


class DeadlineExceeded(FabricError):
    """No answer before the deadline: whether the request took effect is unknown."""

    code = "DEADLINE"
    retryable = True


class Unavailable(FabricError):
    """A role that is needed for this cannot be reached."""

    code = "UNAVAILABLE"
    retryable = True


class NoWritableGroup(FabricError):
    """No group has all of its replicas ready to write."""

    code = "NO_WRITABLE_GROUP"
    retryable = True


class StaleEpoch(FabricError):
    """The sender's view of the group is older than the receiver's: fetch a snapshot."""

    code = "STALE_EPOCH"
    retryable = True


class NotWritable(FabricError):
    """This chunk server takes no writes now (starting, syncing, read-only or fenced)."""

    code = "NOT_WRITABLE"
    retryable = True


class NoSpace(FabricError):
    """The disk's reserve is reached."""

    code = "NO_SPACE"
    retryable = True


class DiskFailed(FabricError):
    """The disk returned an error; its file is not written again."""

    code = "DISK_FAILED"
    retryable = True


class FidExpired(FabricError):
    """A commit names a fid whose lease is over; store the fragment again."""

    code = "FID_EXPIRED"


class NoFragment(FabricError):
    """This replica does not hold the fragment."""

    code = "NO_FRAGMENT"


class Conflict(FabricError):
    """This fid is already taken by other bytes, or was aborted."""

    code = "CONFLICT"


class BadChecksum(FabricError):
    """The bytes are not those that the checksum was made of."""

    code = "BAD_CHECKSUM"


class MemoryGone(FabricError):
    """The bytes were said to be in memory where the receiver finds none: send the bytes themselves."""

    code = "MEMORY_GONE"


class NoGoodCopy(FabricError):
    """Committed, but no replica could serve it: names the replicas.  Never reported as absent."""

    code = "NO_GOOD_COPY"
    retryable = True


def _tree(root: type[FabricError]) -> list[type[FabricError]]:
    return [root] + [leaf for child in root.__subclasses__() for leaf in _tree(child)]


_BY_CODE: dict[str, type[FabricError]] = {kind.code: kind for kind in _tree(FabricError)}


def error_from_code(code: str, message: str) -> FabricError:
    """The exception for a received ``Failed``; an unknown code becomes ``Internal``."""
    kind = _BY_CODE.get(code)
    return kind(message) if kind is not None else Internal(f"{code}: {message}")
