"""P5: a read returns the bytes that were written, or an error; never other bytes.

Held against clients' reads, and against every answer of a chunk server, which must verify what it sends.
"""

from __future__ import annotations

from typing import Any

from fabric.wire.messages import FragmentData, Message, ReadFragment
from sim import stores
from sim.history import PathState
from sim.process import Process
from sim.watcher import Violation, Watcher


class Bytes(Watcher):
    """Remembers what was written under every fid."""

    def __init__(self) -> None:
        self._written: dict[int, bytes] = {}

    def on_send(self, source: Process, target: Process, message: Message, payload: Any) -> None:
        for fragment, _, data in stores.sent(message, payload):
            self._written.setdefault(fragment.fid, data)

    def on_reply(
        self,
        server: Process,
        asker: Process,
        request: Message | None,
        payload: Any,
        answer: Message,
        data: Any,
    ) -> None:
        if not isinstance(request, ReadFragment) or not isinstance(answer, FragmentData):
            return
        whole = self._written.get(request.fid, b"")
        if bytes(data) != whole[request.offset : request.offset + request.length]:
            raise Violation("P5", f"{server.name} sends wrong bytes for fid {request.fid}")

    def on_read(self, state: PathState, code: str, value: bytes | None, allowed: set[bytes | None]) -> None:
        if code == "" and value not in state.ever:
            raise Violation("P5", f"{state.path} shows {len(value or b'')} bytes that nobody wrote there")
