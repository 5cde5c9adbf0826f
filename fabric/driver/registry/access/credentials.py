"""What a client shows: the ``Authorization`` header, taken apart."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass


class BadCredentials(Exception):
    """A header that cannot be read, or that shows nothing that is known."""


@dataclass(frozen=True, slots=True)
class Password:
    """RFC 7617."""

    user: str
    password: bytes


@dataclass(frozen=True, slots=True)
class Token:
    """RFC 6750."""

    text: str


def read_authorization(values: Sequence[str]) -> Password | Token | None:
    """The credentials in all ``Authorization`` headers of a request; None without one.

    A name and a password that are both empty count as none: some clients send that when they were asked
    and have nothing.  Raises BadCredentials.
    """
    if not values:
        return None
    if len(values) > 1:
        raise BadCredentials("more than one Authorization header")
    scheme, _, rest = values[0].strip().partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer" and rest:
        return Token(rest)
    if scheme.lower() == "basic":
        return _password(rest)
    raise BadCredentials("neither Basic nor Bearer")


def _password(text: str) -> Password | None:
    try:
        user, colon, password = base64.b64decode(text, validate=True).partition(b":")
        name = user.decode()
    except (binascii.Error, ValueError) as error:
        raise BadCredentials("not base64 of a name in UTF-8, a colon and a password") from error
    if not colon:
        raise BadCredentials("no colon between name and password")
    return Password(name, password) if name or password else None
