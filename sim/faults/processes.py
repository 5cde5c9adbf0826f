"""Processes killed, ended, stopped, and machines that lose their power."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fabric.wire.messages import (
    Commit,
    Committed,
    FidLease,
    FragmentsStored,
    FragmentStored,
    LeaseFids,
    PutFragment,
    Stored,
    StoreFragment,
    StoreFragments,
)
from sim.disk import keep_nothing

if TYPE_CHECKING:
    from sim.faults.scene import Scene
    from sim.process import Process
    from sim.triggers import Passing

SOON_S = 0.004
MASTER_KILLS_MAX = 12
REPLICAS_MAX = 6
STOPS_S = (0.5, 14.0)
LONGER_THAN_LEASES_S = (17.0, 26.0)


def kill_chunk(scene: Scene) -> None:
    scene.chunk().kill(scene.down_s())


def kill_proxy(scene: Scene) -> None:
    scene.proxy().kill(scene.down_s())


def kill_master(scene: Scene) -> None:
    scene.cluster.master.process.kill(scene.down_s())


def kill_client(scene: Scene) -> None:
    """In whatever it does: what it was writing is there whole, or not at all."""
    scene.rng.choice(scene.cluster.clients).process.kill(scene.rng.uniform(0.1, 4.0))


def end(scene: Scene) -> None:
    scene.any().end(scene.down_s())


def power_cut(scene: Scene) -> None:
    scene.chunk().cut_power(scene.down_s())


def group_power_cut(scene: Scene) -> None:
    for host in scene.cluster.members(scene.rng.choice(scene.cluster.groups())):
        host.cut_power(scene.down_s())


def blackout(scene: Scene) -> None:
    for host in scene.cluster.running():
        host.cut_power(scene.down_s())
    for process in scene.servers():
        process.kill(scene.down_s())


def stop(scene: Scene) -> None:
    _stop(scene, scene.any(), scene.rng.uniform(*STOPS_S))


def _stop(scene: Scene, process: Process, seconds: float) -> None:
    process.stop()
    scene.world.after(seconds, process.go_on)


# --- at a certain moment --------------------------------------------------------------------------


def kill_proxy_mid_push(scene: Scene) -> None:
    """Just when it sends a fragment to a replica, or has heard that one has it."""
    messages = scene.rng.choice([(StoreFragment, StoreFragments), (FragmentStored, FragmentsStored)])
    down_s, soon_s = scene.down_s(), scene.rng.uniform(0.0, SOON_S)

    def strike(passing: Passing) -> None:
        process = passing.source if passing.request is None else passing.target
        scene.world.after(soon_s, lambda: process.kill(down_s) if process.kind == "proxy" else None)

    scene.triggers.arm(lambda passing: isinstance(passing.message, messages), strike)


def kill_mid_commit(scene: Scene) -> None:
    """The proxy or the client, between a commit and its answer."""
    whom, down_s = scene.rng.choice(["proxy", "client"]), scene.down_s()
    soon_s = scene.rng.uniform(0.0, SOON_S)
    clients = [client.process for client in scene.cluster.clients]
    client = scene.rng.choice(clients)

    def strike(passing: Passing) -> None:
        process = passing.source if whom == "proxy" else client
        scene.world.after(soon_s, lambda: process.kill(down_s))

    def wants(passing: Passing) -> bool:
        if not isinstance(passing.message, Commit):
            return False
        return passing.source.kind == "proxy" if whom == "proxy" else passing.source is client

    scene.triggers.arm(wants, strike)


def lose_commit_answer(scene: Scene) -> None:
    """The master has committed, and its answer never comes."""

    def strike(passing: Passing) -> None:
        scene.world.network.break_connection(passing.source.name, passing.target.name)

    scene.triggers.arm(
        lambda passing: isinstance(passing.message, Committed) and passing.source.kind == "master", strike
    )


def stop_proxy_before_commit(scene: Scene) -> None:
    """It has the replicas' confirmations, and sleeps until its fids have expired."""
    seconds = scene.rng.uniform(*LONGER_THAN_LEASES_S)
    scene.triggers.arm(
        lambda passing: (
            isinstance(passing.message, FragmentStored | FragmentsStored) and passing.target.kind == "proxy"
        ),
        lambda passing: _stop(scene, passing.target, seconds),
    )


def kill_master_at_fids(scene: Scene) -> None:
    """Again and again, around the moment when it makes a range of fids durable."""
    rng = scene.rng
    message = rng.choice([LeaseFids, FidLease])
    delays = iter([(rng.uniform(0.0, SOON_S), rng.uniform(0.05, 0.6)) for _ in range(MASTER_KILLS_MAX)])

    def strike(passing: Passing) -> None:
        soon_s, down_s = next(delays)
        scene.world.after(soon_s, lambda: scene.cluster.master.process.kill(down_s))

    scene.triggers.arm(
        lambda passing: isinstance(passing.message, message), strike, rng.randint(1, MASTER_KILLS_MAX)
    )


def power_cut_at_ack(scene: Scene) -> None:
    """All replicas lose all that they have not synced, just after the client was told that they have it."""
    down_s = [scene.down_s() for _ in range(REPLICAS_MAX)]

    def strike(passing: Passing) -> None:
        members = scene.cluster.members(passing.message.fragment.group)
        for host, seconds in zip(members, down_s, strict=False):
            host.cut_power(seconds, keep_nothing)

    scene.triggers.arm(
        lambda passing: isinstance(passing.message, Stored) and isinstance(passing.request, PutFragment),
        strike,
    )


KINDS: dict[str, Callable[[Scene], None]] = {
    "kill chunk": kill_chunk,
    "kill proxy": kill_proxy,
    "kill master": kill_master,
    "kill client": kill_client,
    "end": end,
    "power cut": power_cut,
    "group power cut": group_power_cut,
    "blackout": blackout,
    "stop": stop,
    "kill proxy mid-push": kill_proxy_mid_push,
    "kill mid-commit": kill_mid_commit,
    "lose commit answer": lose_commit_answer,
    "stop proxy before commit": stop_proxy_before_commit,
    "kill master at fids": kill_master_at_fids,
    "power cut at ACK": power_cut_at_ack,
}
