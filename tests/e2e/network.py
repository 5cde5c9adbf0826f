"""A network of namespaces: hosts around a router, links that can be cut and slowed.

Each host has a subnet of its own behind the router, so a rule of the router says who may not speak to
whom: one direction at a time, without either host being told.  Only root can make one, and only with the
names of this run, which are removed at the end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence

FORWARD = "echo 1 >/proc/sys/net/ipv4/ip_forward"


class NetworkProblem(Exception):
    """A command of iproute2 failed; the message is its own."""


def why_impossible() -> str:
    """Why there can be no namespaces here; empty when there can."""
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    if shutil.which("ip") is None:
        return "iproute2 is not installed"
    name = f"storm-probe-{os.getpid()}"
    try:
        run("ip", "netns", "add", name)
    except NetworkProblem as error:
        return f"no network namespace can be made: {error}"
    try:
        run("ip", "-n", name, "link", "add", "end0", "type", "veth", "peer", "name", "end1")
        run("ip", "-n", name, "rule", "add", "from", "10.1.0.0/24", "blackhole")
    except NetworkProblem as error:
        return f"a namespace has no pairs of links or no rules: {error}"
    finally:
        run("ip", "netns", "del", name)
    return ""


def run(*command: str) -> str:
    """A command's output.  Raises NetworkProblem when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode != 0:
        raise NetworkProblem(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


class Network:
    """Hosts by name.  Namespaces are called ``PREFIX-NAME``."""

    def __init__(self, prefix: str, hosts: Sequence[str]) -> None:
        self._prefix = prefix
        self._hosts = list(hosts)

    def namespace(self, host: str) -> str:
        """Its namespace, for ``ip netns exec``."""
        return f"{self._prefix}-{host}"

    def address(self, host: str) -> str:
        """Its IPv4 address."""
        return f"10.77.{self._hosts.index(host) + 1}.2"

    @property
    def _router(self) -> str:
        return self.namespace("router")

    def _subnet(self, host: str) -> str:
        return f"10.77.{self._hosts.index(host) + 1}.0/24"

    # --- making and removing ----------------------------------------------------------------------

    def make(self) -> None:
        """All namespaces and links.  Raises NetworkProblem."""
        run("ip", "netns", "add", self._router)
        run("ip", "netns", "exec", self._router, "sh", "-c", FORWARD)
        for host in self._hosts:
            self._make_host(host)

    def _make_host(self, host: str) -> None:
        inside, gateway = self.namespace(host), self.address(host).removesuffix("2") + "1"
        run("ip", "netns", "add", inside)
        pair = ["type", "veth", "peer", "name", f"to-{host}"]
        run("ip", "link", "add", "name", "out", "netns", inside, *pair, "netns", self._router)
        run("ip", "-n", self._router, "addr", "add", f"{gateway}/24", "dev", f"to-{host}")
        run("ip", "-n", self._router, "link", "set", f"to-{host}", "up")
        run("ip", "-n", inside, "addr", "add", f"{self.address(host)}/24", "dev", "out")
        run("ip", "-n", inside, "link", "set", "lo", "up")
        run("ip", "-n", inside, "link", "set", "out", "up")
        run("ip", "-n", inside, "route", "add", "default", "via", gateway)

    def remove(self) -> None:
        """The namespaces, and whatever still runs in them."""
        for namespace in [self.namespace(host) for host in self._hosts] + [self._router]:
            with contextlib.suppress(NetworkProblem):  # it was never made
                for pid in run("ip", "netns", "pids", namespace).split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                run("ip", "netns", "del", namespace)

    # --- faults: each returns what takes it back --------------------------------------------------

    def cut(self, source: str, target: str) -> Callable[[], None]:
        """Lose silently what ``source`` sends to ``target``."""
        rule = ["from", self._subnet(source), "to", self._subnet(target), "blackhole"]
        run("ip", "-n", self._router, "rule", "add", *rule)
        return lambda: _do("ip", "-n", self._router, "rule", "del", *rule)

    def unplug(self, host: str) -> Callable[[], None]:
        """Take its link down, as a switch that fails."""
        run("ip", "-n", self._router, "link", "set", f"to-{host}", "down")
        return lambda: _do("ip", "-n", self._router, "link", "set", f"to-{host}", "up")

    def slow(self, host: str, megabits_per_s: float) -> Callable[[], None]:
        """Both directions of its link; with delay and loss as well where the kernel can."""
        ends = [(self.namespace(host), "out"), (self._router, f"to-{host}")]
        for namespace, device in ends:
            rate = f"{megabits_per_s:g}mbit"
            qdisc = ["tc", "-n", namespace, "qdisc", "add", "dev", device, "root"]
            try:
                run(*qdisc, "netem", "rate", rate, "delay", "20ms", "loss", "1%", "limit", "500")
            except NetworkProblem:
                run(*qdisc, "tbf", "rate", rate, "burst", "64kb", "latency", "300ms")

        def heal() -> None:
            for namespace, device in ends:
                run("tc", "-n", namespace, "qdisc", "del", "dev", device, "root")

        return heal


def _do(*command: str) -> None:
    run(*command)


@contextlib.contextmanager
def network(prefix: str, hosts: Sequence[str]) -> Iterator[Network]:
    """Made, and removed whatever happens."""
    made = Network(prefix, hosts)
    try:
        made.make()
        yield made
    finally:
        made.remove()
