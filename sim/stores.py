"""Fragments on their way to replicas, whether each has a message of its own or several share one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fabric.wire.messages import (
    FragmentRef,
    FragmentsStored,
    FragmentStored,
    Message,
    StoreFragment,
    StoreFragments,
)


def sent(message: Message, payload: Any) -> Iterator[tuple[FragmentRef, int, bytes]]:
    """What a request wants to be stored: each fragment, the epoch, its bytes.  Nothing of other requests."""
    data = memoryview(payload) if isinstance(message, StoreFragment | StoreFragments) else memoryview(b"")
    if isinstance(message, StoreFragment):
        yield (
            FragmentRef(message.group, message.fid, len(data), message.checksum),
            message.epoch,
            bytes(data),
        )
    elif isinstance(message, StoreFragments):
        for fragment in message.fragments:
            yield fragment, message.epoch, bytes(data[: fragment.length])
            data = data[fragment.length :]


def confirmed(answer: Message) -> Iterator[tuple[int, int, int]]:
    """What an answer says is stored: group, epoch and fid of each."""
    if isinstance(answer, FragmentStored):
        yield answer.group, answer.epoch, answer.fid
    elif isinstance(answer, FragmentsStored):
        for fragment in answer.stored:
            yield answer.group, answer.epoch, fragment.fid
