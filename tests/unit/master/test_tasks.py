"""Operators' tasks, through the master's front door: begun, followed, repeated, ended, over restarts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fabric.node.effects import Effect, Sender
from fabric.wire.messages import (
    AddGroup,
    CancelTask,
    EventList,
    FragmentRef,
    GetStatus,
    GetTopology,
    GroupAdded,
    ListEvents,
    ListTasks,
    Moved,
    Moves,
    PutOperation,
    Relocate,
    Relocated,
    StartTask,
    TakeMoves,
    TaskList,
    TaskStarted,
    TaskStatus,
    Topology,
)
from tests.unit.master.bench import GIB, SETTINGS, MasterBench, Server, assignments, deliver, fragment, route

MIB = 2**20


class Cluster:
    """A master and servers that heartbeat; ``held`` is what each says it holds."""

    def __init__(self, groups: int = 2, replicas: int = 1) -> None:
        self.bench = MasterBench(replicas=replicas)
        self.servers = [Server(f"chunk-{n + 1}", group=n // replicas + 1) for n in range(groups * replicas)]
        self.said: dict[str, dict[str, Any]] = {}
        for group in range(groups):
            self.bench.make_writable(*self.servers[group * replicas : (group + 1) * replicas])

    def says(self, server: str, **fields: Any) -> None:
        self.said.setdefault(server, {}).update(fields)

    def beat(self, *names: str) -> None:
        for server in self.servers:
            if not names or server.name in names:
                deliver(self._beat(server), *self.servers)

    def _beat(self, server: Server) -> list[Effect]:
        beat = msgspec.structs.replace(server.beat(), **self.said.get(server.name, {}))
        return self.bench.tell(beat, Sender(route(server.name), 1))

    def asked_audits(self) -> dict[str, int]:
        """What each server's heartbeat is answered about audits."""
        return {server.name: assignments(self._beat(server))[server.name].audit for server in self.servers}

    def pass_time(self, seconds: float) -> None:
        """Heartbeats each second."""
        end = self.bench.now + seconds
        while self.bench.now < end:
            self.bench.tick(min(end, self.bench.now + 1.0))
            self.beat()

    def start(self, kind: Any, **fields: Any) -> TaskStarted:
        return self.bench.ask(StartTask(1_000, kind, **fields), TaskStarted)

    def task(self, number: int = 1) -> TaskStatus:
        tasks = self.bench.ask(ListTasks(1_000), TaskList).tasks
        return next(task for task in tasks if task.task == number)

    def view(self) -> Topology:
        return self.bench.ask(GetTopology(1_000), Topology)

    def put(self, path: str, fid: int, group: int = 1, length: int = 100) -> FragmentRef:
        ref = fragment(fid, length, group)
        self.bench.commit(PutOperation(path, [ref]))
        return ref

    def move_all(self, target: int = 2) -> int:
        """Play a proxy that moves whatever it is given."""
        count = 0
        while True:
            answer = self.bench.ask(TakeMoves(1_000, "proxy", 64 * MIB), Moves)
            self.bench.now += answer.pause_ms / 1000 + 0.001
            moves = answer.moves
            if not moves and answer.pause_ms >= 1_000:
                return count
            if not moves:
                continue
            fids = self.bench.lease(len(moves)).first
            moved = [
                Moved(
                    m.fragment,
                    FragmentRef(m.target or target, fids + n, m.fragment.length, m.fragment.checksum),
                )
                for n, m in enumerate(moves)
            ]
            named = self.bench.ask(Relocate(1_000, moved), Relocated).named
            count += sum(named)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_a_drained_group_takes_nothing_new_and_is_done_when_it_is_empty(cluster: Cluster) -> None:
    first = cluster.bench.lease(1_000).first
    for n in range(10):
        cluster.put(f"o/{n}", first + n)
    cluster.says("chunk-1", live_bytes=1_000, fragments=10)
    cluster.beat()
    assert not cluster.view().moving

    started = cluster.start("drain-group", group=1)

    assert started.changed and started.task.total == 1_000 and started.plan
    view = cluster.view()
    assert view.moving
    assert [(group.group, group.writable) for group in view.groups] == [(1, False), (2, True)]
    assert cluster.servers[0].mode == "RW", "what is under way may end"

    assert cluster.move_all() == 10
    cluster.pass_time(10)
    task = cluster.task()
    assert (task.state, task.done) == ("running", 1_000)
    assert task.reason == "moved; readers may finish with the old fragments"
    cluster.pass_time(SETTINGS.delete_grace_s)
    cluster.says("chunk-1", live_bytes=0, fragments=0, deleted=cluster.servers[0].deletes)
    cluster.pass_time(3)
    assert cluster.task().state == "done"
    assert not cluster.view().groups[0].writable, "it stays closed"


def test_a_late_commit_to_a_drained_group_is_moved_too(cluster: Cluster) -> None:
    first = cluster.bench.lease(1_000).first
    cluster.start("drain-group", group=1)
    cluster.pass_time(8)
    assert cluster.task().state == "done"
    late = cluster.put("late", first)
    assert cluster.view().moving
    assert cluster.move_all() == 1
    assert late.fid  # and nothing names it there any more
    assert cluster.move_all() == 0


def test_a_drain_without_anywhere_to_go_is_refused(cluster: Cluster) -> None:
    cluster.says("chunk-1", live_bytes=5 * GIB)
    cluster.says("chunk-2", free_bytes=1 * GIB)
    cluster.beat()
    refusal = cluster.bench.refused(StartTask(1_000, "drain-group", group=1))
    assert refusal.code == "REFUSED" and "room for" in refusal.message and "group add" in refusal.message
    alone = Cluster(groups=1)
    assert "no other group" in alone.bench.refused(StartTask(1_000, "drain-group", group=1)).message
    assert "known groups: 1" in alone.bench.refused(StartTask(1_000, "drain-group", group=7)).message
    assert alone.bench.refused(StartTask(1_000, "drain-group")).code == "BAD_REQUEST"
    assert not alone.view().moving


def test_a_dry_run_changes_nothing(cluster: Cluster) -> None:
    answer = cluster.start("drain-group", group=1, dry_run=True)
    assert answer.plan and not answer.changed and answer.task.task == 0
    assert cluster.bench.ask(ListTasks(1_000), TaskList).tasks == []
    assert cluster.view().groups[0].writable
    answer = cluster.bench.ask(AddGroup(1_000, 0, 0, True), GroupAdded)
    assert answer.changed and answer.group.group == 3
    assert len(cluster.view().groups) == 2


def test_a_dry_run_of_giving_data_up_is_refused_like_the_order(cluster: Cluster) -> None:
    for dry_run in (True, False):
        refusal = cluster.bench.refused(StartTask(1_000, "accept-loss", group=1, dry_run=dry_run))
        assert refusal.code == "REFUSED" and "has not lost all" in refusal.message


def test_what_runs_is_found_and_not_begun_twice(cluster: Cluster) -> None:
    cluster.put("a", cluster.bench.lease(10).first)
    one = cluster.start("drain-group", group=1)
    two = cluster.start("drain-group", group=1, bytes_per_s=5 * MIB)
    assert one.task.task == two.task.task and not two.changed
    assert two.task.bytes_per_s == 5 * MIB
    assert cluster.start("gc").task.task == 2


def test_a_cancelled_drain_opens_the_group_again(cluster: Cluster) -> None:
    cluster.put("a", cluster.bench.lease(10).first)
    cluster.start("drain-group", group=1)
    cancelled = cluster.bench.ask(CancelTask(1_000, 1), TaskStarted)
    assert cancelled.changed and cancelled.task.state == "cancelled"
    assert cluster.view().groups[0].writable and not cluster.view().moving
    assert not cluster.bench.ask(CancelTask(1_000, 1), TaskStarted).changed
    assert cluster.bench.refused(CancelTask(1_000, 9)).code == "REFUSED"
    # One that is done is opened by the same word.
    cluster.move_all()
    cluster.bench.now += 1


def test_a_task_goes_on_after_a_restart_of_the_master(cluster: Cluster) -> None:
    first = cluster.bench.lease(1_000).first
    for n in range(4):
        cluster.put(f"o/{n}", first + n)
    cluster.says("chunk-1", live_bytes=400, fragments=4)
    cluster.beat()
    cluster.start("drain-group", group=1)
    moves = cluster.bench.ask(TakeMoves(1_000, "proxy", 200), Moves).moves
    target = cluster.bench.lease(10).first
    moved = [
        Moved(m.fragment, FragmentRef(2, target + n, m.fragment.length, m.fragment.checksum))
        for n, m in enumerate(moves)
    ]
    cluster.bench.ask(Relocate(1_000, moved), Relocated)
    assert len(moved) == 2

    cluster.bench.restart()
    for server in cluster.servers:
        server.restart()
        cluster.bench.make_writable(server)

    task = cluster.task()
    assert (task.state, task.done, task.total) == ("running", 200, 400)
    assert cluster.view().moving and not cluster.view().groups[0].writable
    assert cluster.move_all() == 2
    assert cluster.start("gc").task.task == 2


def test_rebalance_moves_from_the_full_group_to_the_empty_one_and_stops(cluster: Cluster) -> None:
    first = cluster.bench.lease(1_000).first
    for n in range(100):
        cluster.put(f"o/{n}", first + n, length=4 * MIB)
    cluster.says("chunk-1", live_bytes=400 * MIB)
    cluster.beat()
    answer = cluster.start("rebalance")
    assert 190 * MIB < answer.task.total < 210 * MIB
    moved = cluster.move_all()
    assert 47 <= moved <= 53
    cluster.pass_time(3)
    assert cluster.task().state == "done"
    assert not cluster.view().moving


def test_equally_full_groups_are_left_alone(cluster: Cluster) -> None:
    for name in ("chunk-1", "chunk-2"):
        cluster.says(name, live_bytes=400 * MIB)
    cluster.beat()
    answer = cluster.start("rebalance")
    assert "nothing to move" in answer.plan[0]
    cluster.pass_time(2)
    assert cluster.task().state == "done"


def test_gc_asks_every_server_and_waits_for_all(cluster: Cluster) -> None:
    cluster.start("gc")
    asked = cluster.asked_audits()
    number = asked["chunk-1"]
    assert number and asked == {"chunk-1": number, "chunk-2": number}
    cluster.says("chunk-1", audit=number, audit_progress=1.0)
    cluster.says("chunk-2", audit=number, audit_progress=0.5)
    cluster.pass_time(3)
    task = cluster.task()
    assert (task.state, task.done, task.total) == ("running", 150, 200)
    # A finished audit of another number does not count.
    cluster.says("chunk-2", audit=number - 1, audit_progress=1.0)
    cluster.pass_time(2)
    assert cluster.task().state == "running"
    cluster.says("chunk-2", audit=number)
    cluster.pass_time(2)
    assert cluster.task().state == "done"
    assert set(cluster.asked_audits().values()) == {0}


def test_repair_of_one_group_asks_its_members_only(cluster: Cluster) -> None:
    cluster.start("repair", group=2)
    asked = cluster.asked_audits()
    assert asked["chunk-1"] == 0 and asked["chunk-2"]


def test_repair_looks_again_while_anything_lacks_and_fails_when_it_stays(cluster: Cluster) -> None:
    cluster.start("repair", group=1)
    for _ in range(60):
        number = cluster.asked_audits()["chunk-1"]
        cluster.says("chunk-1", audit=number, audit_progress=1.0, quarantined=2)
        cluster.pass_time(1)
        if cluster.task().state != "running":
            break
    task = cluster.task()
    assert task.state == "failed" and "2 damaged" in task.reason
    assert number >= 1_003, "several looks"


def test_a_server_that_is_away_is_waited_for(cluster: Cluster) -> None:
    cluster.start("gc")
    cluster.bench.tick(cluster.bench.now + 10)
    for _ in range(3):
        cluster.beat("chunk-1")
        cluster.bench.tick(cluster.bench.now + 1)
    assert cluster.task().reason == "waiting for chunk-2 to come back"


def test_the_story_is_told_in_order_and_survives_a_restart(cluster: Cluster) -> None:
    cluster.start("gc")
    cluster.bench.tick(cluster.bench.now + 2)
    events = cluster.bench.ask(ListEvents(1_000, 0, 1_000), EventList).events
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    assert any(event.subject == "task 1" and "begins" in event.text for event in events)
    cluster.bench.restart()
    again = cluster.bench.ask(ListEvents(1_000, 0, 1_000), EventList).events
    assert again[: len(events)] == events
    assert cluster.bench.ask(ListEvents(1_000, len(events) - 1, 1), EventList).events[-1].number >= len(
        events
    )
    assert cluster.bench.ask(ListEvents(1_000, 10**6, 1), EventList).events == []


def test_old_events_are_forgotten_in_the_store_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from collections import deque

    from fabric.master import events, keys
    from fabric.master.delta import DeltaStore
    from sim.store import MemoryStore

    monkeypatch.setattr(events, "KEPT", 10)
    store, told = MemoryStore(), events.Events()
    told._events = deque(maxlen=10)
    for number in range(250):
        told.note(number, "node", "chunk-1", "x" * 10_000)
        if told.is_unstored:
            delta = DeltaStore(store)
            told.store(delta)
            store.write(delta.changes)
    assert len(store.scan(keys.EVENTS, keys.after_all(keys.EVENTS), 1_000)) == 10
    assert len(told.after(0, 1_000)) == 10


def test_a_group_is_added_once(cluster: Cluster) -> None:
    added = cluster.bench.ask(AddGroup(1_000, 0, 2, False), GroupAdded)
    assert added.changed and (added.group.group, added.group.replicas) == (3, 2)
    again = cluster.bench.ask(AddGroup(1_000, 0, 0, False), GroupAdded)
    assert not again.changed and again.group.group == 3
    cluster.bench.restart()
    assert not cluster.bench.ask(AddGroup(1_000, 3, 0, False), GroupAdded).changed


def test_status_counts_what_waits_to_be_freed(cluster: Cluster) -> None:
    from fabric.wire.messages import ClusterStatus, DeleteOperation

    cluster.put("a", cluster.bench.lease(10).first)
    cluster.bench.commit(DeleteOperation("a"))
    status = cluster.bench.ask(GetStatus(1_000), ClusterStatus)
    assert (status.doomed, status.orphans_freed) == (1, 0)


def test_a_proxy_that_never_asks_is_named_as_the_reason(cluster: Cluster) -> None:
    cluster.put("a", cluster.bench.lease(10).first)
    cluster.start("drain-group", group=1)
    cluster.pass_time(8)
    assert "no proxy asks" in cluster.task().reason
