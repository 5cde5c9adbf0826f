"""How an upstream asks for a login, and how it is answered (RFC 9110, section 11; Docker's token protocol).

The upstream says in ``WWW-Authenticate`` whether it wants Basic credentials or a token, and of which server.
A token is asked for with the credentials, if there are any, and used until shortly before it expires.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

TOKEN_S_DEFAULT = 60.0
"""A token that does not say how long it is good for, by Docker's documents."""

TOKEN_S_MAX = 3600.0
_LEEWAY_S = 10.0
"""A token is given up so long before it expires, but used for half of its time at least."""

_CHARACTERS_MAX = 4096
_SCHEME = re.compile(r"[ \t,]*([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?:[ \t]+|$)")
_PARAMETER = re.compile(
    r"""[ \t,]*([A-Za-z0-9!#$%&'*+.^_`|~-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^ \t,"]+))[ \t]*(?=,|$)"""
)
_TOKEN = re.compile(r"[!-~]{1,16000}")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to log in; its scheme in lower case, its parameters by lower-case names."""

    scheme: str
    parameters: dict[str, str]


@dataclass(frozen=True, slots=True)
class Token:
    """A token, good until ``expires_at`` by the clock of whoever asked for it."""

    text: str
    expires_at: float


class BadAnswer(ValueError):
    """A login that cannot be followed; says why."""


def parse_challenges(headers: Sequence[str]) -> list[Challenge]:
    """All challenges of an answer's ``WWW-Authenticate`` lines, as far as they can be read."""
    found: list[Challenge] = []
    for text in headers:
        text, position = text[:_CHARACTERS_MAX], 0
        while position < len(text):
            parameter = _PARAMETER.match(text, position)
            if parameter is not None and found:
                value = parameter[2] if parameter[2] is not None else parameter[3]
                found[-1].parameters[parameter[1].lower()] = re.sub(r"\\(.)", r"\1", value)
                position = parameter.end()
                continue
            scheme = _SCHEME.match(text, position)
            if scheme is None:
                break
            found.append(Challenge(scheme[1].lower(), {}))
            position = scheme.end()
    return found


def token_url(challenge: Challenge, scope: str, upstream: str) -> str:
    """Where the token for a scope is asked for.  Raises BadAnswer.

    An upstream behind TLS cannot have the credentials sent anywhere in the clear.
    """
    realm = challenge.parameters.get("realm", "")
    try:
        parts = urlsplit(realm)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise BadAnswer(f"{realm[:200]!r} is no address of a token server") from error
    if parts.scheme not in ("http", "https") or not has_host or "@" in parts.netloc:
        raise BadAnswer(f"{realm[:200]!r} is no address of a token server")
    if upstream.startswith("https:") and parts.scheme != "https":
        raise BadAnswer(f"{realm[:200]!r} is not protected by TLS, and the upstream is")
    query = parse_qsl(parts.query, keep_blank_values=True)
    if "service" in challenge.parameters:
        query.append(("service", challenge.parameters["service"]))
    query.append(("scope", scope))
    return urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(query), ""))


def parse_token(body: bytes, now: float) -> Token:
    """The token in a token server's answer.  Raises BadAnswer."""
    try:
        document: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadAnswer("the token server's answer is not JSON") from error
    fields = document if isinstance(document, dict) else {}
    text = fields.get("token") or fields.get("access_token")
    if not isinstance(text, str) or _TOKEN.fullmatch(text) is None:
        raise BadAnswer("the token server's answer has no token")
    seconds = fields.get("expires_in")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        seconds = TOKEN_S_DEFAULT
    seconds = min(float(seconds), TOKEN_S_MAX)
    return Token(text, now + max(seconds - _LEEWAY_S, seconds / 2))
