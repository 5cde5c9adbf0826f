"""Docker's token authentication: is this JWT from the server we trust, for us, for now, and what for?

What the library does is the signature.  Claims are read here, strictly typed, with the time passed in.

- The algorithm is a property of the *key* (``token_keys``).  ``none`` and the HMACs are nobody's.
- A header that brings or points to its own key (``jwk``, ``jku``, ``x5u``) is refused outright; certificates
  in ``x5c`` are not looked at.  Keys come from the file.
- ``iss``, ``aud`` and ``exp`` must be there; what is missing is wrong.

Sources: distribution's documents "Token Authentication Implementation" and "Token Scope Documentation";
RFC 7515, 7519, 8725.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import jwt
import msgspec

from fabric.driver.registry.access.policy import Grants, Identity, Right
from fabric.driver.registry.access.token_keys import Key, candidates

TOKEN_CHARACTERS_MAX = 16 * 1024
REMEMBERED_MAX = 2048

_OWN_KEYS = frozenset({"jwk", "jku", "x5u", "crit"})
"""Parameters of a header by which a token would choose its key, or demand what we do not know."""

_RIGHTS: Mapping[str, frozenset[Right]] = {
    **{right.value: frozenset({right}) for right in Right},
    "*": frozenset(Right),
}
_REPOSITORY_TYPES = frozenset({"repository", "repository(plugin)"})

_verifier = jwt.PyJWS(algorithms=["RS256", "ES256", "EdDSA"])


class BadToken(Exception):
    """A token that is not to be trusted; says why, for the log and the client."""


class _Access(msgspec.Struct, frozen=True):
    type: str
    name: str
    actions: list[str]


class _Claims(msgspec.Struct, frozen=True):
    iss: str
    aud: str | list[str]
    exp: float
    nbf: float | None = None
    sub: str = ""
    access: list[_Access] | None = None


class Trust:
    """Whose tokens are taken: signed with one of ``keys``, issued by ``issuer`` for ``service``.

    ``leeway_s``: how far the clocks of the two servers may be apart.
    """

    def __init__(self, keys: Sequence[Key], issuer: str, service: str, leeway_s: float) -> None:
        self._keys = keys
        self._issuer = issuer
        self._service = service
        self._leeway_s = leeway_s
        self._verified: OrderedDict[bytes, _Claims] = OrderedDict()
        """What tokens with a good signature say, by their hash; the latest used last."""

    def verify(self, token: str, now_s: float) -> tuple[Identity, Grants]:
        """Whose it is and what it allows; ``now_s`` counts from 1970.  Raises BadToken."""
        claims = self._remembered_claims(token)
        audience = [claims.aud] if isinstance(claims.aud, str) else claims.aud
        if claims.iss != self._issuer:
            raise BadToken("the token is from another issuer")
        if self._service not in audience:
            raise BadToken("the token is for another service")
        if not now_s < claims.exp + self._leeway_s:
            raise BadToken("the token has expired")
        if claims.nbf is not None and not claims.nbf - self._leeway_s <= now_s:
            raise BadToken("the token is not valid yet")
        if claims.sub.startswith("@"):
            raise BadToken("the token's subject looks like a group")
        return Identity(claims.sub), _grants(claims.access or [])

    def _remembered_claims(self, token: str) -> _Claims:
        """A client shows one token dozens of times; its signature is looked at once."""
        if len(token) > TOKEN_CHARACTERS_MAX:
            raise BadToken("the token is too long")
        key = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        claims = self._verified.get(key)
        if claims is None:
            claims = self._verified[key] = self._claims(token)
            if len(self._verified) > REMEMBERED_MAX:
                self._verified.popitem(last=False)
        self._verified.move_to_end(key)
        return claims

    def _claims(self, token: str) -> _Claims:
        try:
            header = _verifier.get_unverified_header(token)
            payload = self._signed_payload(token, header)
            return msgspec.json.decode(payload, type=_Claims)
        except (jwt.PyJWTError, UnicodeEncodeError, RecursionError) as error:
            raise BadToken(f"not a token: {error}") from error
        except msgspec.DecodeError as error:
            raise BadToken(f"the token's claims are not as they must be: {error}") from error

    def _signed_payload(self, token: str, header: Mapping[str, object]) -> bytes:
        """The payload, if one of our keys signed it."""
        if not _OWN_KEYS.isdisjoint(header):
            raise BadToken("the token's header brings a key of its own, or an extension")
        for key in candidates(self._keys, header.get("alg"), header.get("kid")):
            try:
                payload = _verifier.decode(token, key.public, algorithms=[key.algorithm])
            except jwt.InvalidSignatureError:
                continue
            assert isinstance(payload, bytes)
            return payload
        raise BadToken("no key that we trust signed the token")


def _grants(entries: Sequence[_Access]) -> Grants:
    repositories: dict[str, frozenset[Right]] = {}
    catalog = False
    for entry in entries:
        if entry.type in _REPOSITORY_TYPES:
            rights = [_RIGHTS.get(action, frozenset()) for action in entry.actions]
            repositories[entry.name] = repositories.get(entry.name, frozenset()).union(*rights)
        elif entry.type == "registry" and entry.name == "catalog":
            catalog = catalog or "*" in entry.actions
    return Grants(repositories, catalog)
