"""The public keys that tokens may be signed with: a JWKS document, or PEM blocks.

Each key is bound to one algorithm by its own kind.  So what a token's header says can only agree or
fail; it never chooses how its signature is verified.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

RSA_BITS_MIN = 2048
RSA_BITS_MAX = 8192

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_CURVES = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}


class BadKeys(ValueError):
    """A file of keys that cannot be used; says which and why."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key; without a ``key_id`` it may be the one of any token."""

    key_id: str | None
    algorithm: str
    public: PublicKey


def parse_keys(data: bytes) -> Sequence[Key]:
    """The keys of a file.  Raises BadKeys, also for private and secret ones: they do not belong here."""
    keys = _from_pem(data) if b"-----BEGIN" in data else _from_jwks(data)
    if not keys:
        raise BadKeys("there is no key in it that signs tokens")
    names = [key.key_id for key in keys if key.key_id is not None]
    if len(set(names)) != len(names):
        raise BadKeys("two keys have the same kid")
    return keys


def candidates(keys: Sequence[Key], algorithm: object, key_id: object) -> Sequence[Key]:
    """The keys that a token with this header may have been signed with."""
    return [
        key
        for key in keys
        if key.algorithm == algorithm and (key_id is None or key.key_id is None or key.key_id == key_id)
    ]


def _from_pem(data: bytes) -> list[Key]:
    keys = []
    for number, block in enumerate(_PEM.finditer(data), start=1):
        kind = block[1].decode()
        if "PRIVATE" in kind:
            raise BadKeys(f"block {number} is a private key; only public ones belong here")
        try:
            if kind == "CERTIFICATE":
                public: object = x509.load_pem_x509_certificate(block[0]).public_key()
            else:
                public = load_pem_public_key(block[0])
        except ValueError as error:
            raise BadKeys(f"block {number} ({kind}) cannot be read: {error}") from error
        keys.append(_key(f"block {number}", None, public))
    return keys


def _from_jwks(data: bytes) -> list[Key]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadKeys(f"neither PEM nor JSON: {error}") from error
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadKeys('not a JWKS: an object with a list "keys"')
    named = [(f"keys[{number}]", entry) for number, entry in enumerate(entries)]
    return [_from_jwk(place, entry) for place, entry in named if entry.get("use", "sig") == "sig"]


def _from_jwk(place: str, entry: dict[str, object]) -> Key:
    key_id = entry.get("kid")
    if key_id is not None and not isinstance(key_id, str):
        raise BadKeys(f"{place}: kid is not a string")
    algorithm = _CURVES.get((str(entry.get("kty")), _curve(entry)))
    if algorithm is None:
        raise BadKeys(f"{place}: not RSA, EC with P-256 or OKP with Ed25519")
    if "d" in entry:
        raise BadKeys(f"{place} is a private key; only public ones belong here")
    if entry.get("alg", algorithm) != algorithm:
        raise BadKeys(f"{place}: alg is {entry['alg']!r}; a key of this kind is for {algorithm}")
    try:
        public = jwt.PyJWK(entry, algorithm).key
    except jwt.PyJWTError as error:
        raise BadKeys(f"{place}: {error}") from error
    return _key(place, key_id, public)


def _curve(entry: dict[str, object]) -> str | None:
    return None if entry.get("kty") == "RSA" else str(entry.get("crv"))


def _key(place: str, key_id: str | None, public: object) -> Key:
    match public:
        case rsa.RSAPublicKey() if RSA_BITS_MIN <= public.key_size <= RSA_BITS_MAX:
            return Key(key_id, "RS256", public)
        case ec.EllipticCurvePublicKey() if isinstance(public.curve, ec.SECP256R1):
            return Key(key_id, "ES256", public)
        case ed25519.Ed25519PublicKey():
            return Key(key_id, "EdDSA", public)
        case _:
            raise BadKeys(
                f"{place}: not RSA of {RSA_BITS_MIN} to {RSA_BITS_MAX} bits, EC on P-256 or Ed25519"
            )
