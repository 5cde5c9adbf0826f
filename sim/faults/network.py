"""Links that carry nothing, in one direction or both; a network that is slow, forgets and repeats itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.faults.scene import Scene

CUT_S = (0.5, 12.0)
BOTH_WAYS_SHARE = 0.6


def set_weather(scene: Scene) -> None:
    """For the whole run."""
    rng, network = scene.rng, scene.world.network
    network.publish_loss = rng.choice([0.0, 0.0, 0.3, 1.0])
    network.doubles = rng.choice([0.0, 0.0, 0.1])
    network.loss = rng.choice([0.0, 0.0, 0.0, 0.01])
    network.tail_share = rng.choice([0.0, 0.02, 0.2])
    network.tail_s = rng.choice([0.05, 0.5, 2.5])
    network.reorders = rng.random() < 0.5
    network.turns_s = rng.choice([0.0, 0.01, 0.05])


def _cut(scene: Scene, one: str, other: str) -> None:
    seconds = scene.rng.uniform(*CUT_S)
    scene.world.network.cut(one, other, seconds)
    if scene.rng.random() < BOTH_WAYS_SHARE:
        scene.world.network.cut(other, one, seconds)


def cut(scene: Scene) -> None:
    """Any two processes."""
    _cut(scene, *scene.rng.sample(list(scene.world.processes), 2))


def cut_from_master(scene: Scene) -> None:
    """A chunk server and the master: everybody else still reaches both."""
    pair = [scene.chunk().name, "master"]
    scene.rng.shuffle(pair)
    _cut(scene, *pair)


def cut_from_proxy(scene: Scene) -> None:
    """A proxy and one replica."""
    pair = [scene.chunk().name, scene.proxy().name]
    scene.rng.shuffle(pair)
    _cut(scene, *pair)


def isolate(scene: Scene) -> None:
    """One process from all others; it may still speak, or still hear."""
    name, seconds = scene.any().name, scene.rng.uniform(*CUT_S)
    inward, outward = scene.rng.choice([(True, True), (True, False), (False, True)])
    for other in [other for other in scene.world.processes if other != name]:
        if outward:
            scene.world.network.cut(name, other, seconds)
        if inward:
            scene.world.network.cut(other, name, seconds)


KINDS: dict[str, Callable[[Scene], None]] = {
    "cut": cut,
    "cut from master": cut_from_master,
    "cut from proxy": cut_from_proxy,
    "isolate": isolate,
}
