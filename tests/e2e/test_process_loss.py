"""kill -9 at any moment: what was acknowledged stays, what the clients see is as promised."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fabric.driver import Storage
from fabric.errors import FabricError
from tests.e2e.conftest import FabricUp, wait_until
from tests.e2e.http_registry import HttpRegistry, digest_of

Start = Callable[..., FabricUp]
ROLES = ["master", "chunk-1", "chunk-2", "chunk-3", "proxy", "registry"]


class Pusher:
    """Pushes blobs one after another from a thread, and remembers which were acknowledged."""

    def __init__(self, fabric: FabricUp, seed: int = 1, size: int = 300_000) -> None:
        self._registry = HttpRegistry(fabric.registry)
        self._rng = random.Random(seed)
        self._size = size
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.stored: dict[str, bytes] = {}
        self.refused: list[str] = []

    def __enter__(self) -> Pusher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            data = self._rng.randbytes(self._size)
            try:
                answer = self._registry.put_blob("kill/test", data)
            except (OSError, AssertionError) as error:
                self.refused.append(repr(error))
                continue
            if answer.status == 201:
                self.stored[digest_of(data)] = data
            else:
                self.refused.append(f"{answer.status} {answer.body!r}")


def assert_readable(fabric: FabricUp, stored: dict[str, bytes]) -> None:
    registry = HttpRegistry(fabric.registry)
    for digest, data in stored.items():
        answer = registry.get_blob("kill/test", digest)
        assert (answer.status, answer.body == data) == (200, True), f"{digest}: {answer.status}"


@pytest.mark.parametrize("role", ROLES)
def test_killing_any_one_process_during_pushes_loses_nothing(fabric_up: FabricUp, role: str) -> None:
    with Pusher(fabric_up) as pusher:
        wait_until(lambda: len(pusher.stored) > 5, "first pushes", fabric_up.story)
        old = fabric_up.kill(role)
        fabric_up.wait_restarted(role, old)
        after = len(pusher.stored) + 5
        wait_until(lambda: len(pusher.stored) > after, f"pushes after {role} came back", fabric_up.story)

    assert_readable(fabric_up, pusher.stored)
    if role != "registry":
        # Restarts are quick enough for the driver's own patience: no client saw anything.
        assert pusher.refused == []


@pytest.mark.parametrize("role", ["chunk-1", "proxy", "master"])
def test_killing_a_process_during_a_pull_does_not_break_the_pull(fabric_up: FabricUp, role: str) -> None:
    data = random.Random(7).randbytes(64 * 1024 * 1024)
    registry = HttpRegistry(fabric_up.registry)
    assert registry.put_blob("kill/test", data).status == 201
    pulled: list[bool] = []

    def pull() -> None:
        while len(pulled) < 8:
            answer = registry.get_blob("kill/test", digest_of(data))
            pulled.append(answer.status == 200 and answer.body == data)

    thread = threading.Thread(target=pull)
    thread.start()
    wait_until(lambda: len(pulled) > 1, "the first pulls", fabric_up.story)
    fabric_up.kill(role)
    thread.join()
    assert all(pulled), fabric_up.story()


def test_one_of_three_chunk_servers_gone(fabric_up: FabricUp) -> None:
    """Pulls go on; pushes to the only group end in a clear 503 and succeed again afterwards."""
    registry = HttpRegistry(fabric_up.registry)
    before = {digest_of(data): data for data in (os.urandom(100_000), os.urandom(5_000_000))}
    for data in before.values():
        assert registry.put_blob("kill/test", data).status == 201

    # Stopped, not killed: it is gone for everyone, and nobody starts it again.
    stopped = fabric_up.kill("chunk-2", signal.SIGSTOP)
    try:
        refused = registry.put_blob("kill/test", b"refused")
        assert refused.status == 503, refused
        assert b"NO_WRITABLE_GROUP" in refused.body
        assert int(refused.headers["retry-after"]) > 0
        assert_readable(fabric_up, before)
        assert registry.ask("HEAD", f"/v2/kill/test/blobs/{digest_of(b'refused')}").status == 404
    finally:
        os.kill(stopped, signal.SIGCONT)
    fabric_up.wait_writable()
    assert registry.put_blob("kill/test", b"refused").status == 201
    assert_readable(fabric_up, {**before, digest_of(b"refused"): b"refused"})


def test_with_two_groups_pushes_never_fail(start: Start) -> None:
    fabric = start("--groups", "2").wait_ready()
    with Pusher(fabric) as pusher:
        for name in ("chunk-1", "chunk-4", "chunk-2"):
            before = len(pusher.stored)
            stopped = fabric.kill(name, signal.SIGSTOP)
            wait_until(lambda n=before: len(pusher.stored) > n + 10, "pushes beside it", fabric.story)  # type: ignore[misc]
            os.kill(stopped, signal.SIGCONT)
            fabric.wait_writable()
    assert pusher.refused == []
    assert_readable(fabric, pusher.stored)


def test_everything_killed_at_once_keeps_every_acknowledged_object(start: Start, tmp_path: Path) -> None:
    data = tmp_path / "data"
    fabric = start("--groups", "2", data=data).wait_ready()
    stored: dict[str, bytes] = {}
    rng = random.Random(5)

    def put_until_it_breaks() -> None:
        with Storage(fabric.proxy) as storage:
            for number in range(100_000):
                content = rng.randbytes(rng.choice([0, 10, 1024, 100_000, 5_000_000]))
                try:
                    storage.put_content(f"objects/{number}", content)
                except FabricError:
                    return
                stored[f"objects/{number}"] = content

    thread = threading.Thread(target=put_until_it_breaks)
    thread.start()
    wait_until(lambda: len(stored) > 40, "objects", fabric.story)
    pids = fabric.pids()
    fabric.process.kill()
    for pid in pids.values():
        with contextlib.suppress(ProcessLookupError):  # some have died with their parent
            os.kill(pid, signal.SIGKILL)
    fabric.close()
    thread.join()

    again = start(data=data).wait_ready()
    with Storage(again.proxy) as storage:
        for path, content in stored.items():
            assert storage.get_content(path) == content, path
        storage.put_content("after", b"it goes on")
        assert storage.get_content("after") == b"it goes on"
