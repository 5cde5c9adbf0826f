"""Cut and slowed links between namespaces under load, for as long as ``FABRIC_STORM_S`` says.

Needs root and iproute2.  Elsewhere it is skipped with the reason, but never where CI runs as root.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.network import Network, NetworkProblem, network, run, why_impossible
from tests.e2e.network_storm import storm_of_network

STORM_S = float(os.environ.get("FABRIC_STORM_S", "40"))
SEED = int(os.environ.get("FABRIC_STORM_SEED", "1"))


@pytest.fixture(autouse=True)
def namespaces() -> None:
    reason = why_impossible()
    if reason and os.environ.get("CI") == "true" and os.geteuid() == 0:
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


@pytest.mark.slow
@pytest.mark.timeout(STORM_S + 300)
def test_cut_and_slow_links_cost_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    status, told = storm_of_network(tmp_path, SEED, STORM_S, groups=2)

    print(told)
    assert status == 0, told


# --- the network itself ---------------------------------------------------------------------------


@pytest.fixture
def two_hosts() -> Iterator[Network]:
    with network(f"pair-{os.getpid()}", ["one", "two"]) as made:
        yield made


ANSWER = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
    there.bind((sys.argv[1], 9))
    print("ready", flush=True)
    while True:
        said, sender = there.recvfrom(100)
        there.sendto(said, sender)
"""
ASK = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
    here.settimeout(0.5)
    here.sendto(b"hello", (sys.argv[1], 9))
    print(here.recv(100).decode())
"""


def hears_an_answer(net: Network) -> bool:
    command = ["ip", "netns", "exec", net.namespace("one"), sys.executable, "-c", ASK, net.address("two")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0 or "TimeoutError" in done.stderr or "OSError" in done.stderr, done.stderr
    return done.stdout == "hello\n"


def test_links_are_cut_in_either_direction_and_heal(two_hosts: Network) -> None:
    command = ["ip", "netns", "exec", two_hosts.namespace("two"), sys.executable, "-c", ANSWER]
    with subprocess.Popen([*command, two_hosts.address("two")], stdout=subprocess.PIPE) as answering:
        try:
            assert answering.stdout is not None
            assert answering.stdout.readline() == b"ready\n"
            assert hears_an_answer(two_hosts)
            faults: list[Callable[[], Callable[[], None]]] = [
                partial(two_hosts.cut, "one", "two"),
                partial(two_hosts.cut, "two", "one"),
                partial(two_hosts.unplug, "two"),
            ]
            for fault in faults:
                heal = fault()
                assert not hears_an_answer(two_hosts)
                heal()
                assert hears_an_answer(two_hosts)
            heal = two_hosts.slow("two", 1.0)
            assert hears_an_answer(two_hosts)
            heal()
        finally:
            answering.kill()


def test_a_network_is_removed_with_what_runs_in_it_even_after_a_failure() -> None:
    prefix = f"gone-{os.getpid()}"
    sleeper: subprocess.Popen[bytes] | None = None
    with pytest.raises(NetworkProblem), network(prefix, ["one"]) as made:
        sleeper = subprocess.Popen(["ip", "netns", "exec", made.namespace("one"), "sleep", "600"])
        while str(sleeper.pid) not in run("ip", "netns", "pids", made.namespace("one")).split():
            assert sleeper.poll() is None
        run("ip", "netns", "exec", made.namespace("one"), "false")

    assert sleeper is not None
    assert sleeper.wait(10) == -9
    assert prefix not in run("ip", "netns", "list")
