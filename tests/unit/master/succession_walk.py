"""A group whose members change at random, with servers that hold data, and one promise.

The servers here are models: a set of numbers each, copied and accepted as chunk servers do it, but without
leases, so that only epochs keep them from accepting.  Whatever is told to the master, whoever dies, joins,
leaves or comes back: a server that is told RW holds every write that was acknowledged.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec

from fabric.errors import BadRequest, Refused
from fabric.master.groups import Groups
from fabric.master.journal import After
from fabric.node.effects import Effect, Reply
from fabric.wire.messages import Assignment, ClusterStatus, GetStatus, GetTopology, Topology
from tests.unit.master.bench import SETTINGS, MasterBench, Server, route

STEPS = 150
HEALING_ROUNDS = 40
SERVERS = 6


class Machine(Server):
    """A server with data."""

    data: set[int] = set()
    members: list[str] = []
    running: bool = True
    heard: bool = True
    """Its messages reach the master, and those of the master reach it."""

    def adopt(self, assignment: Assignment) -> None:
        if (assignment.term, assignment.epoch) >= (self.term, self.epoch):
            if assignment.mode != self.mode or self.names(assignment) != self.members:
                self.synced_digest = b""
            self.members = self.names(assignment)
        super().adopt(assignment)

    @staticmethod
    def names(assignment: Assignment) -> list[str]:
        return [member.server for member in assignment.members]

    def accepts(self, epoch: int) -> bool:
        return self.running and self.mode == "RW" and self.epoch == epoch

    def catch_up(self, machines: dict[str, Machine]) -> None:
        peers = [machines[name] for name in self.members if name != self.name]
        if self.running and self.mode == "SYNC" and all(peer.running for peer in peers):
            self.data |= {number for peer in peers for number in peer.data}
            self.synced_digest = repr(sorted(self.data)).encode() or b"-"


def change(
    bench: MasterBench, apply: Callable[[Groups], Callable[..., After]], *args: object
) -> list[Effect]:
    """Have the master carry out an order; a refusal changes nothing."""
    role = bench.role

    def carry_out(delta: object, now: float) -> After:
        try:
            return apply(role._groups)(delta, *args)
        except (Refused, BadRequest):
            return lambda now: []

    role._journal.submit(carry_out)
    return bench._settle([])


class SuccessionWalk:
    """One random life."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        settings = msgspec.structs.replace(SETTINGS, min_write_replicas=self.rng.choice([0, 0, 1, 2]))
        self.bench = MasterBench(replicas=self.rng.choice([2, 3]), settings=settings)
        self.machines = {
            name: Machine(name, group=1) for name in (f"chunk-{n}" for n in range(1, SERVERS + 1))
        }
        self.acknowledged: set[int] = set()
        self.writes = 0
        self.rw_told = 0
        self.changes: list[str] = []

    def run(self) -> None:
        names = list(self.machines)
        for name in names[: self.bench.replicas]:
            self.beat(self.machines[name])
        steps = [self.work] * 12 + [self.write] * 6 + [self.beat_one] * 5 + [self.catch_up_one] * 5
        steps += [self.wait] * 3 + [self.join] * 2 + [self.stop] * 2 + [self.go_on] * 4
        steps += [self.replace_disk, self.cut, self.cancel, self.restart_master, self.hold, self.release]
        for _ in range(STEPS):
            self.bench.role._groups.on_event = lambda kind, subject, text: self.changes.append(text)
            self.rng.choice(steps)()

    def heal(self) -> None:
        """Everybody comes back; what was begun must end, and all must be well."""
        self.release()
        for machine in self.machines.values():
            machine.running = machine.heard = True
        for _ in range(HEALING_ROUNDS):
            self.deliver(self.bench.tick(self.bench.now + 1.0))
            self.work()
        status = self.bench.ask(GetStatus(1_000), ClusterStatus)
        assert [(group.state, group.learners) for group in status.groups] == [("WRITABLE", [])], status
        for name in status.groups[0].members:
            assert self.machines[name].data >= self.acknowledged

    def one(self) -> Machine:
        return self.rng.choice(list(self.machines.values()))

    # --- steps ------------------------------------------------------------------------------------

    def beat(self, machine: Machine) -> None:
        if machine.running and machine.heard:
            self.deliver(self.bench.heartbeat(machine))

    def beat_one(self) -> None:
        self.beat(self.one())

    def catch_up_one(self) -> None:
        self.one().catch_up(self.machines)

    def work(self) -> None:
        """Some time in which all that can go on does."""
        for _ in range(2):
            for machine in self.machines.values():
                self.beat(machine)
                machine.catch_up(self.machines)
                self.beat(machine)

    def write(self) -> None:
        view = self.bench.ask(GetTopology(1_000), Topology)
        for group in view.groups:
            if group.writable or self.rng.random() < 0.2:
                self.writes += 1
                accepted = [self.machines[m] for m in group.members if self.machines[m].accepts(group.epoch)]
                for machine in accepted:
                    machine.data.add(self.writes)
                if group.members and len(accepted) == len(group.members):
                    self.acknowledged.add(self.writes)

    def stop(self) -> None:
        self.one().running = False

    def go_on(self) -> None:
        machine = self.one()
        if not machine.running:
            machine.running = True
            machine.restart()
        machine.heard = True

    def cut(self) -> None:
        self.one().heard = False

    def replace_disk(self) -> None:
        """Of a server without which a member that runs has all data.  It takes longer than a lease."""
        machine = self.one()
        self.release()
        groups = self.bench.role._groups
        holders = [
            other
            for other in map(self.machines.__getitem__, groups.groups[1].members)
            if other is not machine and other.running and other.heard and other.mode == "RW"
        ]
        if not holders or not groups.is_open(groups.groups[1]):
            return
        machine.running = False
        for _ in range(5):
            self.deliver(self.bench.tick(self.bench.now + 1.0))
            for other in self.machines.values():
                self.beat(other)
        machine.restart(uuid=f"{machine.name} {self.rng.random()}")
        machine.running, machine.data, machine.members = True, set(), []
        self.beat(machine)

    def join(self) -> None:
        replaced = self.rng.choice([self.one().name, self.one().name, self.one().name, ""])
        joining = self.one().name
        self.deliver(change(self.bench, lambda groups: groups.join, joining, 1, replaced))

    def cancel(self) -> None:
        self.deliver(change(self.bench, lambda groups: groups.cancel_join, self.one().name))

    def wait(self) -> None:
        self.deliver(self.bench.tick(self.bench.now + self.rng.choice([0.5, 2.0, 5.0])))

    def hold(self) -> None:
        self.bench.hold = True

    def release(self) -> None:
        self.bench.hold = False
        self.deliver(self.bench.write_held())

    def restart_master(self) -> None:
        self.bench.hold = False
        self.deliver(self.bench.restart())

    # --- the promise ------------------------------------------------------------------------------

    def deliver(self, effects: list[Effect]) -> None:
        for effect in effects:
            if not isinstance(effect, Reply) or not isinstance(effect.message, Assignment):
                continue
            machine = next((m for m in self.machines.values() if route(m.name) == effect.to.route), None)
            if machine is None:
                continue
            if effect.message.mode == "RW":
                self.rw_told += 1
                lacks = self.acknowledged - machine.data
                assert not lacks, f"{machine.name} is told RW and lacks {sorted(lacks)}: {self.changes[-8:]}"
            if machine.running and machine.heard:
                machine.adopt(effect.message)
