"""Bad weather for a whole fabric of real processes: ``python -m tests.e2e.storm --seconds 300 --seed 7``.

Roles are killed, stopped for less and for more than a lease, and let go on, chunk servers lose their whole
disk, while clients write and read.
Afterwards everything that was acknowledged must be there, nothing may have failed that had no reason to,
and the replicas of each group must hold the same; and when all of it is deleted, nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.e2e.conftest import FabricUp, is_alive, wait_until
from tests.e2e.episodes import (
    EQUAL_S_MAX,
    FREE_S_MAX,
    HEAL_S_MAX,
    Fault,
    Member,
    World,
    fragments_left,
    run_episodes,
    summary,
    unequal_members,
    unexcused,
    wait_empty,
    what_is_ill,
)
from tests.e2e.load import Load

LEASE_S = 4.0
SETTINGS = """\
[settings]
data_file_bytes_max = 67108864
delete_grace_s = 12.0
fid_lease_s = 20.0
audit_interval_s = 8.0
"""
"""Small files, so that they roll over and are compacted meanwhile.  Short leases of fids and frequent audits,
so that what was stored and never committed is found within the patience of the checks."""


class Outcome(NamedTuple):
    """What a storm showed."""

    problems: list[str]
    """Each one a broken promise."""
    summary: str


class FabricWorld:
    """A ``fabric up``, whose supervisor restarts what is killed."""

    def __init__(self, fabric: FabricUp) -> None:
        self._fabric = fabric
        roles = fabric.run_json["roles"]
        self._members = [
            Member(role["name"], role["endpoint"], role["group"]) for role in roles if role["role"] == "chunk"
        ]
        self.master = fabric.master
        self.proxy = fabric.proxy

    def members(self) -> list[Member]:
        """All chunk servers."""
        return self._members

    def choose(self, rng: random.Random) -> Fault:
        """Mostly of a chunk server."""
        chunk = rng.choice(self._members).name
        weights = [65, 12, 15, 8]
        (subject,) = rng.choices([chunk, "proxy", "master", "registry"], weights)
        (kind,) = rng.choices(["kill", "short stop", "long stop", "replace"], [35, 25, 25, 15])
        if kind == "replace" and subject == chunk:
            return Fault("replace", subject, 0.0)
        if kind in ("kill", "replace"):
            return Fault("kill", subject, 0.0)
        if kind == "short stop":
            return Fault("stop", subject, rng.uniform(0.2, LEASE_S - 1.0))
        return Fault("stop", subject, rng.uniform(LEASE_S + 0.5, LEASE_S + 4.0))

    def begin(self, fault: Fault) -> Callable[[], None]:
        """Send the signal; ``replace``: there is an empty disk when it starts again."""
        if fault.kind in ("kill", "replace"):
            killed = self._kill(fault.subject, empty=fault.kind == "replace")

            def wait_restarted() -> None:
                self._fabric.wait_restarted(fault.subject, killed)

            return wait_restarted
        stopped = self._fabric.kill(fault.subject, signal.SIGSTOP)
        return lambda: os.kill(stopped, signal.SIGCONT)

    def _kill(self, name: str, empty: bool) -> int:
        if not empty:
            return self._fabric.kill(name)
        supervisor = self._fabric.process
        supervisor.send_signal(signal.SIGSTOP)  # or it would start the server on half of its data
        try:
            killed = self._fabric.kill(name)
            wait_until(lambda: not is_alive(killed), f"{name} to die")
            shutil.rmtree(self._fabric.data / name)
        finally:
            supervisor.send_signal(signal.SIGCONT)
        return killed

    def story(self) -> str:
        """What the roles have said."""
        return self._fabric.story()


def storm(
    world: World,
    registry: str | None,
    seed: int,
    seconds: float,
    tell: Callable[[str], None] = print,
) -> Outcome:
    """Load and faults for so long, then quiet, then the verdict."""
    groups_of = {member.name: member.group for member in world.members()}
    load = Load(world.proxy, registry, seed)
    try:
        with load:
            time.sleep(min(1.0, seconds / 10))  # something is there when the first fault comes
            episodes = run_episodes(world, random.Random(seed), seconds, tell)
        wait_empty(lambda: what_is_ill(world), "quiet", HEAL_S_MAX, world.story)
        load.verify_everything()
        wait_empty(lambda: unequal_members(world), "equal members", EQUAL_S_MAX, world.story)
        load.remove_everything()
        wait_empty(lambda: fragments_left(world), "all space to be freed", FREE_S_MAX, world.story)
    finally:
        load.close()
    problems = load.wrong + unexcused(load.calls, episodes, groups_of)
    return Outcome(problems, summary(load.calls, episodes, groups_of))


def offline_problems(directories: list[Path]) -> list[str]:
    """What ``fabric chunk check`` finds in the directories of stopped chunk servers."""
    problems = []
    for directory in directories:
        command = [sys.executable, "-m", "fabric", "chunk", "check", "--json", str(directory)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if result.returncode != 0:
            problems.append(f"{directory.name}: {(result.stdout + result.stderr)[-2000:]}")
    return problems


def storm_of_fabric_up(data: Path, seed: int, seconds: float, groups: int, more: str = "") -> Outcome:
    """Start it, let it suffer, stop it, look at what lies on its disks.  ``more``: lines of settings."""
    config = data.parent / f"{data.name}.toml"
    config.write_text(SETTINGS + more)
    fabric = FabricUp(data, "--groups", str(groups), "--config", str(config))
    try:
        fabric.wait_ready()
        outcome = storm(FabricWorld(fabric), fabric.registry, seed, seconds)
        directories = [Path(role["data"]) for role in fabric.run_json["roles"] if role["role"] == "chunk"]
        status = fabric.stop()
    finally:
        fabric.close()
    if status != 0:
        outcome.problems.append(f"it stopped with status {status}\n{fabric.story()}")
    outcome.problems.extend(offline_problems(directories))
    return outcome


def main() -> int:
    """0 when every promise was kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.storm", description=__doc__)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--groups", type=int, default=2)
    parser.add_argument("--setting", action="append", default=[], metavar="'NAME = VALUE'")
    parser.add_argument("--keep", action="store_true", help="Keep the data and logs of a run that failed.")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="storm-"))
    outcome = Outcome(["it did not end"], "")
    try:
        more = "".join(f"{line}\n" for line in options.setting)
        outcome = storm_of_fabric_up(directory / "data", options.seed, options.seconds, options.groups, more)
    finally:
        if options.keep and outcome.problems:
            print(f"data and logs: {directory}")
        else:
            remove_tree(directory)
    return show(outcome)


def show(outcome: Outcome) -> int:
    """Print it; the exit status: 0 when every promise was kept."""
    print(outcome.summary)
    print(json.dumps(outcome.problems, indent=1) if outcome.problems else "every promise was kept")
    return 1 if outcome.problems else 0


def remove_tree(directory: Path) -> None:
    """With what a process that is just ending may still write there."""
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
