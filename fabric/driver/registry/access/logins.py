"""Compares passwords off the event loop, and remembers for a while which were right.

bcrypt takes a tenth of a second by design, and a push asks dozens of times.  What is remembered is a
keyed hash of name, password and stored hash, under a key that only this process has: it is worth nothing
elsewhere, and it ends to fit when the user's stored hash changes.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections import OrderedDict
from concurrent.futures import Executor

from fabric.driver.registry.access.credentials import Password
from fabric.driver.registry.access.htpasswd import PasswordFile
from fabric.driver.registry.access.limits import too_many_of

REMEMBERED_MAX = 4096
REMEMBERED_S = 600.0
WAITING_MAX = 64
"""Comparisons that wait for a thread; beyond that a client is told to come again."""


class Logins:
    """Which passwords are right.  ``executor`` runs the comparisons."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._secret = secrets.token_bytes(32)
        self._right_until_s: OrderedDict[bytes, float] = OrderedDict()
        self._running: dict[bytes, asyncio.Future[bool]] = {}

    def remembers(self, file: PasswordFile, shown: Password, now_s: float) -> bool:
        """Whether this password was right a short while ago, and the file still says so."""
        return self._right_until_s.get(self._key(file, shown), 0.0) > now_s

    async def verify(self, file: PasswordFile, shown: Password, now_s: float) -> bool:
        """Whether the password is right.  Requests that show the same at the same time share the work.

        Raises RegistryError TOOMANYREQUESTS when too many wait.
        """
        key = self._key(file, shown)
        running = self._running.get(key)
        if running is None:
            if len(self._running) >= WAITING_MAX:
                raise too_many_of("logins at once", 1.0)
            loop = asyncio.get_running_loop()
            running = loop.run_in_executor(self._executor, file.verify, shown.user, shown.password)
            self._running[key] = running
            running.add_done_callback(lambda _: self._running.pop(key))
        # Shielded: when one of those who share it goes away, the others still want to know.
        is_right = await asyncio.shield(running)
        if is_right:
            self._remember(key, now_s + REMEMBERED_S)
        return is_right

    def _remember(self, key: bytes, until_s: float) -> None:
        self._right_until_s[key] = until_s
        self._right_until_s.move_to_end(key)
        if len(self._right_until_s) > REMEMBERED_MAX:
            self._right_until_s.popitem(last=False)

    def _key(self, file: PasswordFile, shown: Password) -> bytes:
        user = shown.user.encode()
        parts = (len(user).to_bytes(8, "big"), user, file.hash_of(shown.user), shown.password)
        return hashlib.blake2b(b"".join(parts), key=self._secret, digest_size=32).digest()
