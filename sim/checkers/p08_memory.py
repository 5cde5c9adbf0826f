"""P8: memory stays bounded: every queue has a limit in bytes.

Looked at after every event: what a proxy has in flight, what a chunk server has to write.  At the end, when
nothing is under way, both are back at nothing.
"""

from __future__ import annotations

from typing import Any

from fabric.settings import KIB
from sim.process import Process
from sim.watcher import Violation, Watcher

OWN_BYTES = 256 * KIB
"""What a chunk server may add by itself: tombstones, copies from its peers."""


class Memory(Watcher):
    """Reads the counters that admission is decided by, and counts the proxies' payloads itself."""

    def on_inspect(self, process: Process) -> None:
        settings = self.cluster.settings
        assert process.built is not None
        role: Any = process.built.role
        if process.kind == "proxy" and role._context.inflight_bytes > settings.proxy_inflight_bytes_max:
            raise Violation("P8", f"{process.name} has {role._context.inflight_bytes} bytes in flight")
        if process.kind == "chunk":
            pending = role._writes.pending_bytes
            if pending > settings.chunk_inflight_bytes_max + OWN_BYTES:
                raise Violation("P8", f"{process.name} has {pending} bytes to write")

    def at_end(self) -> None:
        for host in self.cluster.proxies:
            role: Any = host.process.built.role if host.process.built is not None else None
            left = role._context.inflight_bytes, +role._context.pending_bytes, +role._context.outstanding
            if any(left):
                raise Violation("P8", f"{host.name} is idle and counts as in flight: {left}")
