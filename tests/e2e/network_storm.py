"""Bad weather between machines: ``python -m tests.e2e.network_storm --seconds 300 --seed 7``, as root.

Every chunk server lives in a network namespace of its own, the master in another, proxy and clients in a
third.  Links are cut in one direction or in both, unplugged and slowed at random, servers are killed; then
the same must hold as after every storm.

The outer process makes the network and removes it; the inner one runs where the clients are.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from fabric.cli.main import PARENT_VARIABLE
from tests.e2e.episodes import Fault, Member, wait_empty, what_is_ill
from tests.e2e.network import Network, network
from tests.e2e.storm import LEASE_S, SETTINGS, Outcome, offline_problems, remove_tree, show, storm

REPLICAS = 3
READY_S_MAX = 60.0
OUTER_S = 240.0
"""On top of the storm itself: start, healing, verification."""
STOP_S = 20.0


def host_names(groups: int) -> list[str]:
    """Master, proxy with the clients, chunk servers."""
    return ["master", "proxy", *(f"chunk-{number}" for number in range(1, groups * REPLICAS + 1))]


class NetworkWorld:
    """Roles in namespaces; those that are killed are started again here."""

    def __init__(self, net: Network, data: Path, groups: int) -> None:
        self._net = net
        self._data = data
        self._hosts = host_names(groups)
        self.master = f"tcp://{net.address('master')}:7400"
        self.proxy = f"tcp://{net.address('proxy')}:7420"
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        (data / "settings.toml").write_text(SETTINGS)

    # --- roles ------------------------------------------------------------------------------------

    def start(self) -> None:
        """All of them, until writes will succeed."""
        for host in self._hosts:
            self._start_role(host)
        wait_empty(lambda: what_is_ill(self), "the roles to be ready", READY_S_MAX, self.story)

    def _start_role(self, name: str) -> None:
        listen, master = f"{self._net.address(name)}", self.master.removeprefix("tcp://")
        directory = str(self._data / name)
        if name == "master":
            role = ["master", "--listen", master, "--data", directory, "--replicas", str(REPLICAS)]
        elif name == "proxy":
            role = ["proxy", "--listen", f"{listen}:7420", "--master", master]
        else:
            role = ["chunk", "--name", name, "--listen", f"{listen}:7410", "--master", master]
            role += ["--data", directory, "--group", str(self._group(name))]
        command = ["ip", "netns", "exec", self._net.namespace(name), sys.executable, "-m", "fabric", *role]
        command += ["--config", str(self._data / "settings.toml")]
        with (self._data / f"{name}.log").open("ab") as log:
            environment = {**os.environ, PARENT_VARIABLE: str(os.getpid())}
            self._running[name] = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def _group(self, name: str) -> int:
        return (int(name.removeprefix("chunk-")) - 1) // REPLICAS + 1

    def stop(self) -> list[str]:
        """Clients' side first; returns what did not end well."""
        problems = []
        for name in ["proxy", *self._hosts[2:], "master"]:
            process = self._running[name]
            process.terminate()
            try:
                status = process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
            if status != 0:
                problems.append(f"{name} ended with status {status}")
        return problems

    def members(self) -> list[Member]:
        """All chunk servers."""
        return [
            Member(name, f"tcp://{self._net.address(name)}:7410", self._group(name))
            for name in self._hosts[2:]
        ]

    def directories(self) -> list[Path]:
        """Of the chunk servers."""
        return [self._data / name for name in self._hosts[2:]]

    def story(self) -> str:
        """What the roles have said."""
        logs = sorted(self._data.glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text()[-3000:]}" for log in logs)

    # --- faults -----------------------------------------------------------------------------------

    def choose(self, rng: random.Random) -> Fault:
        """Mostly of a link of a chunk server."""
        chunk = rng.choice(self._hosts[2:])
        other = rng.choice([name for name in self._hosts[2:] if name != chunk])
        kinds = [
            "cut master",
            "cut proxy",
            "cut peer",
            "one-way",
            "unplug",
            "slow",
            "kill",
            "replace",
            "cut heads",
        ]
        (kind,) = rng.choices(kinds, [20, 20, 5, 15, 15, 15, 10, 5, 5])
        seconds = rng.choice([rng.uniform(0.3, LEASE_S - 1.0), rng.uniform(LEASE_S, LEASE_S + 6.0)])
        if kind in ("kill", "replace"):
            return Fault(kind, chunk, 0.0)
        if kind == "slow":
            return Fault(kind, chunk, seconds, f" to {rng.choice([1, 4, 20])} Mbit/s")
        if kind == "unplug":
            return Fault(kind, chunk, seconds)
        if kind == "cut heads":
            return Fault("cut", "proxy", seconds, "<->master")
        if kind == "one-way":
            head, arrow = rng.choice(["master", "proxy"]), rng.choice(["->", "<-"])
            return Fault("cut", chunk, seconds, f"{arrow}{head}")
        peer = {"cut master": "master", "cut proxy": "proxy", "cut peer": other}[kind]
        return Fault("cut", chunk, seconds, f"<->{peer}")

    def begin(self, fault: Fault) -> Callable[[], None]:
        """Do it, as the fault's own words say."""
        if fault.kind in ("kill", "replace"):
            self._running[fault.subject].kill()
            self._running[fault.subject].wait()
            if fault.kind == "replace":
                shutil.rmtree(self._data / fault.subject)
            return lambda: self._start_role(fault.subject)
        if fault.kind == "unplug":
            return self._net.unplug(fault.subject)
        if fault.kind == "slow":
            return self._net.slow(fault.subject, float(fault.detail.split()[1]))
        arrow = next(arrow for arrow in ("<->", "->", "<-") if fault.detail.startswith(arrow))
        other = fault.detail.removeprefix(arrow)
        ends = []
        if arrow in ("<->", "->"):
            ends.append(self._net.cut(fault.subject, other))
        if arrow in ("<->", "<-"):
            ends.append(self._net.cut(other, fault.subject))

        def heal() -> None:
            for end in ends:
                end()

        return heal


def inside(prefix: str, data: Path, seed: int, seconds: float, groups: int) -> Outcome:
    """What runs in the proxy's namespace."""
    world = NetworkWorld(Network(prefix, host_names(groups)), data, groups)
    try:
        world.start()
        outcome = storm(world, None, seed, seconds)
    finally:
        stopped_badly = world.stop()
    outcome.problems.extend(stopped_badly)
    outcome.problems.extend(offline_problems(world.directories()))
    return outcome


def storm_of_network(data: Path, seed: int, seconds: float, groups: int) -> tuple[int, str]:
    """Make the network, run the storm inside; its exit status and what it said.

    Raises NetworkProblem when there can be no network, subprocess.TimeoutExpired when it hangs.
    """
    prefix = f"storm-{os.getpid()}"
    with network(prefix, host_names(groups)) as net:
        command = [
            "ip",
            "netns",
            "exec",
            net.namespace("proxy"),
            sys.executable,
            "-m",
            "tests.e2e.network_storm",
        ]
        command += ["--inside", prefix, "--data", str(data), "--seed", str(seed)]
        command += ["--seconds", str(seconds), "--groups", str(groups)]
        said = data / "storm.txt"
        with said.open("wb") as output:
            done = subprocess.run(
                command, stdout=output, stderr=output, timeout=seconds + OUTER_S, check=False
            )
    return done.returncode, said.read_text()


def main() -> int:
    """0 when every promise was kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.network_storm", description=__doc__)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--groups", type=int, default=2)
    parser.add_argument("--data", type=Path, help="Keep data and logs here.")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        return show(inside(options.inside, options.data, options.seed, options.seconds, options.groups))
    data = options.data or Path(tempfile.mkdtemp(prefix="storm-"))
    try:
        data.mkdir(parents=True, exist_ok=True)
        status, told = storm_of_network(data, options.seed, options.seconds, options.groups)
    finally:
        if options.data is None:
            remove_tree(data)
    print(told, end="")
    return status


if __name__ == "__main__":
    sys.exit(main())
