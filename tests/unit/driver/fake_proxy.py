"""A proxy in one process: a scripted one for the client, and one with objects in memory for ``Storage``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import xxhash

from fabric.errors import FabricError, NotFound, Precondition
from fabric.node.effects import Effect, Reply, Sender
from fabric.wire.codec import failed
from fabric.wire.messages import (
    AppendOperation,
    Commit,
    Committed,
    DeleteOperation,
    Found,
    FragmentData,
    FragmentRef,
    Fragments,
    GetFragment,
    GetObject,
    ListFragments,
    Listing,
    ListObjects,
    Message,
    MoveOperation,
    ObjectData,
    ObjectInfo,
    PutFragment,
    PutObject,
    PutOperation,
    Stat,
    Stored,
)

PAGE = 3
"""Fragments in a page, so that paging happens."""


class ScriptedProxy:
    """Answers the n-th request by the n-th step of the script; the last step is repeated.

    A step is a message, an error, None for no answer, or takes the request and returns one of these.
    """

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.received: list[Any] = []

    def start(self, now: float) -> list[Effect]:
        return []

    def on_tick(self, now: float) -> list[Effect]:
        return []

    def on_turn_end(self, now: float) -> list[Effect]:
        return []

    def next_deadline(self) -> float | None:
        return None

    def receive(self, message: Any, sender: Sender, now: float, payload: Any = None) -> list[Effect]:
        self.received.append(message)
        step = self.script[min(len(self.received), len(self.script)) - 1]
        if isinstance(step, Callable):
            step = step(message)
        if step is None:
            return []
        if isinstance(step, FabricError):
            return [Reply(sender, failed(step))]
        answer, data = step if isinstance(step, tuple) else (step, None)
        return [Reply(sender, answer, data)]


class _Object:
    def __init__(self, info: ObjectInfo, fragments: list[FragmentRef]) -> None:
        self.info = info
        self.fragments = fragments


class MemoryProxy:
    """Objects in memory behind the messages of a proxy: the rules of the catalog, no replicas."""

    def __init__(self) -> None:
        self.objects: dict[str, _Object] = {}
        self.bytes_of: dict[int, bytes] = {}
        self.received: list[Any] = []
        self.refuse: dict[type, FabricError] = {}
        self._generation = 0

    def start(self, now: float) -> list[Effect]:
        return []

    def on_tick(self, now: float) -> list[Effect]:
        return []

    def on_turn_end(self, now: float) -> list[Effect]:
        return []

    def next_deadline(self) -> float | None:
        return None

    def receive(self, message: Any, sender: Sender, now: float, payload: Any = None) -> list[Effect]:
        self.received.append(message)
        try:
            if type(message) in self.refuse:
                raise self.refuse[type(message)]
            answer, data = self._answer(message, payload)
        except FabricError as error:
            return [Reply(sender, failed(error))]
        return [Reply(sender, answer, data)]

    def _answer(self, message: Any, payload: Any) -> tuple[Message, Any]:
        match message:
            case PutFragment():
                return Stored(self._store(payload, message.checksum), 1), None
            case GetFragment():
                data = self.bytes_of[message.fragment.fid][message.offset :][: message.length]
                return FragmentData(message.fragment.fid, message.offset, _sum(data)), data
            case PutObject():
                fragments = [self._store(payload, message.checksum)] if len(payload) else []
                put = PutOperation(message.path, fragments, if_generation=message.if_generation)
                return Committed([self._apply(put)]), None
            case Commit():
                before = {path: _Object(one.info, list(one.fragments)) for path, one in self.objects.items()}
                try:
                    return Committed([self._apply(operation) for operation in message.operations]), None
                except FabricError:
                    self.objects = before
                    raise
            case Stat():
                return Found(self._find(message.path).info), None
            case GetObject():
                return self._get(message)
            case ListFragments():
                one = next(o for o in self.objects.values() if o.info.object_id == message.object_id)
                start, page, more = self._page(one, message.offset)
                return Fragments(start, page, more), None
            case ListObjects():
                return self._list(message), None
        raise AssertionError(message)

    def _store(self, payload: Any, checksum: int) -> FragmentRef:
        data = bytes(memoryview(payload))
        assert _sum(data) == checksum
        fid = len(self.bytes_of) + 1
        self.bytes_of[fid] = data
        return FragmentRef(1, fid, len(data), checksum)

    def _find(self, path: str) -> _Object:
        if path not in self.objects:
            raise NotFound(f"no object at {path}")
        return self.objects[path]

    def _apply(self, operation: Any) -> ObjectInfo | None:
        match operation:
            case PutOperation():
                present = self.objects.get(operation.path)
                generation = present.info.generation if present is not None else 0
                if operation.if_generation not in (-1, generation):
                    raise Precondition(operation.path)
                return self._set(operation.path, operation.fragments)
            case AppendOperation():
                one = self._find(operation.path)
                if one.info.size != operation.expected_size:
                    raise Precondition(operation.path)
                return self._set(operation.path, one.fragments + operation.fragments)
            case MoveOperation():
                one = self._find(operation.source)
                del self.objects[operation.source]
                return self._set(operation.target, one.fragments)
            case DeleteOperation():
                if self.objects.pop(operation.path, None) is None and not operation.missing_ok:
                    raise NotFound(operation.path)
        return None

    def _set(self, path: str, fragments: list[FragmentRef]) -> ObjectInfo:
        self._generation += 1
        size = sum(fragment.length for fragment in fragments)
        info = ObjectInfo(path, size, self._generation, self._generation, "", 0, {}, False)
        self.objects[path] = _Object(info, fragments)
        return info

    def _page(self, one: _Object, offset: int) -> tuple[int, list[FragmentRef], bool]:
        start = 0
        for first in range(0, len(one.fragments), PAGE):
            page = one.fragments[first : first + PAGE]
            size = sum(fragment.length for fragment in page)
            if offset < start + size:
                return start, page, first + PAGE < len(one.fragments)
            start += size
        return start, [], False

    def _get(self, message: GetObject) -> tuple[Message, Any]:
        one = self._find(message.path)
        start, page, more = self._page(one, message.offset)
        position, data = start, b""
        for fragment in page:
            if position <= message.offset < position + fragment.length:
                data = self.bytes_of[fragment.fid][message.offset - position :][: message.length]
            position += fragment.length
        return ObjectData(one.info, start, page, more, message.offset, _sum(data)), data

    def _list(self, message: ListObjects) -> Listing:
        objects: list[ObjectInfo] = []
        prefixes: list[str] = []
        last = ""
        for path in sorted(self.objects):
            name = path
            rest = path.removeprefix(message.prefix)
            folded = bool(message.delimiter) and message.delimiter in rest
            if folded:
                name = message.prefix + rest.split(message.delimiter)[0] + message.delimiter
            if not path.startswith(message.prefix) or name <= message.after or name in prefixes:
                continue
            if len(objects) + len(prefixes) == message.limit:
                return Listing(objects, prefixes, last)
            last = name
            if folded:
                prefixes.append(name)
            else:
                objects.append(self.objects[path].info)
        return Listing(objects, prefixes, "")


def _sum(data: bytes) -> int:
    return xxhash.xxh3_64_intdigest(data)
