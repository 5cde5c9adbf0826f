"""Random walks: drivers ask, replicas and the master answer well, badly, late or never, time passes.

Whatever happens: every request gets exactly one reply, every counter returns to zero, ``Stored`` is
said only of what every member has confirmed, no fid is sent out for two fragments, and no fragment
that may be part of an object is aborted.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgspec
import pytest

from fabric.errors import (
    BadChecksum,
    Busy,
    DiskFailed,
    FabricError,
    FidExpired,
    Internal,
    NoFragment,
    NotFound,
    NotWritable,
    Precondition,
    StaleEpoch,
    Unavailable,
)
from fabric.node.effects import Send, Sender
from fabric.settings import Settings
from fabric.wire.messages import (
    AbortFragment,
    CatalogChanged,
    Commit,
    Committed,
    FidLease,
    Found,
    FragmentAborted,
    FragmentData,
    FragmentRef,
    FragmentRefusal,
    FragmentsStored,
    FragmentStored,
    GetFragment,
    GetObject,
    GetTopology,
    LeaseFids,
    Message,
    Noted,
    ObjectInfo,
    Open,
    PutFragment,
    PutObject,
    ReadFragment,
    ReportFailure,
    Stat,
    Stored,
    StoreFragment,
    StoreFragments,
)
from tests.unit.proxy.world import World, checksum, opened, topology

ERRORS: list[FabricError] = [
    Unavailable("gone"),
    Busy("full"),
    DiskFailed("EIO"),
    StaleEpoch("newer"),
    NotWritable("syncing"),
    NoFragment("not here"),
    BadChecksum("damaged"),
    Precondition("generation"),
    NotFound("absent"),
    FidExpired("late"),
    Internal("a bug"),
]
REFUSED_FOR_GOOD = ("PRECONDITION", "NOT_FOUND", "FID_EXPIRED")
INFO = ObjectInfo("blob/1", 10, 1, 1, "", 0, {}, True)
GROUPS = {1: ["a", "b", "c"], 2: ["d", "e", "f"], 3: ["g", "h"]}
CONTENT = {fid: bytes([fid]) * (fid * 3) for fid in range(1, 20)}


class Walk:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.world = World(
            GROUPS, settings=Settings(fid_range_count=8, proxy_inflight_bytes_max=60_000), seed=seed, fids=8
        )
        self.asked: dict[Sender, Message] = {}
        self.confirmed: dict[int, set[str]] = {}
        self.first_sent: dict[int, bytes] = {}
        self.maybe_committed: set[int] = set()
        self.commits_seen: set[int] = set()
        self.replies_seen = 0
        self.sequence = 1
        self.next_fid = 2000

    def run(self, steps: int) -> None:
        for _ in range(steps):
            steps_and_weights = {self.ask: 3, self.ask_together: 1, self.answer: 14, self.publish: 1}
            steps_and_weights[self.pass_time] = 1
            self.rng.choices(list(steps_and_weights), list(steps_and_weights.values()))[0]()
            self.look()
        self.world.wait(130.0)
        self.look()

    def ask_together(self) -> None:
        with self.world.one_turn():
            for _ in range(self.rng.randrange(2, 6)):
                self.ask()

    def ask(self) -> None:
        rng, world = self.rng, self.world
        data = rng.randbytes(rng.choice([1, 10, 300, 5000]))
        fid = rng.choice(list(CONTENT))
        fragment = FragmentRef(rng.choice([1, 2, 3, 9]), fid, len(CONTENT[fid]), checksum(CONTENT[fid]))
        deadline_ms = rng.choice([0, 10, 1000, 5000, 2**40])
        request = rng.choice(
            [
                PutFragment(deadline_ms, checksum(data)),
                PutObject(deadline_ms, b"o" * 16, "blob/1", checksum(data), immutable=True),
                GetFragment(deadline_ms, fragment, 0, fragment.length),
                GetFragment(deadline_ms, fragment, 1, 2),
                GetObject(deadline_ms, f"blob/{rng.randrange(4)}", 0, 100),
                Stat(deadline_ms, "blob/1"),
            ]
        )
        payload = data if isinstance(request, PutFragment | PutObject) else None
        self.asked[world.ask(request, payload)] = request

    def answer(self) -> None:
        if not self.world.sent:
            return
        send = self.rng.choice(self.world.sent[-30:])
        draw = self.rng.random()
        if draw < 0.60:
            self.answer_well(send)
        elif draw < 0.90:
            error = self.rng.choice(ERRORS)
            if isinstance(send.message, Commit) and error.code in REFUSED_FOR_GOOD:
                self.maybe_committed -= fids_of(send.message)
            self.world.fail(send, error)
        elif draw < 0.95:
            self.world.answer(send, Noted())
        else:
            self.world.sent.remove(send)  # it never answers

    def answer_well(self, send: Send) -> None:
        world, message = self.world, send.message
        match message:
            case StoreFragment():
                self.confirmed.setdefault(message.fid, set()).add(send.endpoint)
                length = len(send.payload) - (self.rng.random() < 0.05)
                if length != len(send.payload):
                    self.confirmed[message.fid].discard(send.endpoint)
                stored = FragmentStored(message.group, message.epoch, message.fid, length, message.checksum)
                world.answer(send, stored)
            case StoreFragments():
                self.answer_several(send, message)
            case ReadFragment():
                data = CONTENT[message.fid][message.offset : message.offset + message.length]
                if self.rng.random() < 0.1:
                    data = data[:-1] + b"?"
                world.answer(send, FragmentData(message.fid, message.offset, checksum(data)), data)
            case LeaseFids():
                world.answer(send, FidLease(self.next_fid, 8, self.rng.choice([100, 60_000])))
                self.next_fid += 8
            case GetTopology():
                world.answer(send, self.topology())
            case Commit():
                world.answer(send, Committed([INFO]))
            case Stat():
                world.answer(send, Found(INFO))
            case Open():
                fid = self.rng.choice(list(CONTENT))
                fragment = FragmentRef(1, fid, len(CONTENT[fid]), checksum(CONTENT[fid]))
                world.answer(send, opened(message.path, [fragment]))
            case AbortFragment():
                world.answer(send, FragmentAborted(message.fid))
            case ReportFailure():
                world.answer(send, Noted())

    def answer_several(self, send: Send, message: StoreFragments) -> None:
        """Some it may refuse, of some it may confirm other bytes, some it may not mention."""
        stored: list[FragmentRef] = []
        refused: list[FragmentRefusal] = []
        for fragment in message.fragments:
            draw = self.rng.random()
            if draw < 0.9:
                stored.append(fragment)
                self.confirmed.setdefault(fragment.fid, set()).add(send.endpoint)
            elif draw < 0.95:
                error = self.rng.choice(ERRORS)
                refused.append(FragmentRefusal(fragment.fid, error.code, error.message))
            elif draw < 0.98:
                stored.append(msgspec.structs.replace(fragment, length=fragment.length - 1))
        self.world.answer(send, FragmentsStored(message.group, message.epoch, stored, refused))

    def topology(self):
        self.sequence += self.rng.choice([0, 1, 1, 2])
        writable = frozenset(group for group in GROUPS if self.rng.random() < 0.8)
        return topology(GROUPS, sequence=self.sequence, writable=writable)

    def publish(self) -> None:
        if self.rng.random() < 0.5:
            self.world.publish(self.topology())
        else:
            self.sequence += 1
            self.world.publish(CatalogChanged(1, self.sequence, ["blob/1"]))

    def pass_time(self) -> None:
        self.world.wait(self.rng.choice([0.01, 0.5, 2.5]))

    # --- what must hold ---

    def look(self) -> None:
        for send in self.world.sent:
            message = send.message
            if isinstance(message, StoreFragment):
                assert self.first_sent.setdefault(message.fid, send.payload) is send.payload
            elif isinstance(message, StoreFragments):
                for fragment, data in parts_of(message, send.payload):
                    assert self.first_sent.setdefault(fragment.fid, data) == data
                    assert checksum(data) == fragment.checksum
            elif isinstance(message, Commit):
                for fid in fids_of(message):
                    self.assert_stored_everywhere(fid)
                if send.request_id not in self.commits_seen:
                    self.commits_seen.add(send.request_id)
                    self.maybe_committed |= fids_of(message)
            elif isinstance(message, AbortFragment):
                assert message.fid not in self.maybe_committed
        for reply in self.world.replies[self.replies_seen :]:
            if isinstance(reply.message, Stored):
                self.assert_stored_everywhere(reply.message.fragment.fid)
                self.maybe_committed.add(reply.message.fragment.fid)
            elif isinstance(reply.message, FragmentData):
                request = self.asked[reply.to]
                assert isinstance(request, GetFragment)
                if request.length == request.fragment.length:
                    assert bytes(reply.payload) == CONTENT[request.fragment.fid]
        self.replies_seen = len(self.world.replies)

    def assert_stored_everywhere(self, fid: int) -> None:
        members = next(m for m in GROUPS.values() if f"tcp://{m[0]}:7410" in self.confirmed[fid])
        assert self.confirmed[fid] == {f"tcp://{server}:7410" for server in members}


def parts_of(message: StoreFragments, payload: bytes) -> Iterator[tuple[FragmentRef, bytes]]:
    start = 0
    for fragment in message.fragments:
        yield fragment, payload[start : start + fragment.length]
        start += fragment.length
    assert start == len(payload)


def fids_of(commit: Message) -> set[int]:
    assert isinstance(commit, Commit)
    return {fragment.fid for operation in commit.operations for fragment in operation.fragments}


@pytest.mark.parametrize("seed", range(40))
def test_a_random_walk_keeps_every_promise(seed):
    walk = Walk(seed)
    walk.run(400)
    assert len(walk.asked) > 30
    answered = [reply.to for reply in walk.world.replies]
    assert len(answered) == len(set(answered))
    assert set(answered) == set(walk.asked)
    walk.world.assert_idle()
    assert len(walk.world.role._context.calls) <= 2  # the proxy's own: a snapshot and fids


def test_the_walks_reach_every_outcome():
    codes = set()
    for seed in range(10):
        walk = Walk(seed)
        walk.run(400)
        codes |= {
            getattr(reply.message, "code", type(reply.message).__name__) for reply in walk.world.replies
        }
    assert {"Stored", "Committed", "FragmentData", "ObjectData", "Found"} <= codes
    assert {"NO_WRITABLE_GROUP", "NO_GOOD_COPY", "BUSY", "DEADLINE", "UNAVAILABLE", "BAD_CHECKSUM"} <= codes
