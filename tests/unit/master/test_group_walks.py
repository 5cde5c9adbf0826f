"""Random lives of a cluster, with one promise checked at every word that the master says.

A server is told RW only in an epoch that is durable, and only while the servers that the master last
heard of are the very ones that, in the epoch before, all reported one digest.  The checker knows what
was said and what is in the store, and nothing of the master's memory.
"""

from __future__ import annotations

import random

import msgspec
import pytest

from fabric.master import keys
from fabric.master.records import decode_group
from fabric.node.effects import Effect, Reply
from fabric.wire.messages import Assignment, SetServerStatus, Topology
from tests.unit.master.bench import MasterBench, Server, deliver, route, three_servers, topologies

STEPS = 80


class Heard(msgspec.Struct):
    """What the master was told last by a server."""

    incarnation: int
    read_only_reason: str


class Walk:
    """A bench, three servers, and the checker."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.bench = MasterBench()
        self.servers = three_servers()
        self.heard: dict[str, Heard] = {}
        self.synced: dict[tuple[int, int], dict[str, int]] = {}
        """(term, epoch) -> server -> incarnation that reported the digest."""
        self.rw_told = 0

    def run(self) -> None:
        steps = [self.beat] * 10 + [self.beat_all] * 10 + [self.wait] * 2 + [self.release] * 3
        steps += [self.restart, self.replace, self.toggle, self.restart_master, self.hold, self.set_status]
        for _ in range(STEPS):
            self.rng.choice(steps)()

    # --- steps ------------------------------------------------------------------------------------

    def beat(self, server: Server | None = None) -> None:
        server = server or self.rng.choice(self.servers)
        if server.mode == "SYNC" and self.rng.random() < 0.8:
            server.synced_digest = b"equal"
        beat = server.beat()
        effects = self.bench.heartbeat(server)
        answers = [e.message for e in effects if isinstance(e, Reply) and e.to.route == route(server.name)]
        if answers and isinstance(answers[0], Assignment):
            self.heard[server.name] = Heard(beat.incarnation, beat.read_only_reason)
            if beat.synced_digest:
                reports = self.synced.setdefault((beat.term, beat.epoch), {})
                reports[server.name] = beat.incarnation
        self.check(effects)

    def beat_all(self) -> None:
        for server in self.servers * 2:
            self.beat(server)

    def restart(self) -> None:
        self.rng.choice(self.servers).restart()

    def replace(self) -> None:
        self.rng.choice(self.servers[:2]).restart(uuid=f"disk {self.rng.random()}")

    def toggle(self) -> None:
        server = self.rng.choice(self.servers)
        server.read_only_reason = self.rng.choice(["", "", "disk nearly full"])

    def wait(self) -> None:
        self.check(self.bench.tick(self.bench.now + self.rng.choice([0.5, 1.5, 5.0])))

    def hold(self) -> None:
        self.bench.hold = True

    def release(self) -> None:
        self.bench.hold = False
        self.check(self.bench.write_held())

    def set_status(self) -> None:
        server = self.rng.choice(self.servers).name
        self.check(self.bench.tell(SetServerStatus(1_000, server, self.rng.choice(["ro", "rw", "rw", "rw"]))))

    def restart_master(self) -> None:
        self.bench.hold = False
        self.heard.clear()
        self.check(self.bench.restart())

    # --- the promise ------------------------------------------------------------------------------

    def check(self, effects: list[Effect]) -> None:
        deliver(effects, *self.servers)
        for effect in effects:
            if isinstance(effect, Reply) and isinstance(effect.message, Assignment):
                self.check_assignment(effect.message)
        for topology in topologies(effects):
            self.check_topology(topology)

    def stored_epoch(self, group: int) -> int:
        value = self.bench.store.get(keys.group_key(group))
        return 0 if value is None else decode_group(value).epoch

    def check_assignment(self, assignment: Assignment) -> None:
        assert assignment.epoch <= self.stored_epoch(assignment.group), "told before it was durable"
        if assignment.mode == "RW":
            self.rw_told += 1
            self.check_all_equal(assignment.term, assignment.epoch)

    def check_topology(self, topology: Topology) -> None:
        for group in topology.groups:
            assert group.epoch <= self.stored_epoch(group.group), "published before it was durable"
            if group.writable:
                self.check_all_equal(topology.term, group.epoch)

    def check_all_equal(self, term: int, epoch: int) -> None:
        reports = self.synced.get((term, epoch - 1), {})
        assert set(reports) == {server.name for server in self.servers}
        for name, incarnation in reports.items():
            heard = self.heard[name]
            assert heard.incarnation == incarnation, f"{name} was restarted since it was equal"
            assert not heard.read_only_reason


@pytest.mark.parametrize("seed", range(150))
def test_rw_is_only_ever_told_to_those_who_were_found_equal(seed: int) -> None:
    Walk(seed).run()


def test_the_walks_do_reach_writable_groups() -> None:
    walks = [Walk(seed) for seed in range(30)]
    for walk in walks:
        walk.run()
    assert sum(walk.rw_told > 0 for walk in walks) > 20
