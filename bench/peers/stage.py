"""What a row is measured with: each thing is started when a row first needs it, and ended with the last.

The fabric runs as a user runs it, by ``fabric up``; servers that no later row needs are ended early, so
that they take neither processor nor disk from the rest.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from bench.clients import Clients
from bench.cluster import Cluster, running_fabric
from bench.hops_limit import HopsLimit
from bench.http import Blob
from bench.http_limit import BareHttp
from bench.peers.debian import DebianRegistry, running_debian
from bench.peers.http_client import Connection
from bench.peers.programs import free_ports, running, wait_for
from bench.peers.seaweed import Seaweed, running_seaweed
from bench.wire_limit import WireLimit
from fabric.settings import Settings

FABRIC, FABRIC_OF_ONE, SEAWEED, DEBIAN = "fabric", "fabric of one replica", "SeaweedFS", "docker-registry"
WIRE, HOPS, BARE_HTTP = "ZeroMQ", "hops", "bare HTTP"

Thing = TypeVar("Thing")


class Effort(NamedTuple):
    """How much is done.  All of it is bounded."""

    runs: int
    seconds: float
    """Of each run that has no number of things to do."""
    small_writes: int
    """Files that ``weed benchmark`` writes in a run, and small objects that reads are spread over."""
    small_reads: int
    """Reads of ``weed benchmark`` in a run."""
    large_bytes: int
    many_fragments: int
    image_layers_bytes: tuple[int, ...]


class Registry(NamedTuple):
    """One more registry process."""

    url: str
    pids: dict[str, int]


class Stage:
    """A context manager: leaving it ends everything."""

    def __init__(self, directory: Path, effort: Effort) -> None:
        self.directory = directory
        self.effort = effort
        self._running: dict[str, tuple[ExitStack, Any]] = {}
        self._blobs: dict[int, Blob] = {}
        self._places = 0

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end_all_but(frozenset())

    # --- what can be used -------------------------------------------------------------------------

    def fabric(self, replicas: int = 3) -> Cluster:
        """``fabric up``."""
        name = FABRIC if replicas == 3 else FABRIC_OF_ONE
        return self._once(
            name, lambda: self._placed("fabric", lambda place: running_fabric(place, replicas, 1))
        )

    def clients(self, number: int = 0) -> Clients:
        """A process with a client of the fabric of three replicas; another for each number."""
        return self._once(f"{FABRIC}, client {number}", lambda: Clients(self.fabric().proxy, 1))

    def far_clients(self) -> Clients:
        """A client that has all bytes sent to it, as one on another machine has."""
        settings = Settings(near_reads=False, near_writes=False)
        return self._once(f"{FABRIC}, far client", lambda: Clients(self.fabric().proxy, 1, settings))

    def second_registry(self) -> str:
        """The URL of one more registry process of the fabric of three replicas."""
        name = f"{FABRIC}, registry 2"
        return self._once(name, lambda: _registry(self.fabric().proxy, self.directory)).url

    def seaweed(self) -> Seaweed:
        """SeaweedFS, with three copies."""
        return self._once(SEAWEED, lambda: self._placed("seaweed", running_seaweed))

    def debian(self) -> DebianRegistry:
        """Debian's registry."""
        return self._once(DEBIAN, lambda: self._placed("debian", running_debian))

    def wire(self) -> WireLimit:
        """A ZeroMQ peer that only answers."""
        return self._once(WIRE, WireLimit)

    def hops(self) -> HopsLimit:
        """What a put's hops and syncs alone take."""
        return self._once(HOPS, lambda: HopsLimit(self.directory))

    def bare_http(self) -> BareHttp:
        """An aiohttp server with nothing behind it."""
        return self._once(BARE_HTTP, BareHttp)

    def blob(self, size: int) -> Blob:
        """A file of random bytes; ``renew`` makes it another blob."""
        if size not in self._blobs:
            self._blobs[size] = Blob(self.directory / f"blob-{size}", size)
        return self._blobs[size]

    def scratch(self, name: str) -> Path:
        """A directory that is made when it is not there."""
        path = self.directory / name
        path.mkdir(exist_ok=True)
        return path

    # --- starting and ending ----------------------------------------------------------------------

    def pids(self) -> dict[str, int]:
        """Name -> process id of every server that runs now, and of the clients."""
        found: dict[str, int] = {}
        for name, (_, thing) in self._running.items():
            if isinstance(thing, Cluster):
                mark = "" if name == FABRIC else " (one replica)"
                found |= {role + mark: pid for role, pid in thing.pids().items()}
            elif isinstance(thing, Clients):
                found |= dict.fromkeys([name], thing.pids[0])
            elif isinstance(thing, Seaweed | DebianRegistry | Registry):
                found |= thing.pids
        return found

    def end_all_but(self, wanted: frozenset[str]) -> None:
        """End what is not wanted any more, the last started first, with what belongs to it."""
        for name in reversed(list(self._running)):
            if name.partition(",")[0] not in wanted:
                stack, _ = self._running.pop(name)
                stack.close()

    def restarted(self) -> list[str]:
        """Roles of the fabric that are not the process that they were at first."""
        return [
            role
            for _, thing in self._running.values()
            if isinstance(thing, Cluster)
            for role in thing.restarted()
        ]

    @contextlib.contextmanager
    def _placed(self, name: str, running: Callable[[Path], AbstractContextManager[Thing]]) -> Iterator[Thing]:
        """Run it in a directory that nothing has used before, and give the space back when it has ended."""
        self._places += 1
        place = self.directory / f"{name}-{self._places}"
        try:
            with running(place) as thing:
                yield thing
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _once(self, name: str, make: Callable[[], AbstractContextManager[Thing]]) -> Thing:
        if name not in self._running:
            manager = make()
            # Only now: what it needs itself has been started by ``make``, and so is ended after it.
            stack = ExitStack()
            self._running[name] = (stack, stack.enter_context(manager))
        thing: Thing = self._running[name][1]
        return thing


@contextlib.contextmanager
def _registry(proxy: str, directory: Path) -> Iterator[Registry]:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    log = directory / "registry-2.log"
    command = [sys.executable, "-m", "fabric", "registry", "--http", address]
    with running([*command, "--proxy", proxy.removeprefix("tcp://")], log) as process:
        wait_for(lambda: _answers(address), "the second registry", log, process)
        yield Registry(f"http://{address}", {"registry 2": process.pid})


def _answers(address: str) -> bool:
    with Connection(f"http://{address}") as connection:
        return connection.ask("GET", "/v2/").status == 200
