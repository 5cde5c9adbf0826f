"""TCP addresses for roles on one machine: which are free, which to choose."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Container
from pathlib import Path
from urllib.parse import urlsplit

PORT_MAX = 65_535
PORT_CHOSEN_MIN = 10_000
"""Below are the ports of well-known services."""

_LOOPBACK = {
    "tcp://0.0.0.0": "tcp://127.0.0.1",
    "tcp://*": "tcp://127.0.0.1",
    "tcp://[::]": "tcp://[::1]",
}


class NoFreePort(Exception):
    """Every port that could be taken is in use, or the address is none of this machine's."""


def local(endpoint: str) -> str:
    """An address at which this machine reaches ``endpoint``, which may listen on all interfaces."""
    host, _, port = endpoint.rpartition(":")
    return f"{_LOOPBACK.get(host, host)}:{port}"


def next_port(endpoint: str, step: int = 1) -> str:
    """The same host, ``step`` ports on."""
    host, _, port = endpoint.rpartition(":")
    return f"{host}:{int(port) + step}"


def is_free(endpoint: str) -> bool:
    """Can a server listen there now?

    Raises NoFreePort when the address itself cannot be used.
    """
    try:
        _bind(endpoint).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise NoFreePort(f"cannot listen on {endpoint}: {error.strerror}") from error
    return True


def choose_port(endpoint: str, in_a_row: int = 1, taken: Container[str] = ()) -> str:
    """``endpoint`` itself; for port 0 the first of so many free ports in a row, none of them ``taken``.

    Raises NoFreePort.
    """
    if not endpoint.endswith(":0"):
        return endpoint
    host = endpoint.removesuffix(":0")
    first, behind = _ports_nobody_is_given()
    for _ in range(100):
        candidate = f"{host}:{random.randrange(first, behind)}"
        if all(_may_listen(next_port(candidate, step), taken) for step in range(in_a_row)):
            return candidate
    raise NoFreePort(f"no free port for {endpoint}")


def free_ports_from(first: str, count: int, taken: Container[str] = ()) -> list[str]:
    """``count`` free endpoints from ``first`` upward, skipping those in ``taken``.  Raises NoFreePort."""
    found: list[str] = []
    candidate = choose_port(first, taken=taken)
    while len(found) < count:
        if not _may_listen(candidate, taken):
            candidate = next_port(candidate)
            if int(candidate.rpartition(":")[2]) > PORT_MAX:
                raise NoFreePort(f"not enough free ports from {first} upward")
            continue
        found.append(candidate)
        candidate = next_port(candidate)
    return found


def _may_listen(endpoint: str, taken: Container[str] = ()) -> bool:
    in_range = int(endpoint.rpartition(":")[2]) <= PORT_MAX
    return in_range and endpoint not in taken and is_free(endpoint)


def _ports_nobody_is_given() -> tuple[int, int]:
    """First port, and the one behind the last, that the system does not give to outgoing connections.

    A port of those could be taken by a connection between the choice and the start of its server, or
    while the server is restarted.
    """
    try:
        lowest_given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        lowest_given = 32_768
    return (
        (PORT_CHOSEN_MIN, lowest_given) if lowest_given > 2 * PORT_CHOSEN_MIN else (PORT_CHOSEN_MIN, PORT_MAX)
    )


def _bind(endpoint: str) -> socket.socket:
    address = urlsplit(endpoint)
    host = "0.0.0.0" if address.hostname in (None, "*") else address.hostname
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    probe = socket.socket(family, socket.SOCK_STREAM)
    try:
        # As servers do: a port whose last connections are still in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, address.port or 0))
    except OSError:
        probe.close()
        raise
    return probe
