"""What clients do: puts small and large, replacements, deletes, moves, reads, listings.

Each client writes its own paths and reads everybody's.  Values are random bytes, so that they can be told
apart, and found on a disk.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import xxhash

from fabric.node.effects import Effect
from fabric.wire.messages import (
    AnyOperation,
    Commit,
    Committed,
    DeleteOperation,
    Failed,
    Found,
    FragmentRef,
    GetObject,
    Listing,
    ListObjects,
    Message,
    MoveOperation,
    ObjectData,
    PutFragment,
    PutObject,
    PutOperation,
    Stat,
    Stored,
)
from sim.clients import Client
from sim.process import Built, Process
from sim.reading import Reading
from sim.watcher import Violation

if TYPE_CHECKING:
    from sim.history import History, PathState
    from sim.world import World

THINK_S = ((0.01, 0.5), (0.01, 0.5), (0.001, 0.1))
PATIENCE_S = 14.0
READ_PATIENCE_S = 6.0
SIZE_MIN, SIZE_MAX = 48, 2500
LEASE_AND_MORE_S = 19.0
MUTABLE_PATHS = 3


class Attempted(msgspec.Struct, frozen=True):
    """A write that has ended.  ``values``: path -> what it wrote there."""

    client: str
    what: str
    outcome: str
    """acknowledged, refused or unknown."""
    values: dict[str, bytes | None]
    code: str = ""


class Worker(Client):
    """A client at work."""

    def __init__(
        self, world: World, name: str, rng: random.Random, proxies: list[str], history: History
    ) -> None:
        super().__init__(rng, proxies)
        self.world, self.name, self.history = world, name, history
        self.working = True
        self.busy = False
        self._made = 0
        self._think_s = rng.choice(THINK_S)
        self._after: Callable[[str], list[Effect]] | None = None
        self._unsettled: Callable[[str, str], None] | None = None
        """Ends the write that is under way: its outcome, and a code."""

    def begin_life(self) -> None:
        """What the last life was writing is there whole or not at all; nobody will ever be told."""
        super().begin_life()
        self.busy, self._after = False, None
        if self._unsettled is not None:
            self._unsettled("unknown", "KILLED")

    def start(self, now: float) -> list[Effect]:
        self.now = now
        return self._think()

    def _think(self) -> list[Effect]:
        self.busy = False
        return self.wait(self.rng.uniform(*self._think_s), self._work)

    def _work(self) -> list[Effect]:
        if not self.working or not self.history.begin():
            return self.wait(0.5, self._work)
        self.busy = True
        actions: list[tuple[int, Callable[[], list[Effect]]]] = [
            (30, self.put_small), (8, self.put_large), (10, self.replace), (7, self.delete),
            (4, self.move), (1, self.put_late), (34, self.read), (4, self.stat), (3, self.list_own),
        ]  # fmt: skip
        weights = [weight for weight, _ in actions]
        (action,) = self.rng.choices([action for _, action in actions], weights)
        return action()

    # --- writing ----------------------------------------------------------------------------------

    def put_small(self) -> list[Effect]:
        """A new object of one fragment, or of none."""
        size = 0 if self.rng.random() < 0.03 else self.rng.randint(SIZE_MIN, SIZE_MAX)
        return self._put_object(self._new_path(), self.rng.randbytes(size))

    def replace(self) -> list[Effect]:
        """A new value for one of few paths."""
        state = self.history.state(f"{self.name}/tag-{self.rng.randrange(MUTABLE_PATHS)}")
        if state.busy or state.lost:
            return self._think()
        return self._put_object(state, self.rng.randbytes(self.rng.randint(SIZE_MIN, SIZE_MAX)))

    def _new_path(self) -> PathState:
        self._made += 1
        immutable = self.rng.random() < 0.5
        return self.history.state(f"{self.name}/{'blob' if immutable else 'file'}-{self._made}", immutable)

    def _put_object(self, state: PathState, value: bytes) -> list[Effect]:
        operation_id, checksum = self.rng.randbytes(16), xxhash.xxh3_64_intdigest(value)
        end = self._begin("put", {state.path: value})

        def make(deadline_ms: int) -> PutObject:
            return PutObject(deadline_ms, operation_id, state.path, checksum, immutable=state.immutable)

        return self.ask(make, value, self.now + PATIENCE_S, end)

    def put_last(self, state: PathState, value: bytes, then: Callable[[str], list[Effect]]) -> list[Effect]:
        """One more object, with nothing after it."""
        self._after = then
        return self._put_object(state, value)

    def put_large(self) -> list[Effect]:
        """Some fragments, then a commit that names them."""
        return self._put_fragments(0.0)

    def put_late(self) -> list[Effect]:
        """The same, with the commit behind the lease of the fids."""
        return self._put_fragments(LEASE_AND_MORE_S)

    def _put_fragments(self, pause_s: float) -> list[Effect]:
        sizes = [self.rng.randint(SIZE_MIN, SIZE_MAX) for _ in range(self.rng.randint(1, 3))]
        parts = [self.rng.randbytes(size) for size in sizes]
        stored: list[FragmentRef] = []

        def store_next() -> list[Effect]:
            if len(stored) == len(parts):
                return self.wait(pause_s, commit)
            part = parts[len(stored)]
            checksum = xxhash.xxh3_64_intdigest(part)
            return self.ask(
                lambda deadline_ms: PutFragment(deadline_ms, checksum), part, self.now + PATIENCE_S, on_stored
            )

        def on_stored(answer: Message, data: Any, uncertain: bool) -> list[Effect]:
            if not isinstance(answer, Stored):
                return self._think()
            stored.append(answer.fragment)
            return store_next()

        def commit() -> list[Effect]:
            state = self._new_path()
            operation = PutOperation(state.path, stored, immutable=state.immutable)
            return self._commit("put", {state.path: b"".join(parts)}, [operation])

        return store_next()

    def delete(self) -> list[Effect]:
        """Remove an object whose value is certain."""
        state = self._pick_own()
        if state is None:
            return self._think()
        return self._commit("delete", {state.path: None}, [DeleteOperation(state.path)])

    def move(self) -> list[Effect]:
        """Rename an object to a new path."""
        state = self._pick_own()
        if state is None:
            return self._think()
        target = self._new_path()
        operation = MoveOperation(state.path, target.path, immutable=target.immutable)
        return self._commit("move", {state.path: None, target.path: state.value}, [operation])

    def _pick_own(self) -> PathState | None:
        prefix = self.name + "/"
        own = [
            state
            for path, state in self.history.paths.items()
            if path.startswith(prefix) and state.is_certain and state.value is not None
        ]
        return self.rng.choice(own) if own else None

    def _commit(
        self, what: str, values: dict[str, bytes | None], operations: list[AnyOperation]
    ) -> list[Effect]:
        operation_id = self.rng.randbytes(16)
        end = self._begin(what, values)
        return self.ask(
            lambda deadline_ms: Commit(deadline_ms, operation_id, operations),
            None,
            self.now + PATIENCE_S,
            end,
        )

    def _begin(self, what: str, values: dict[str, bytes | None]) -> Callable[..., list[Effect]]:
        states = {path: self.history.state(path) for path in values}
        before = {path: set(state.possible) for path, state in states.items()}
        for path, value in values.items():
            states[path].begin(value)
        self.world.note(self.name, what, *values)

        def settle(outcome: str, code: str) -> None:
            self._unsettled = None
            for path, value in values.items():
                if outcome == "acknowledged":
                    states[path].acknowledge(value)
                elif outcome == "refused":
                    states[path].refuse(value, before[path])
                else:
                    states[path].give_up()
            setattr(self.history, outcome, getattr(self.history, outcome) + 1)
            self.world.note(self.name, what, *values, outcome, code)
            attempted = Attempted(self.name, what, outcome, values, code)
            for look in self.world.watchers.writes:
                look(attempted)

        def end(answer: Message, data: Any, uncertain: bool) -> list[Effect]:
            code = answer.code if isinstance(answer, Failed) else ""
            outcome = "unknown" if uncertain else "refused"
            settle("acknowledged" if isinstance(answer, Committed) else outcome, code)
            after, self._after = self._after, None
            return after(code) if after is not None else self._think()

        self._unsettled = settle
        return end

    # --- reading ----------------------------------------------------------------------------------

    def read(self) -> list[Effect]:
        """Any path that somebody has written, the whole of it."""
        paths = list(self.history.paths)
        if not paths:
            return self._think()
        return self.read_path(self.rng.choice(paths), lambda code: self._think())

    def read_path(self, path: str, then: Callable[[str], list[Effect]]) -> list[Effect]:
        """Read, and hold what comes against what may be there; ``then`` takes an error's code or ""."""
        state = self.history.paths[path]
        allowed = state.begin_read()
        until = self.now + READ_PATIENCE_S

        def end(code: str, value: bytes | None) -> list[Effect]:
            state.end_read(allowed)
            self.history.reads += 1
            self.history.failed_reads += code not in ("", "NOT_FOUND")
            for look in self.world.watchers.reads:
                look(state, code, value, allowed)
            return then(code)

        def on_object(answer: Message, data: Any, uncertain: bool) -> list[Effect]:
            if isinstance(answer, Failed):
                return end(answer.code, None)
            assert isinstance(answer, ObjectData)
            return Reading(self, answer, bytes(data), until, end).go_on()

        return self.ask(lambda ms: GetObject(ms, path, 0, 2**40), None, until, on_object)

    def stat(self) -> list[Effect]:
        """Is it there, and how large?"""
        paths = list(self.history.paths)
        if not paths:
            return self._think()
        path = self.rng.choice(paths)
        state = self.history.paths[path]
        allowed = set(state.possible)
        state.reading.append(allowed)

        def end(answer: Message, data: Any, uncertain: bool) -> list[Effect]:
            state.end_read(allowed)
            sizes = {None if value is None else len(value) for value in allowed}
            found = answer.info.size if isinstance(answer, Found) else None
            known = isinstance(answer, Found) or (isinstance(answer, Failed) and answer.code == "NOT_FOUND")
            if known and found not in sizes:
                raise Violation("P2", f"stat of {path} says {found}, possible are {sizes}")
            return self._think()

        return self.ask(lambda ms: Stat(ms, path), None, self.now + READ_PATIENCE_S, end)

    def list_own(self) -> list[Effect]:
        """All own paths: what must be listed is, what must not is not."""
        prefix = self.name + "/"

        def end(answer: Message, data: Any, uncertain: bool) -> list[Effect]:
            if isinstance(answer, Listing) and not answer.next:
                listed = {info.path for info in answer.objects}
                for path, state in self.history.paths.items():
                    judged = path.startswith(prefix) and state.is_certain
                    if judged and (state.value is not None) != (path in listed):
                        raise Violation("P2", f"the listing of {prefix} is wrong about {path}")
            return self._think()

        return self.ask(
            lambda ms: ListObjects(ms, prefix, "", "", 1000), None, self.now + READ_PATIENCE_S, end
        )


def make_client(world: World, name: str, proxies: list[str], history: History) -> Worker:
    """A client and its process."""
    worker = Worker(world, name, random.Random(world.rng.getrandbits(64)), proxies, history)

    def build(process: Process) -> Built:
        worker.begin_life()
        return Built(worker)

    worker.process = Process(world, name, f"tcp://{name}:1", build, "client")
    return worker
