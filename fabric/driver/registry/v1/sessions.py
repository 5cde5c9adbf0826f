"""Sessions: the tokens that this protocol hands out, and what they say.

Requests about images name no repository.  So a client first asks about a repository, shows who it is, and
gets a token that says: this user, this repository, to read or to write, until then.  It shows it with
everything that follows.  A token says who asks; what they may do is asked anew of the rules each time.

Nothing is kept of a session.  Tokens are signed with a key that lies in the store, the same for all
registry processes.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.errors import RegistryError
from fabric.driver.registry.v1.names import KEY_PATH, canonical_name, full_name, refused
from fabric.errors import NotFound, Precondition

SESSION_S = 6 * 3600
"""A push of large layers uses one token to its end."""

KEY_BYTES = 32
_TOKEN_CHARACTERS_MAX = 4096

_FIELD = re.compile(r'(\w+)="?([^",]*)"?')


@dataclass(frozen=True, slots=True)
class Session:
    """What a token says.  ``user`` is empty for somebody who did not log in."""

    repository: str
    user: str
    may_write: bool
    expires_s: int
    """Wall clock, seconds since 1970."""


def token_text(key: bytes, session: Session) -> str:
    """The token, in the form that has always been used, with two fields more."""
    access = "write" if session.may_write else "read"
    return (
        f'signature={_signature(key, session)},repository="{full_name(session.repository)}",'
        f"access={access},user={session.user.encode().hex()},expires={session.expires_s}"
    )


def read_token(key: bytes, text: str, now_s: float) -> Session:
    """The session that a token proves.  Raises RegistryError 401."""
    fields = dict(_FIELD.findall(text[:_TOKEN_CHARACTERS_MAX]))
    try:
        user = bytes.fromhex(fields["user"]).decode()
        session = Session(
            canonical_name(fields["repository"]), user, fields["access"] == "write", int(fields["expires"])
        )
        signature = fields["signature"]
    except (KeyError, ValueError, RegistryError) as error:
        raise not_in_session("not a token of this registry") from error
    if not hmac.compare_digest(signature.encode(), _signature(key, session).encode()):
        raise not_in_session("not a token of this registry")
    if now_s >= session.expires_s:
        raise not_in_session("the token has expired")
    return session


def not_in_session(message: str) -> RegistryError:
    """401, and how to get a token."""
    return refused(401, f"Requires authorization: {message}", WWW_Authenticate="Token")


def _signature(key: bytes, session: Session) -> str:
    said = [session.repository, session.user.encode().hex(), str(session.may_write), str(session.expires_s)]
    return hmac.digest(key, "\n".join(said).encode(), hashlib.sha256).hex()


class Sessions:
    """Opens and recognises sessions.  ``new_key`` makes random bytes, ``now_s`` is the wall clock."""

    def __init__(self, store: ObjectStore, new_key: Callable[[], bytes], now_s: Callable[[], float]) -> None:
        self._store = store
        self._new_key = new_key
        self._now_s = now_s
        self._key = b""

    async def open(self, repository: str, user: str, *, may_write: bool) -> str:
        """The token of a new session."""
        expires_s = int(self._now_s()) + SESSION_S
        return token_text(await self._known_key(), Session(repository, user, may_write, expires_s))

    async def find(self, token: str) -> Session:
        """The session of a token.  Raises RegistryError 401."""
        return read_token(await self._known_key(), token, self._now_s())

    async def _known_key(self) -> bytes:
        while not self._key:
            try:
                self._key = (await self._store.read(KEY_PATH, KEY_BYTES))[1]
            except NotFound:
                await self._make_key()
        return self._key

    async def _make_key(self) -> None:
        try:
            await self._store.put(KEY_PATH, self._new_key(), if_generation=0)
        except Precondition:
            return  # another process was faster
