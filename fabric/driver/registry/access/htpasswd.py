"""Files of user names and bcrypt hashes, as ``htpasswd -B`` writes them; parsing and one comparison.

bcrypt looks at 72 bytes of a password and no more.  Tools cut longer ones without a word, so that two
passwords that differ after them would be one; here a longer one, or one with a NUL, is never right.
"""

from __future__ import annotations

import re

import bcrypt

PASSWORD_BYTES_MAX = 72
COST_MAX = 14
"""One comparison at this cost takes a few seconds; beyond it a login would be a weapon."""

_HASH = re.compile(rb"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")


class BadPasswordFile(ValueError):
    """A file that is not what it should be; names the line."""


class PasswordFile:
    """Users and their hashes, and the hash that stands in for users who do not exist."""

    def __init__(self, hashes: dict[str, bytes]) -> None:
        self._hashes = hashes
        # As slow as the slowest, so that time does not tell who exists.
        slowest = max(hashes.values(), key=_cost, default=b"$2b$10$")
        self._nobody = b"$2b$%02d$" % _cost(slowest) + b"." * 53

    @property
    def users(self) -> frozenset[str]:
        """All who can log in."""
        return frozenset(self._hashes)

    def hash_of(self, user: str) -> bytes:
        """What to compare with; for a user that does not exist one that nothing equals."""
        return self._hashes.get(user, self._nobody)

    def verify(self, user: str, password: bytes) -> bool:
        """Whether that is the password.  Takes long by design; as long for unknown users."""
        is_usable = len(password) <= PASSWORD_BYTES_MAX and b"\0" not in password
        compared = password if is_usable else b"x"
        is_equal = bcrypt.checkpw(compared, self.hash_of(user))
        return is_equal and is_usable and user in self._hashes


def parse_htpasswd(data: bytes) -> PasswordFile:
    """A file's content; empty lines and those that begin with ``#`` count for nothing.

    Raises BadPasswordFile.
    """
    hashes: dict[str, bytes] = {}
    for number, line in enumerate(data.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith(b"#"):
            continue
        name, colon, value = line.partition(b":")
        try:
            user = name.decode()
        except UnicodeDecodeError as error:
            raise BadPasswordFile(f"line {number}: the name is not UTF-8") from error
        if not colon or not user:
            raise BadPasswordFile(f"line {number}: not NAME:HASH")
        if user.startswith("@"):
            raise BadPasswordFile(f"line {number}: {user!r} begins with @, as only groups do")
        if user in hashes:
            raise BadPasswordFile(f"line {number}: {user!r} is here twice")
        _check_hash(number, user, value)
        hashes[user] = value
    return PasswordFile(hashes)


def _check_hash(number: int, user: str, value: bytes) -> None:
    if _HASH.fullmatch(value) is None:
        raise BadPasswordFile(
            f"line {number}: the hash of {user!r} is not bcrypt; make it with `htpasswd -B`"
        )
    if not 4 <= _cost(value) <= COST_MAX:
        raise BadPasswordFile(f"line {number}: the cost of {user!r} is {_cost(value)}, not 4 to {COST_MAX}")


def _cost(value: bytes) -> int:
    return int(value[4:6])
