"""The values of the master's store, and how they are encoded (MessagePack arrays).

New fields go to the end and have a default, so that an older store stays readable.
"""

from __future__ import annotations

import msgspec

from fabric.wire.messages import Committed, FragmentRef, ObjectInfo


class ObjectRecord(msgspec.Struct, array_like=True, frozen=True):
    """An object, without its path and its fragments."""

    object_id: int
    size: int
    generation: int
    created_at_ms: int
    digest: str
    attributes: dict[str, str]
    immutable: bool
    last_start: int = 0
    """Offset at which its last page begins."""
    last_count: int = 0
    """Fragments in its last page; 0 only when it has no page."""

    def info(self, path: str) -> ObjectInfo:
        """As it is told to clients."""
        return ObjectInfo(
            path,
            self.size,
            self.generation,
            self.object_id,
            self.digest,
            self.created_at_ms,
            self.attributes,
            self.immutable,
        )


class NodeRecord(msgspec.Struct, array_like=True, frozen=True):
    """A chunk server's registration."""

    uuid: str
    """Of the data directory that it last joined its group with."""
    group: int
    wanted: str
    """``rw`` or ``ro``: what the operator set."""
    endpoint: str
    placed: bool = False
    """An operator chose its group, whatever group it was started for."""
    retired_from: int = 0
    """The group that it was taken out of last; 0: none."""
    retired_uuids: list[str] = []
    """Of its data directories that were in groups then: their fragments are nobody's any more."""


class GroupRecord(msgspec.Struct, array_like=True, frozen=True):
    """A group as the members were last told, or are about to be."""

    epoch: int
    replicas: int
    members: list[str]
    writable_uuids: dict[str, str]
    """Of each member's data directory when the group last became writable; empty if it never was."""
    learners: dict[str, str] = {}
    """Servers that copy what the members hold -> whose place they are to take; empty: a place of their
    own, beside the members.  One that takes its own place was a member, and is away or catches up."""
    draining: bool = False
    """Takes no new fragments."""


class Shift(msgspec.Struct, array_like=True):
    """Bytes that are to move from one group to another."""

    source: int
    target: int
    left_bytes: int


class TaskRecord(msgspec.Struct, array_like=True):
    """An operator's task, with all that it must remember over a restart of the master."""

    task: int
    kind: str
    group: int
    server: str
    replacement: str
    state: str
    reason: str
    started_at_ms: int
    """Wall clock, milliseconds since 1970."""
    ended_at_ms: int
    total: int
    done: int
    bytes_per_s: int
    shifts: list[Shift] = []
    joining: str = ""
    """The server that joins a group."""
    audit: int = 0
    """Number of the audit that servers are asked for; 0: none."""
    count: int = 0
    """What something was counted when it began."""


encode = msgspec.msgpack.Encoder().encode

decode_object = msgspec.msgpack.Decoder(ObjectRecord).decode
decode_page = msgspec.msgpack.Decoder(list[FragmentRef]).decode
decode_node = msgspec.msgpack.Decoder(NodeRecord).decode
decode_group = msgspec.msgpack.Decoder(GroupRecord).decode
decode_task = msgspec.msgpack.Decoder(TaskRecord).decode
decode_committed = msgspec.msgpack.Decoder(Committed).decode
