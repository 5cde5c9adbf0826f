"""Faults by a seed, one episode after the other, and what clients may notice of each.

An episode is one fault, or two that overlap.  It has *ended* when whatever was stopped or cut is there
again and whatever was killed runs again, and has *healed* when every role answers and every group takes
writes, with nobody's help.  Then the next one begins.

What a client may notice:

- A chunk server, or two of one group: nothing.  Another group takes the writes, other replicas the reads.
- Chunk servers of all groups at once: writes may fail.
- Proxy or master: calls may fail, also the registry's.
- Registry: pushes and pulls may fail.

And never a call that was begun later than ``FAIL_S_MAX`` after the end of an episode.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from fabric.errors import FabricError
from fabric.node.ask import ask
from fabric.wire.messages import (
    Buckets,
    ChunkDetails,
    ClusterStatus,
    GetStatus,
    ListBuckets,
    MaintainChunk,
    Ping,
)
from tests.e2e.load import Call

FAIL_S_MAX = 15.0
"""A call that begins so long after the end of an episode succeeds, on a slow machine too."""
HEAL_S_MAX = 60.0
EQUAL_S_MAX = 90.0
"""A store that was given up may be left on one member until its lease is over and an audit finds it."""
FREE_S_MAX = 90.0
ASK_S = 1.0
WRITES = ("put", "delete")


class Fault(NamedTuple):
    """Something that happens to a role or to a link."""

    kind: str
    """``kill``, ``stop``, or what the world knows besides."""
    subject: str
    """A role such as ``chunk-2``; of a link, the role whose loss comes nearest to it."""
    seconds: float
    """Until it is taken back; a killed role is restarted by others."""
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.subject}{self.detail} {self.seconds:.1f} s".removesuffix(" 0.0 s")


@dataclass
class Episode:
    """What happened, and when on the clock of ``time.monotonic``."""

    faults: list[Fault]
    begun: float
    ended: float = float("inf")
    healed: float = float("inf")

    def __str__(self) -> str:
        return " + ".join(map(str, self.faults))


class Member(NamedTuple):
    """A chunk server and where it answers."""

    name: str
    endpoint: str
    group: int


class World(Protocol):
    """What the faults are done to."""

    def members(self) -> list[Member]:
        """All chunk servers."""

    @property
    def master(self) -> str:
        """Its endpoint."""

    @property
    def proxy(self) -> str:
        """Its endpoint."""

    def begin(self, fault: Fault) -> Callable[[], None]:
        """Do it; the result takes it back, or waits until others have."""

    def choose(self, rng: random.Random) -> Fault:
        """One that makes sense here."""

    def story(self) -> str:
        """What the roles have said."""


# --- is all well? ---------------------------------------------------------------------------------


def what_is_ill(world: World) -> str:
    """Why a group would not take writes now, by its members' own word; empty when all would."""
    try:
        status = ask(world.master, GetStatus(0), ASK_S)
        assert isinstance(status, ClusterStatus)
        ask(world.proxy, Ping(0), ASK_S)
        for group in status.groups:
            if group.state != "WRITABLE":
                return f"group {group.group} is {group.state}: {group.reason}"
        epochs = {group.group: group.epoch for group in status.groups}
        for member in world.members():
            details = ask(member.endpoint, MaintainChunk(0, "status"), ASK_S)
            assert isinstance(details, ChunkDetails)
            if (details.mode, details.epoch) != ("RW", epochs.get(member.group)):
                return f"{member.name} is {details.mode} in epoch {details.epoch} of {epochs}"
    except FabricError as error:
        return error.message
    return ""


def unequal_members(world: World) -> str:
    """Which members of a group hold different fragments now; empty when none do."""
    held: dict[int, dict[str, list[bytes]]] = {}
    for member in world.members():
        buckets = ask(member.endpoint, ListBuckets(0, member.group), ASK_S)
        assert isinstance(buckets, Buckets)
        held.setdefault(member.group, {})[member.name] = buckets.digests
    problems = []
    for group, members in held.items():
        kinds = {tuple(digests) for digests in members.values()}
        if len(kinds) > 1:
            different = sum(len(set(bucket)) > 1 for bucket in zip(*members.values(), strict=True))
            problems.append(f"group {group}: {', '.join(members)} differ in {different} buckets")
    return "; ".join(problems)


def fragments_left(world: World) -> str:
    """Which members hold any fragment; empty when none does."""
    held = []
    for member in world.members():
        details = ask(member.endpoint, MaintainChunk(0, "status"), ASK_S)
        assert isinstance(details, ChunkDetails)
        if details.fragments:
            held.append(f"{member.name} has {details.fragments} fragments")
    return "; ".join(held)


def wait_empty(look: Callable[[], str], what: str, patience_s: float, story: Callable[[], str]) -> None:
    """Until ``look`` finds nothing any more.  Raises AssertionError with what it found last."""
    until = time.monotonic() + patience_s
    while problem := look():
        assert time.monotonic() < until, f"waited {patience_s:g} s for {what}: {problem}\n{story()}"
        time.sleep(0.05)


# --- doing it -------------------------------------------------------------------------------------


def run_episodes(
    world: World, rng: random.Random, seconds: float, tell: Callable[[str], None]
) -> list[Episode]:
    """Episodes for so long; the last one is finished."""
    episodes: list[Episode] = []
    started = time.monotonic()
    while time.monotonic() < started + seconds:
        first = world.choose(rng)
        second = world.choose(rng) if rng.random() < 0.3 else None
        pause_s, apart_s = rng.uniform(0.1, 1.5), rng.uniform(0.0, 1.5)
        if second is not None and second.subject == first.subject:
            second = None
        time.sleep(pause_s)
        episode = Episode([first] if second is None else [first, second], time.monotonic())
        episodes.append(episode)
        _run_one(world, episode, apart_s)
        took = f"ended after {episode.ended - episode.begun:.1f} s"
        tell(f"{episode}: {took}, healed {episode.healed - episode.ended:.1f} s later")
    return episodes


def _run_one(world: World, episode: Episode, apart_s: float) -> None:
    begins = [(episode.begun + index * apart_s, fault) for index, fault in enumerate(episode.faults)]
    to_end: list[tuple[float, Callable[[], None]]] = []
    try:
        for at, fault in begins:
            time.sleep(max(0.0, at - time.monotonic()))
            to_end.append((time.monotonic() + fault.seconds, world.begin(fault)))
    finally:
        for at, end in sorted(to_end, key=lambda pair: pair[0]):
            time.sleep(max(0.0, at - time.monotonic()))
            end()
    episode.ended = time.monotonic()
    wait_empty(lambda: what_is_ill(world), f"healing after {episode}", HEAL_S_MAX, world.story)
    episode.healed = time.monotonic()


# --- judging it -----------------------------------------------------------------------------------


def may_fail(call: Call, episode: Episode, groups_of: dict[str, int], groups: int) -> bool:
    """Whether this episode excuses that this call failed."""
    if call.begun > episode.ended + FAIL_S_MAX or call.ended < episode.begun:
        return False
    subjects = {fault.subject for fault in episode.faults}
    if subjects & {"proxy", "master"}:
        return True
    if "registry" in subjects and call.kind in ("push", "pull"):
        return True
    hit = {groups_of[subject] for subject in subjects if subject in groups_of}
    return len(hit) == groups and call.kind in (*WRITES, "push")


def unexcused(calls: Iterable[Call], episodes: list[Episode], groups_of: dict[str, int]) -> list[str]:
    """The calls that failed and must not have."""
    groups = len(set(groups_of.values()))
    found = []
    for call in calls:
        if call.error and not any(may_fail(call, episode, groups_of, groups) for episode in episodes):
            beside = [str(one) for one in episodes if one.begun <= call.ended and call.begun <= one.healed]
            found.append(
                f"{call.kind} failed after {call.seconds:.1f} s beside [{'; '.join(beside)}]: {call.error}"
            )
    return found


def summary(calls: list[Call], episodes: list[Episode], groups_of: dict[str, int]) -> str:
    """What a person wants to know of a run."""
    latest = max((episode.healed - episode.ended for episode in episodes), default=0.0)
    lines = [f"{len(episodes)} episodes; healed at the latest {latest:.1f} s after the end"]
    for kind in sorted({call.kind for call in calls}):
        these = [call for call in calls if call.kind == kind]
        errors = Counter(call.error.partition(":")[0] for call in these if call.error)
        longest = max(call.seconds for call in these)
        lines.append(
            f"{kind:7}{len(these):6} calls, failed: {dict(errors) or 'none'}; longest {longest:.2f} s"
        )
        lines += _longest_beside_one(these, episodes, groups_of)
    return "\n".join(lines)


def _longest_beside_one(calls: list[Call], episodes: list[Episode], groups_of: dict[str, int]) -> list[str]:
    """By kind of fault: the longest call beside that fault of one chunk server, and beside nothing else."""
    longest: dict[str, tuple[float, str]] = {}
    for call in calls:
        beside = [one for one in episodes if one.begun <= call.ended and call.begun <= one.healed]
        if len(beside) != 1 or len(beside[0].faults) != 1 or beside[0].faults[0].subject not in groups_of:
            continue
        (fault,) = beside[0].faults
        longest[fault.kind] = max(longest.get(fault.kind, (0.0, "")), (call.seconds, str(fault)))
    return [f"       {seconds:.2f} s beside {fault}" for seconds, fault in longest.values()]
