"""A steady load of verified puts, replacements, deletes, gets and pushes, from several threads."""

from __future__ import annotations

import http.client
import math
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from fabric.driver import Storage
from fabric.errors import FabricError, NotFound
from tests.e2e.http_registry import HttpRegistry, digest_of
from tests.e2e.ledger import MIB, Ledger

SIZE_MAX = 12 * MIB
PUSH_SIZE_MAX = 2 * MIB
OWN_PATHS_MAX = 60
LIVE_BYTES_MAX = 160 * MIB
WRITE_BYTES_PER_S = 5 * MIB


@dataclass(frozen=True)
class Call:
    """One request of a client, as the client saw it."""

    kind: str
    """``put``, ``delete``, ``get``, ``push`` or ``pull``."""
    begun: float
    ended: float
    error: str
    """Empty: it succeeded."""

    @property
    def seconds(self) -> float:
        return self.ended - self.begun


class Pace:
    """Lets so many bytes through a second, over all threads."""

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._lock = threading.Lock()
        self._free_at = time.monotonic()

    def take(self, size: int) -> float:
        """How long to wait before writing so many bytes."""
        with self._lock:
            wait = max(0.0, self._free_at - time.monotonic())
            self._free_at = time.monotonic() + wait + (size + 16 * 1024) / self._bytes_per_s
            return wait


class Load:
    """Runs between ``with`` and its end; a call that is under way then is finished."""

    def __init__(self, proxy: str, registry: str | None, seed: int, threads: int = 6) -> None:
        """``registry``: its URL, for pushes and pulls over HTTP as well."""
        self.ledger = Ledger(seed)
        self.calls: list[Call] = []
        self.wrong: list[str] = []
        """Reads that showed what could not be there: each one breaks a promise."""
        self._storage = Storage(proxy)
        self._registry = HttpRegistry(registry) if registry else None
        self._pace = Pace(WRITE_BYTES_PER_S)
        self._stop = threading.Event()
        self._blobs: dict[str, bytes] = {}
        works: list[Callable[[random.Random, int], None]] = [self._read] * 2
        works += [self._mix] * threads
        if self._registry:
            works.append(self._push_and_pull)
        self._works = [
            partial(work, random.Random(seed * 1000 + number), number) for number, work in enumerate(works)
        ]
        self._pool = ThreadPoolExecutor(len(works))
        self._running: list[Future[None]] = []

    def __enter__(self) -> Load:
        self._running = [self._pool.submit(work) for work in self._works]
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown()
        for thread in self._running:
            thread.result()  # raises what ended it, if it was not we

    def close(self) -> None:
        """After the last read."""
        self._storage.close()

    # --- the threads ------------------------------------------------------------------------------

    def _mix(self, rng: random.Random, number: int) -> None:
        own: list[str] = []
        made = 0
        while not self._stop.is_set():
            own = [path for path in own if not self.ledger.is_unknown(path)]
            crowded = len(own) >= OWN_PATHS_MAX or self.ledger.acknowledged_bytes() > LIVE_BYTES_MAX
            dice = rng.random()
            if own and (dice < 0.12 or (crowded and dice < 0.5)):
                self._delete(own.pop(rng.randrange(len(own))))
            elif own and dice < 0.30:
                self._put(rng.choice(own), _size(rng, SIZE_MAX))
            elif dice < 0.60:
                made += 1
                own.append(f"storm/{number}/{made}")
                self._put(own[-1], _size(rng, SIZE_MAX))
            else:
                self._get(rng)

    def _read(self, rng: random.Random, number: int) -> None:
        while not self._stop.wait(0.03):
            self._get(rng)

    def _put(self, path: str, size: int) -> None:
        if self._stop.wait(self._pace.take(size)):
            return
        _, content = self.ledger.begin(path, size)
        self._write("put", path, lambda: self._storage.put_content(path, content))

    def _delete(self, path: str) -> None:
        if path in self.ledger.paths():
            self.ledger.begin(path, None)
            self._write("delete", path, lambda: self._storage.remove(path))

    def _write(self, kind: str, path: str, ask: Callable[[], object]) -> None:
        begun = time.monotonic()
        try:
            ask()
        except NotFound as error:
            # Only deletes say so, and only of paths whose write was acknowledged.
            self.wrong.append(f"{kind} {path}: {error}")
            self.ledger.unknown(path)
        except FabricError as error:
            self.ledger.unknown(path)
            self._note(kind, begun, f"{error.code}: {error.message}")
        else:
            self.ledger.acknowledged(path)
            self._note(kind, begun, "")

    def _get(self, rng: random.Random) -> None:
        paths = self.ledger.paths()
        if not paths:
            self._stop.wait(0.05)
            return
        path = rng.choice(paths[-400:])
        first = 0 if rng.random() < 0.7 else rng.randrange(2 * MIB)
        begun = time.monotonic()
        problem = error_text = ""
        try:
            shown = b"".join(self._storage.stream_read(path, (first, None))) if first else (
                self._storage.get_content(path)
            )  # fmt: skip
            problem = self.ledger.problem(path, begun, shown, first)
        except NotFound:
            problem = self.ledger.problem(path, begun, None)
        except FabricError as error:
            # A range may begin behind the end.
            if error.code != "BAD_RANGE":
                error_text = f"{error.code}: {error.message}"
        self._note("get", begun, error_text)
        if problem:
            self.wrong.append(problem)

    def _push_and_pull(self, rng: random.Random, number: int) -> None:
        assert self._registry is not None
        while not self._stop.wait(0.1):
            begun = time.monotonic()
            if not self._blobs or rng.random() < 0.5:
                data = rng.randbytes(_size(rng, PUSH_SIZE_MAX))
                error = self._push(data)
                self._note("push", begun, error)
                if not error:
                    self._blobs[digest_of(data)] = data
            else:
                digest = rng.choice(list(self._blobs))
                self._note("pull", begun, self._pull(digest, wrong_is_fatal=False))

    def _push(self, data: bytes) -> str:
        assert self._registry is not None
        try:
            begun = self._registry.ask("POST", "/v2/storm/images/blobs/uploads/", b"")
            if begun.status != 202:
                return f"{begun.status}: {begun.body[:300]!r}"
            location = self._registry.local(begun.headers["location"])
            answer = self._registry.finish(location, digest_of(data), data)
        except (OSError, http.client.HTTPException) as error:
            return _text(error)
        return "" if answer.status == 201 else f"{answer.status}: {answer.body[:300]!r}"

    def _pull(self, digest: str, wrong_is_fatal: bool) -> str:
        assert self._registry is not None
        try:
            answer = self._registry.get_blob("storm/images", digest)
        except (OSError, http.client.HTTPException) as error:
            return _text(error)
        if answer.status == 200 and answer.body == self._blobs[digest]:
            return ""
        if answer.status in (200, 404) or wrong_is_fatal:
            self.wrong.append(f"{digest}: {answer.status}, {len(answer.body)} bytes: {answer.body[:200]!r}")
        return f"{answer.status}: {answer.body[:300]!r}"

    def _note(self, kind: str, begun: float, error: str) -> None:
        self.calls.append(Call(kind, begun, time.monotonic(), error))

    # --- at the end -------------------------------------------------------------------------------

    def verify_everything(self) -> None:
        """Read all objects and blobs once more; what is wrong is added to ``wrong``."""
        for path in self.ledger.paths():
            now = time.monotonic()
            try:
                problem = self.ledger.problem(path, now, self._storage.get_content(path))
            except NotFound:
                problem = self.ledger.problem(path, now, None)
            except FabricError as error:
                problem = f"{path}: {error.code}: {error.message}"
            if problem:
                self.wrong.append(f"at the end: {problem}")
        for digest in self._blobs:
            self._pull(digest, wrong_is_fatal=True)

    def remove_everything(self) -> None:
        """Delete all objects, whoever made them.  Raises FabricError."""
        while page := self._storage.list_page().objects:
            for info in page:
                self._storage.remove(info.path)


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _size(rng: random.Random, size_max: int) -> int:
    """From one byte up; each power of two as likely as the next."""
    return min(size_max, int(math.exp(rng.uniform(0.0, math.log(size_max)))) or 1)
