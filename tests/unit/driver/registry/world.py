"""The registry's rules over a store in memory, without HTTP, threads or a clock of its own.

Every await of these rules is one step of the store.  ``interleave`` takes the steps of several coroutines
in an order that a seed decides, so that a failure can be run again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import Any

from fabric.driver.object_store import Buffer
from fabric.driver.registry.blobs import Blobs
from fabric.driver.registry.bookkeeping import Stamper
from fabric.driver.registry.collection import COLLECTOR, Decision, Pace, Policy, Report
from fabric.driver.registry.garbage import GarbageCollection
from fabric.driver.registry.history import History
from fabric.driver.registry.manifest_store import ManifestStore
from fabric.driver.registry.names import Digest, parse_digest
from fabric.driver.registry.quota.accounts import AccountedStore
from fabric.driver.registry.quota.counting import Counting
from fabric.driver.registry.undelete import Undelete
from fabric.driver.registry.uploads import Uploads
from fabric.wire.messages import AnyOperation, FragmentRef, Listing, ObjectInfo
from tests.unit.driver.registry.harness import OCI_INDEX, OCI_MANIFEST, sha256
from tests.unit.driver.registry.memory_store import MemoryReader, MemoryStore, MemoryWriter

MANIFEST_BYTES_MAX = 4 * 1024 * 1024
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"

AT_ONCE = Policy(grace_s=0, undelete_s=0, untagged_after_s=0, upload_idle_s=0)


class Crashed(BaseException):
    """The process has been killed."""


class FrailStore:
    """What a process sees of a store until it is killed: before or just after one of its commits."""

    def __init__(self, store: MemoryStore, commits_left: int, *, after: bool) -> None:
        self._store = store
        self._commits_left = commits_left
        self._after = after
        self._is_dead = False

    def _alive(self) -> MemoryStore:
        if self._is_dead:
            raise Crashed
        return self._store

    async def commit(self, operations: Sequence[AnyOperation]) -> list[ObjectInfo | None]:
        self._alive()
        self._commits_left -= 1
        self._is_dead = self._commits_left <= 0
        if self._is_dead and not self._after:
            raise Crashed
        result = await self._store.commit(operations)
        self._alive()
        return result

    async def stat(self, path: str) -> ObjectInfo:
        return await self._alive().stat(path)

    async def open(self, path: str, offset: int = 0, length: int | None = None) -> MemoryReader:
        return await self._alive().open(path, offset, length)

    async def read(self, path: str, bytes_max: int) -> tuple[ObjectInfo, bytes]:
        return await self._alive().read(path, bytes_max)

    async def put(self, path: str, data: Buffer, **options: Any) -> ObjectInfo:
        return await self._alive().put(path, data, **options)

    def writer(self, path: str, size: int) -> MemoryWriter:
        return self._alive().writer(path, size)

    async def stage(self, data: Buffer) -> Sequence[FragmentRef]:
        return await self._alive().stage(data)

    async def list(self, prefix: str, *, delimiter: str = "", after: str = "", limit: int = 1000) -> Listing:
        return await self._alive().list(prefix, delimiter=delimiter, after=after, limit=limit)


class InlineDigest:
    """A ``RunningDigest`` without threads."""

    def __init__(self, algorithm: str) -> None:
        self.algorithm = algorithm
        self.size = 0
        self._hash = hashlib.new(algorithm)

    async def update(self, data: Buffer) -> None:
        self._hash.update(data)
        self.size += len(data)

    async def settle(self) -> None:
        return

    def copy(self) -> InlineDigest:
        twin = InlineDigest(self.algorithm)
        twin.size, twin._hash = self.size, self._hash.copy()
        return twin

    def value(self) -> str:
        return self._hash.hexdigest()


class Clock:
    """Wall time that stands still until a test moves it; ids that count."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000
        self._ids = 0

    def wall_ms(self) -> int:
        return self.now_ms

    def monotonic_s(self) -> float:
        return self.now_ms / 1000

    def new_id(self) -> str:
        self._ids += 1
        return f"{self._ids:08x}-0000-0000-0000-{self._ids:012x}"

    def advance(self, seconds: float) -> None:
        self.now_ms += int(seconds * 1000)


class Process:
    """One registry process over a store."""

    def __init__(self, bare: Any, clock: Clock, policy: Policy = AT_ONCE) -> None:
        stamper = Stamper(clock.wall_ms, clock.new_id)
        store = AccountedStore(bare)
        self.store = bare
        self.accounts = store
        self.clock = clock
        self.policy = policy
        self.blobs = Blobs(store, stamper)
        self.uploads = Uploads(store, InlineDigest, clock.new_id, clock.monotonic_s, clock.wall_ms)
        self.manifests = ManifestStore(store, MANIFEST_BYTES_MAX, stamper)
        self.undelete = Undelete(store, self.manifests, stamper, MANIFEST_BYTES_MAX)
        self.history = History(store)
        self.garbage = GarbageCollection(store.without_refusals(), stamper, policy, MANIFEST_BYTES_MAX, PACE)
        self.counting = Counting(store, stamper, MANIFEST_BYTES_MAX, pause)

    async def upload(self, name: str, data: bytes) -> Digest:
        """One blob, whole."""
        digest = parse_digest(sha256(data))
        upload = await self.uploads.start(name, "sha256")
        upload = await self.uploads.append(upload, pieces(data), None)
        await self.uploads.finish(upload, digest)
        return digest

    async def push(self, name: str, reference: str, data: bytes, media_type: str = OCI_MANIFEST) -> Digest:
        """A manifest under a tag or, with an empty reference, under its digest."""
        target = reference or parse_digest(sha256(data))
        tags = [reference] if reference else []
        stored, _ = await self.manifests.push(name, target, tags, data, media_type, "tester")
        return stored.digest

    async def push_image(self, name: str, tag: str, *layers: bytes) -> Digest:
        """Blobs and a manifest that references them."""
        for data in (config_of(layers), *layers):
            await self.upload(name, data)
        return await self.push(name, tag, manifest_of(*layers))

    async def collect(self, passes: int = 1, advance_s: float = 1.0) -> Report:
        """So many passes, with time going on before each; the last one's report."""
        for _ in range(passes):
            self.clock.advance(advance_s)
            report = await self.garbage.run()
            assert report.problems == []
        return report


async def pause() -> None:
    await asyncio.sleep(0)


async def one_by_one(coroutines: Sequence[Coroutine[Any, Any, Decision | None]]) -> list[Decision | None]:
    try:
        return [await coroutine for coroutine in coroutines]
    finally:
        for coroutine in coroutines:
            coroutine.close()


PACE = Pace(pause, one_by_one)


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


# --- content --------------------------------------------------------------------------------------


def config_of(layers: Sequence[bytes]) -> bytes:
    return json.dumps({"layers": [sha256(data) for data in layers]}).encode()


def described(data: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data)}


def manifest_of(*layers: bytes, subject: bytes | None = None, note: str = "") -> bytes:
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described(config_of(layers), CONFIG_TYPE),
        "layers": [described(data, LAYER_TYPE) for data in layers],
        "annotations": {"note": note},
    }
    if subject is not None:
        document["subject"] = described(subject, OCI_MANIFEST)
    return json.dumps(document).encode()


def index_of(*manifests: bytes) -> bytes:
    children = [described(data, OCI_MANIFEST) for data in manifests]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}).encode()


# --- order ----------------------------------------------------------------------------------------


def interleave(coroutines: Sequence[Coroutine[Any, Any, Any]], rng: random.Random) -> None:
    """Run all to their ends, one step of a random one at a time.  A killed one just ends."""
    running = list(coroutines)
    try:
        while running:
            chosen = rng.choice(running)
            try:
                chosen.send(None)
            except (StopIteration, Crashed):
                running.remove(chosen)
    finally:
        for coroutine in running:
            coroutine.close()


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run one to its end; its result."""
    while True:
        try:
            coroutine.send(None)
        except StopIteration as end:
            return end.value


# --- what must hold -------------------------------------------------------------------------------


class Books:
    """A store's content, seen by someone who trusts none of its marks: only links, tags and bytes."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.bytes = {_digest(path, "blobs/") for path in store.paths("blobs/")}
        self.links: dict[tuple[str, str], str] = {}
        """(repository, digest) -> how it is linked, a letter for each way: b, m, and B, M in the trash."""
        self.collected: set[tuple[str, str]] = set()
        """What a pass moved to the trash; the rest of the trash is what clients wanted to be there."""
        for path in store.paths("repositories/"):
            for folder, letter in _FOLDERS.items():
                name, found, rest = path.removeprefix("repositories/").partition(folder)
                if found:
                    key = (name, rest.replace("/", ":"))
                    self.links[key] = self.links.get(key, "") + letter
                    if (store.entries[path].attributes or {}).get("who") == COLLECTOR:
                        self.collected.add(key)

    def references(self, digest: str) -> list[str]:
        """What a manifest needs."""
        document = json.loads(self._store.content(_path_of_bytes(digest)))
        named = [*document.get("layers", []), *document.get("manifests", [])]
        return [each["digest"] for each in [*named, *filter(None, [document.get("config")])]]

    def damage(self) -> list[str]:
        """Whatever is promised and missing."""
        found = [f"{key} has no bytes" for key in self.links if key[1] not in self.bytes]
        if found:
            return found
        for (name, digest), letters in self.links.items():
            for other in self.references(digest) if letters.upper() == "M" else ():
                state = self.links.get((name, other), "")
                if not state or (letters == "m" and state.isupper() and (name, other) in self.collected):
                    found.append(f"{letters} {name}@{digest} needs {other}, which is {state or 'gone'}")
        for path in self._store.paths("repositories/"):
            name, is_tag, _ = path.removeprefix("repositories/").partition("/_tags/")
            if is_tag and "m" not in self.links.get((name, self._store.entries[path].digest), ""):
                found.append(f"{path} names nothing")
        return found

    def waste(self) -> list[str]:
        """Whatever nobody needs and is still there, once nothing can be restored any more."""
        owned = {digest for _, digest in self.links}
        found = [f"bytes {digest}" for digest in self.bytes - owned]
        used: set[tuple[str, str]] = set()
        living = [key for key, ways in self.links.items() if ways == "m"]
        while living:
            name, digest = living.pop()
            needed = {(name, other) for other in self.references(digest)} - used
            used |= needed
            # What was deleted and is still referenced keeps what it references.
            living += [key for key in needed if self.links.get(key, "") == "M"]
        found += [
            f"{letters} {key}" for key, letters in self.links.items() if letters != "m" and key not in used
        ]
        for prefix in ("garbage/", "loose/", "pending/", "retired/", "uploads/"):
            found += self._store.paths(prefix)
        found += [path for path in self._store.paths("owners/") if not self._is_owner(path)]
        for path in self._store.paths("repositories/"):
            name, is_use, rest = path.removeprefix("repositories/").partition("/_uses/")
            user = (name, ":".join(rest.split("/")[2:]))
            if is_use and "m" not in self.links.get(user, "") and user not in used:
                found.append(path)
        return found

    def _is_owner(self, path: str) -> bool:
        _, algorithm, value, kind, name = path.split("/", 4)
        return kind[0] in self.links.get((name, f"{algorithm}:{value}"), "").lower()


_FOLDERS: Mapping[str, str] = {
    "/_blobs/": "b", "/_manifests/": "m", "/_trash/blobs/": "B", "/_trash/manifests/": "M",
}  # fmt: skip


def _digest(path: str, prefix: str) -> str:
    algorithm, _, value = path.removeprefix(prefix).split("/")
    return f"{algorithm}:{value}"


def _path_of_bytes(digest: str) -> str:
    algorithm, value = digest.split(":")
    return f"blobs/{algorithm}/{value[:2]}/{value}"
