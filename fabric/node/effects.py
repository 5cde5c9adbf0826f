"""What a role asks its shell to do.  A role returns a list of these and does nothing itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from fabric.wire.messages import Message

if TYPE_CHECKING:
    from typing import TypeAlias


class Payload(Protocol):
    """A fragment's bytes on their way: ``bytes``, ``memoryview``, a received ZeroMQ frame, ``Unread``.

    Roles that only pass it on need its length.  ``memoryview(payload)`` gives the bytes without a
    copy, unless it is ``Unread``.  Nobody changes the bytes of a payload.
    """

    def __len__(self) -> int: ...


class Unread:
    """A ``Payload`` whose bytes are still somewhere else.

    Whoever needs them calls ``load``, off the loop; who only passes it on does not.  No ABC: every message is
    asked whether its payload is one, and a plain class answers that many times as fast.
    """

    def __len__(self) -> int:
        raise NotImplementedError

    def load(self) -> Iterator[bytes]:
        """The bytes, ``len(self)`` of them, in pieces.

        Raises FabricError, maybe after some, when they cannot be had any more.
        """
        raise NotImplementedError


class Sender(msgspec.Struct, frozen=True):
    """Where a message came from, and the id under which it is answered.

    Of a request: ``route`` is the routing id (bytes) of the asking peer.  Of a reply to a ``Send``:
    ``route`` is the endpoint (str) that was asked and ``request_id`` the one of the ``Send``.
    Of a publication: route ``"published"``.  Of finished work: ``WORKER``.
    """

    route: bytes | str
    request_id: int
    correlation: bytes = b""
    """What a REQ socket with ``ZMQ_REQ_CORRELATE`` put before the delimiter; goes back with the reply."""


WORKER = Sender("worker", 0)
"""The sender of what a ``Run`` gave back."""


class Reply(msgspec.Struct, frozen=True):
    """Answer a request, or with request id 0 tell a peer something unasked."""

    to: Sender
    message: Message
    payload: Any = None


class Send(msgspec.Struct, frozen=True):
    """Ask the role that listens at ``endpoint``; its reply comes back as an event."""

    endpoint: str
    request_id: int
    message: Message
    payload: Any = None


class Publish(msgspec.Struct, frozen=True):
    """Tell all subscribers.  May be lost: never the only way to learn."""

    message: Message


class Run(msgspec.Struct, frozen=True):
    """Do this off the loop, in order within its lane; the result comes back with sender ``WORKER``.

    A lane is one thread or a small pool, named when the shell is built; what a job is, is between a
    role and its worker (``chunk.engine``, ``master.store``).
    """

    lane: str
    job: object


class Exit(msgspec.Struct, frozen=True):
    """End the process: the role cannot go on.  ``status`` is the exit status."""

    reason: str
    status: int = 1


Effect: TypeAlias = "Reply | Send | Publish | Run | Exit"
