"""How much one client may ask: requests a second, requests at once, wrong passwords a minute.

Token buckets, with the time passed in.  Those that were used longest ago are forgotten beyond
``CLIENTS_MAX``, so that many addresses cost bounded memory; a forgotten client starts afresh.
"""

from __future__ import annotations

import ipaddress
import math
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from fabric.driver.registry.errors import RegistryError

CLIENTS_MAX = 20_000


class Rate:
    """``per_s`` events a second, and ``burst`` at once."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Client -> (what is left, since when); the latest used last."""

    def wait_s(self, client: str, now_s: float) -> float:
        """How long until the client may; 0 when it may now.  Counts nothing."""
        return max(0.0, 1.0 - self._level(client, now_s)) / self._per_s

    def take(self, client: str, now_s: float) -> None:
        """Count one event."""
        self._levels[client] = (max(0.0, self._level(client, now_s) - 1.0), now_s)
        self._levels.move_to_end(client)
        if len(self._levels) > CLIENTS_MAX:
            self._levels.popitem(last=False)

    def _level(self, client: str, now_s: float) -> float:
        level, since_s = self._levels.get(client, (self._burst, now_s))
        return min(self._burst, level + max(0.0, now_s - since_s) * self._per_s)


class Limits:
    """The limits of a file; None: there is none of that kind."""

    def __init__(
        self,
        requests: Rate | None = None,
        concurrent_max: int | None = None,
        wrong_passwords: Rate | None = None,
    ) -> None:
        self._requests = requests
        self._concurrent_max = concurrent_max
        self._wrong_passwords = wrong_passwords
        self._running: Counter[str] = Counter()

    def check_passwords(self, address: str, now_s: float) -> None:
        """Before a password is compared.  Raises RegistryError TOOMANYREQUESTS."""
        if self._wrong_passwords is not None:
            wait_s = self._wrong_passwords.wait_s(address, now_s)
            if wait_s > 0:
                raise too_many_of("wrong passwords", wait_s)

    def wrong_password(self, address: str, now_s: float) -> None:
        """Count one."""
        if self._wrong_passwords is not None:
            self._wrong_passwords.take(address, now_s)

    def request(self, client: str, now_s: float) -> AbstractContextManager[None]:
        """Count one request; it has its place while the context that is returned is open.

        Raises RegistryError TOOMANYREQUESTS.
        """
        if self._requests is not None:
            wait_s = self._requests.wait_s(client, now_s)
            if wait_s > 0:
                raise too_many_of("requests", wait_s)
        if self._concurrent_max is not None and self._running[client] >= self._concurrent_max:
            raise too_many_of("requests at once", 1.0)
        if self._requests is not None:
            self._requests.take(client, now_s)
        return self._place(client) if self._concurrent_max is not None else nullcontext()

    @contextmanager
    def _place(self, client: str) -> Iterator[None]:
        self._running[client] += 1
        try:
            yield
        finally:
            self._running[client] -= 1
            if not self._running[client]:
                del self._running[client]


def address_of(remote: str | None) -> str:
    """What counts as one address.  Of IPv6 it is the first half: a single subscriber has all the rest."""
    try:
        address = ipaddress.ip_address((remote or "").partition("%")[0])
    except ValueError:
        return remote or "unknown"
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


def too_many_of(what: str, wait_s: float) -> RegistryError:
    """429, with when to come again."""
    later = {"Retry-After": str(max(1, math.ceil(wait_s)))}
    return RegistryError(429, "TOOMANYREQUESTS", f"too many {what}", None, later)
