"""The rules of the v1 protocol put together over one store: what its HTTP handlers work with."""

from __future__ import annotations

import secrets
import time
from concurrent.futures import Executor

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.hashing import digests_on
from fabric.driver.registry.service import Service
from fabric.driver.registry.v1.links import Links
from fabric.driver.registry.v1.pushes import Pushes
from fabric.driver.registry.v1.reading import LayerReading
from fabric.driver.registry.v1.repositories import Repositories
from fabric.driver.registry.v1.sessions import KEY_BYTES, Sessions
from fabric.driver.registry.v1.tarball import tar_sum
from fabric.driver.registry.v1.visitor import Images


class LegacyService:
    """Everything a handler needs.  Shares the limits on streams with the later protocol."""

    def __init__(self, service: Service, store: ObjectStore, executor: Executor) -> None:
        self.settings = service.settings
        self.incoming = service.incoming
        self.outgoing = service.outgoing
        self.writing = service.writing
        self.store = store
        self.reading = LayerReading(store)
        self.sessions = Sessions(store, lambda: secrets.token_bytes(KEY_BYTES), time.time)
        self.images = Images(store)
        self.links = Links(store)
        self.pushes = Pushes(store, digests_on(executor), self._sum_of_layer, _new_id, _wall_ms)
        self.repositories = Repositories(store)

    async def _sum_of_layer(self, path: str, image_json: bytes, kind: str) -> str:
        return await self.reading.run(path, lambda read: tar_sum(read, image_json, kind))


def _new_id() -> str:
    return secrets.token_hex(16)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
