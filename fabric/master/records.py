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


class GroupRecord(msgspec.Struct, array_like=True, frozen=True):
    """A group as the members were last told, or are about to be."""

    epoch: int
    replicas: int
    members: list[str]
    writable_uuids: dict[str, str]
    """Of each member's data directory when the group last became writable; empty if it never was."""


encode = msgspec.msgpack.Encoder().encode

decode_object = msgspec.msgpack.Decoder(ObjectRecord).decode
decode_page = msgspec.msgpack.Decoder(list[FragmentRef]).decode
decode_node = msgspec.msgpack.Decoder(NodeRecord).decode
decode_group = msgspec.msgpack.Decoder(GroupRecord).decode
decode_committed = msgspec.msgpack.Decoder(Committed).decode
