"""Uploads in parts, by their rules alone: any order, repetitions, rivals, and deaths at any commit.

Parts begin at multiples of four bytes here.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from fabric.driver.registry import parts as rules
from fabric.driver.registry.errors import BodyInterrupted, RegistryError
from fabric.driver.registry.following import CLAIM_S, DIGESTED, Claims, Following, Pace
from fabric.driver.registry.names import Digest, blob_path, parse_digest, upload_path
from fabric.driver.registry.part_order import parse_digested
from fabric.driver.registry.parts import Parts
from fabric.driver.registry.ranges import ByteRange
from fabric.driver.registry.uploads import Upload
from fabric.errors import Unavailable
from fabric.settings import FRAGMENT_BYTES_MAX
from fabric.wire.messages import AnyOperation, ObjectInfo
from tests.unit.driver.registry.harness import sha256
from tests.unit.driver.registry.memory_store import MemoryStore
from tests.unit.driver.registry.world import Clock, FrailStore, InlineDigest, Process, interleave, pieces, run

UNIT = 4
SEEDS = range(int(os.environ.get("FABRIC_RACES", "40")))
DATA = bytes(range(100, 130))
"""Seven whole parts and one of two bytes."""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "PART_UNIT_BYTES", UNIT)


class Server(Process):
    """One registry process, with what it was told to follow."""

    def __init__(self, store: Any, clock: Clock) -> None:
        super().__init__(store, clock)
        self.claims = Claims(clock.new_id(), clock.wall_ms)
        self.to_follow: list[str] = []
        self.parts = Parts(
            store,
            self.uploads,
            InlineDigest,
            clock.new_id,
            self.claims,
            lambda each, _: self.to_follow.append(each),
        )

    async def start(self) -> Upload:
        return await self.parts.start("app", "sha256")

    async def send(
        self, upload: Upload, start: int, end: int, data: bytes = DATA, digest: str = ""
    ) -> Upload:
        """The bytes from ``start`` to ``end``, in two pieces."""
        middle = (start + end) // 2
        body = pieces(data[start:middle], data[middle:end])
        declared = parse_digest(digest) if digest else None
        return await self.parts.receive(upload, ByteRange(start, end - start), body, declared)

    async def send_all(self, upload: Upload, *starts: int) -> None:
        for start in starts:
            await self.send(upload, start, min(start + UNIT, len(DATA)))

    async def follow(self) -> None:
        """All that it was told to, until it is level."""
        while self.to_follow:
            following = self.following(self.to_follow.pop())
            while await following.step() is Pace.BEHIND:
                pass

    def following(self, upload_id: str) -> Following:
        return Following(self.store, upload_id, InlineDigest("sha256"), self.claims, self.clock.monotonic_s)

    async def end(self, upload: Upload, size: int | None = None, data: bytes = DATA) -> None:
        """Finish, with the digest computed in between."""
        if await self.parts.finish(upload, digest_of(data), size) is not None:
            await self.follow()
            assert await self.parts.finish(upload, digest_of(data), size) is None


def digest_of(data: bytes) -> Digest:
    return parse_digest(sha256(data))


def refusal(coroutine: Coroutine[Any, Any, Any]) -> RegistryError:
    with pytest.raises(RegistryError) as caught:
        run(coroutine)
    return caught.value


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def server(store: MemoryStore) -> Server:
    return Server(store, Clock())


STARTS = range(0, len(DATA), UNIT)


@pytest.mark.parametrize("seed", range(10))
def test_any_order_gives_the_blob_and_leaves_nothing(server: Server, store: MemoryStore, seed: int) -> None:
    upload = run(server.start())
    starts = list(STARTS)
    random.Random(seed).shuffle(starts)
    run(server.send_all(upload, *starts))
    run(server.end(upload))
    assert store.content(blob_path(digest_of(DATA))) == DATA
    assert store.paths("uploads/") + store.paths("parts/") == []


def test_a_part_is_joined_when_all_before_it_are_here(server: Server, store: MemoryStore) -> None:
    upload = run(server.start())
    path = upload_path(upload.upload_id)
    run(server.send_all(upload, 8, 4))
    assert store.content(path) == b""
    assert [part.start for part in run(server.parts.progress(upload)).waiting] == [4, 8]
    assert run(server.send(upload, 0, 4)).size == 12
    assert store.content(path) == DATA[:12]
    assert store.paths("parts/") == []
    assert run(server.send(upload, 12, 20)).size == 20, "parts may have several units"


def test_joining_is_part_of_the_commit_that_accepts(server: Server, store: MemoryStore) -> None:
    upload = run(server.start())
    run(server.send_all(upload, 4, 8))
    before = store.calls["commit"]
    run(server.send(upload, 0, 4))
    assert store.calls["commit"] == before + 2, "one to begin the part, one for all the rest"


def test_more_parts_than_one_commit_joins_follow_in_others(
    server: Server, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fabric.driver.registry import part_order

    monkeypatch.setattr(part_order, "JOINS_MAX", 2)
    upload = run(server.start())
    run(server.send_all(upload, *reversed(STARTS[1:])))
    assert run(server.send(upload, 0, UNIT)).size == len(DATA)
    assert store.paths("parts/") == []


def test_a_process_that_dies_between_those_commits_is_no_loss(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fabric.driver.registry import part_order

    monkeypatch.setattr(part_order, "JOINS_MAX", 2)
    clock = Clock()
    mortal, other = Server(FrailStore(store, 2, after=True), clock), Server(store, clock)
    upload = run(other.start())
    run(other.send_all(upload, *STARTS[1:]))
    interleave([mortal.send(upload, 0, UNIT)], random.Random(0))
    assert 0 < len(store.content(upload_path(upload.upload_id))) < len(DATA)
    clock.advance(CLAIM_S)
    run(other.end(upload, len(DATA)))
    assert store.content(blob_path(digest_of(DATA))) == DATA


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end"), [(1, 4), (2, 8), (4, 12), (0, 12), (8, 16), (8, 20), (12, 14), (0, 5)]
)
def test_a_part_across_another_is_refused(server: Server, store: MemoryStore, start: int, end: int) -> None:
    upload = run(server.start())
    run(server.send(upload, 0, 4))
    run(server.send(upload, 8, 12))
    run(server.send(upload, 12, 20))
    before = store.paths("parts/")
    error = refusal(server.send(upload, start, end))
    assert (error.status, error.code) == (416, "BLOB_UPLOAD_INVALID")
    assert store.paths("parts/") == before


def test_limits_of_a_part(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = run(server.start())
    monkeypatch.setattr(rules, "PART_BYTES_MAX", 8)
    monkeypatch.setattr(rules, "BLOB_BYTES_MAX", 1000)
    assert refusal(server.send(upload, 0, 9)).status == 416
    assert refusal(server.send(upload, 996, 1001)).status == 416
    assert run(server.send(upload, 0, 8)).size == 8


def test_only_so_many_parts_wait(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "WAITING_MAX", 2)
    upload = run(server.start())
    run(server.send_all(upload, 8, 12))
    error = refusal(server.send(upload, 16, 20))
    assert "begins at byte 0" in error.message
    run(server.send(upload, 8, 12))
    run(server.send_all(upload, 0, 4, 16))


@pytest.mark.parametrize("body", [b"123", b"12345", b""])
def test_a_body_of_another_length_is_refused(server: Server, store: MemoryStore, body: bytes) -> None:
    upload = run(server.start())
    error = refusal(server.parts.receive(upload, ByteRange(0, 4), pieces(body), None))
    assert error.code == "SIZE_INVALID"
    assert store.paths("parts/") == []
    assert run(server.send(upload, 0, 4)).size == 4


def test_a_part_with_another_digest_than_it_says_is_refused(server: Server, store: MemoryStore) -> None:
    upload = run(server.start())
    assert refusal(server.send(upload, 4, 8, digest=sha256(DATA[0:4]))).code == "DIGEST_INVALID"
    assert store.paths("parts/") == []
    run(server.send(upload, 4, 8, digest=sha256(DATA[4:8])))
    assert len(run(server.parts.progress(upload)).waiting) == 1


def test_of_a_body_that_breaks_off_nothing_is_kept(server: Server, store: MemoryStore) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"12"
        raise BodyInterrupted("gone")

    upload = run(server.start())
    with pytest.raises(BodyInterrupted):
        run(server.parts.receive(upload, ByteRange(0, 4), broken(), None))
    assert store.paths("parts/") == []


def test_a_store_that_fails_leaves_a_part_that_can_be_sent_again(server: Server, store: MemoryStore) -> None:
    upload = run(server.start())
    for step in ("write", "flush", "list", "commit"):
        store.fail(step, Unavailable("later"), times=2)
        with pytest.raises(Unavailable):
            run(server.send(upload, 0, 4))
        store.fail(step, Unavailable("later"), times=0)
    assert run(server.send(upload, 0, 4)).size == 4


# --- the same part again --------------------------------------------------------------------------


def test_a_waiting_part_is_replaced(server: Server, store: MemoryStore) -> None:
    upload = run(server.start())
    run(server.send(upload, 4, 8, b"wrong" * 4))
    run(server.send_all(upload, *reversed(STARTS)))
    run(server.end(upload))
    assert store.content(blob_path(digest_of(DATA))) == DATA


def test_a_part_of_the_prefix_must_be_the_same_bytes(server: Server, store: MemoryStore) -> None:
    upload = run(server.start())
    run(server.send_all(upload, 0, 4))
    for start, end in ((0, 4), (4, 8), (0, 8)):
        assert run(server.send(upload, start, end, digest=sha256(DATA[start:end]))).size == 8
        assert run(server.send(upload, start, end)).size == 8
        assert refusal(server.send(upload, start, end, bytes(100))).code == "DIGEST_INVALID"
    assert refusal(server.send(upload, 0, 4, digest=sha256(b""))).code == "DIGEST_INVALID"
    assert store.content(upload_path(upload.upload_id)) == DATA[:8]


@pytest.mark.parametrize("same", [True, False])
def test_the_same_part_twice_at_once(store: MemoryStore, same: bool) -> None:
    clock = Clock()
    for seed in range(30):
        one, two = Server(store, clock), Server(store, clock)
        upload = run(one.start())
        codes: list[str] = []

        async def send(server: Server, data: bytes, upload: Upload, codes: list[str]) -> None:
            try:
                await server.send(upload, 0, 4, data)
            except RegistryError as error:
                codes.append(error.code)

        other = DATA if same else bytes(10)
        interleave([send(one, DATA, upload, codes), send(two, other, upload, codes)], random.Random(seed))
        assert codes == [] if same else codes == ["DIGEST_INVALID"]
        assert store.content(upload_path(upload.upload_id)) in {DATA[:4], other[:4]}
        assert store.paths(f"parts/{upload.upload_id}/") == []


# --- the end --------------------------------------------------------------------------------------


def test_what_is_missing_is_told_and_nothing_is_lost(server: Server, store: MemoryStore) -> None:
    upload = run(server.start())
    run(server.send_all(upload, 4, 16))
    error = refusal(server.parts.finish(upload, digest_of(DATA), len(DATA)))
    assert (error.status, error.code) == (416, "BLOB_UPLOAD_INVALID")
    missing = [(gap["start"], gap["size"]) for gap in error.detail["missing"]]  # type: ignore[index]
    assert missing == [(0, 4), (8, 8), (20, 10)]
    assert refusal(server.parts.finish(upload, digest_of(DATA), None)).detail == {
        "missing": [{"start": 0, "size": 4}, {"start": 8, "size": 8}]
    }
    run(server.send_all(upload, 0, 8, 12, 20, 24, 28))
    assert refusal(server.parts.finish(upload, digest_of(DATA), len(DATA) - 1)).code == "SIZE_INVALID"
    run(server.end(upload, len(DATA)))
    assert store.content(blob_path(digest_of(DATA))) == DATA


def test_a_wrong_digest_discards_the_upload(server: Server, store: MemoryStore) -> None:
    upload = run(server.start())
    run(server.send_all(upload, *STARTS))
    run(server.follow())
    assert refusal(server.parts.finish(upload, digest_of(b"other"), None)).code == "DIGEST_INVALID"
    assert store.paths("uploads/") + store.paths("parts/") + store.paths("blobs/") == []


def test_another_algorithm_at_the_end_is_refused_and_the_upload_stays(server: Server) -> None:
    upload = run(server.start())
    other = Digest("sha512", "0" * 128)
    assert refusal(server.parts.finish(upload, other, 0)).code == "DIGEST_INVALID"
    run(server.send_all(upload, *STARTS))


def test_an_empty_blob(server: Server, store: MemoryStore) -> None:
    run(server.end(run(server.start()), 0, b""))
    assert store.content(blob_path(digest_of(b""))) == b""


def test_cancel_leaves_nothing_and_a_part_on_its_way_is_refused(server: Server, store: MemoryStore) -> None:
    for seed in range(30):
        upload = run(server.start())
        run(server.send_all(upload, 0, 8))

        async def late(upload: Upload = upload) -> None:
            try:
                await server.send(upload, 4, 8)
            except RegistryError as error:
                assert error.code == "BLOB_UPLOAD_UNKNOWN"

        interleave([server.parts.cancel(upload), late()], random.Random(seed))
        run(server.collect())
        assert store.paths("uploads/") + store.paths("parts/") == []


# --- the digest -----------------------------------------------------------------------------------


def test_the_digest_is_there_before_the_end_and_any_process_can_use_it(store: MemoryStore) -> None:
    clock = Clock()
    first, second = Server(store, clock), Server(store, clock)
    upload = run(first.start())
    run(first.send_all(upload, *STARTS))
    run(first.follow())
    store.calls.clear()
    assert run(second.parts.finish(upload, digest_of(DATA), None)) is None
    assert store.calls["open"] == 0, "nothing was read again"
    assert second.to_follow == []


def test_one_process_follows_until_its_claim_runs_out(store: MemoryStore) -> None:
    clock = Clock()
    first, second = Server(store, clock), Server(store, clock)
    upload = run(first.start())
    run(second.send(upload, 4, 8))
    assert second.to_follow == [], "nothing to follow yet"
    run(first.send(upload, 0, 4))
    run(second.send(upload, 8, 12))
    assert (len(first.to_follow), second.to_follow) == (1, [])
    assert run(second.parts.finish(upload, digest_of(DATA[:12]), None)) is not None
    assert second.to_follow == []

    clock.advance(CLAIM_S)  # the first has died
    assert run(second.parts.finish(upload, digest_of(DATA[:12]), None)) is not None
    assert second.to_follow == [upload.upload_id]
    assert run(first.following(upload.upload_id).step()) is Pace.OVER, "it has been taken over"
    run(second.follow())
    assert run(first.parts.finish(upload, digest_of(DATA[:12]), None)) is None


def test_following_keeps_its_claim_and_ends_with_the_upload(store: MemoryStore) -> None:
    clock = Clock()
    server = Server(store, clock)
    upload = run(server.start())
    run(server.send(upload, 0, 4))
    following = server.following(upload.upload_id)
    assert run(following.step()) is Pace.CAUGHT_UP
    commits = store.calls["commit"]
    assert run(following.step()) is Pace.CAUGHT_UP
    assert store.calls["commit"] == commits, "nothing new, nothing to note"
    for _ in range(10):
        clock.advance(CLAIM_S / 2)
        assert run(following.step()) is Pace.CAUGHT_UP
        assert not Server(store, clock).claims.are_open(run(server.parts.progress(upload)).claim)
    run(server.parts.cancel(upload))
    assert run(following.step()) is Pace.OVER


def test_a_long_prefix_is_read_in_steps(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from fabric.driver.registry import following as module

    monkeypatch.setattr(module, "STEP_BYTES_MAX", 5)
    upload = run(server.start())
    run(server.send_all(upload, *STARTS))
    following = server.following(upload.upload_id)
    paces = [run(following.step()) for _ in range(6)]
    assert paces == [Pace.BEHIND] * 5 + [Pace.CAUGHT_UP]
    assert following.digest.value() == digest_of(DATA).value


# --- garbage --------------------------------------------------------------------------------------


def test_an_upload_whose_parts_come_is_not_abandoned_though_it_does_not_grow(store: MemoryStore) -> None:
    clock = Clock()
    server = Server(store, clock)
    server.garbage._policy = type(server.policy)(0, 0, 0, 100.0)
    upload = run(server.start())
    for start in (8, 12, 16, 20):
        clock.advance(90)
        run(server.send(upload, start, start + 4))
        run(server.garbage.run())
    assert len(run(server.parts.progress(upload)).waiting) == 4
    clock.advance(101)
    run(server.garbage.run())
    assert store.paths("uploads/") + store.paths("parts/") == []


def test_parts_of_a_killed_process_go_with_their_upload(store: MemoryStore) -> None:
    clock = Clock()
    server, mortal = Server(store, clock), Server(FrailStore(store, 1, after=True), clock)
    upload = run(server.start())
    run(server.send(upload, 0, 4))
    interleave([mortal.send(upload, 4, 8)], random.Random(0))
    assert len(store.paths("parts/")) == 1
    run(server.end(upload, 4, DATA[:4]))
    assert store.paths("parts/") == []


# --- all at once ----------------------------------------------------------------------------------


class Witness:
    """Looks at the store after each of its commits."""

    def __init__(self, store: MemoryStore, data: bytes) -> None:
        self._store, self._data, self._run = store, data, store.run
        store.run = self.run  # type: ignore[method-assign]

    def run(self, operations: list[AnyOperation]) -> list[ObjectInfo | None]:
        results = self._run(operations)
        for path in self._store.paths("uploads/"):
            size = self._store.entries[path].size
            assert self._store.content(path) == self._data[:size]
            digested = parse_digested(dict(self._store.entries[path].attributes or {}).get(DIGESTED, ""))
            if digested.size:
                assert digested.value == digest_of(self._data[: digested.size]).value
            end = size
            for waiting in self._store.paths(f"parts/{path.removeprefix('uploads/')}/waiting/"):
                start = int(waiting.rsplit("/", 1)[1])
                assert start >= end, "no two parts share a byte"
                end = start + self._store.entries[waiting].size
        return results


@pytest.mark.parametrize("seed", SEEDS)
def test_rivals_and_deaths_lose_nothing_that_was_acknowledged(seed: int) -> None:
    rng = random.Random(seed)
    store, clock = MemoryStore(), Clock()
    data = rng.randbytes(rng.randint(UNIT, 60))
    Witness(store, data)
    upload = run(Server(store, clock).start())
    acknowledged: list[tuple[int, int]] = []

    def mortal() -> Server:
        kept: Any = store
        if rng.random() < 0.4:
            kept = FrailStore(store, rng.randint(1, 8), after=rng.random() < 0.5)
        return Server(kept, clock)

    async def client(server: Server, spans: list[tuple[int, int]]) -> None:
        for start, end in spans:
            try:
                await server.send(upload, start, end, data)
            except RegistryError as error:
                assert error.status == 416
            else:
                acknowledged.append((start, end))
            if rng.random() < 0.3:
                await server.follow()

    spans = [(start, min(start + UNIT, len(data))) for start in range(0, len(data), UNIT)]
    wide = [(start, min(start + 2 * UNIT, len(data))) for start in range(0, len(data), UNIT)]
    clients = []
    for _ in range(rng.randint(2, 5)):
        chosen = rng.sample(spans, rng.randint(1, len(spans)))
        chosen += rng.sample(wide, rng.randint(0, len(wide)))
        rng.shuffle(chosen)
        clients.append(client(mortal(), chosen))
    interleave(clients, rng)

    clock.advance(CLAIM_S)
    last = Server(store, clock)
    seen = run(last.parts.progress(upload))
    for start, end in acknowledged:
        assert all(gap.last < start or gap.start >= end for gap in seen.gaps(len(data))), "acknowledged"
    for gap in seen.gaps(len(data)):
        run(last.send(upload, gap.start, gap.last + 1, data))
    run(last.end(upload, len(data), data))
    assert store.content(blob_path(digest_of(data))) == data
    assert store.paths("uploads/") + store.paths("parts/") == []


@pytest.mark.parametrize("seed", SEEDS)
def test_several_that_finish_at_once_with_some_that_die(seed: int) -> None:
    rng = random.Random(seed)
    store, clock = MemoryStore(), Clock()
    first = Server(store, clock)
    upload = run(first.start())
    run(first.send_all(upload, *STARTS))
    run(first.follow())

    async def finish(server: Server) -> None:
        try:
            await server.parts.finish(upload, digest_of(DATA), len(DATA))
        except RegistryError as error:
            assert error.code == "BLOB_UPLOAD_UNKNOWN"
            assert await server.uploads.was_finished("app", digest_of(DATA))

    servers = [Server(FrailStore(store, rng.randint(1, 4), after=rng.random() < 0.5), clock), first]
    interleave([finish(server) for server in [*servers, Server(store, clock)]], rng)
    assert store.content(blob_path(digest_of(DATA))) == DATA
    run(first.collect())
    assert store.paths("uploads/") + store.paths("parts/") == []


def test_a_fragment_is_the_unit_of_parts() -> None:
    from fabric.driver.registry import part_order

    assert part_order.PART_UNIT_BYTES == FRAGMENT_BYTES_MAX
