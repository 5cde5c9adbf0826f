"""Access files in a directory, a registry behind one, and a token server's keys."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import bcrypt
import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from fabric.driver.registry.access.gate import Gate
from fabric.driver.registry.access.load import load_access
from fabric.driver.registry.http import serve
from fabric.settings import Settings
from tests.unit.driver.registry.harness import Registry
from tests.unit.driver.registry.memory_store import MemoryStore

ISSUER = "auth.example.org"
SERVICE = "registry.example.org"
REALM = "https://auth.example.org/token"

TOKENS = f"""
[tokens]
realm = "{REALM}"
service = "{SERVICE}"
issuer = "{ISSUER}"
keys = "keys"
"""


def htpasswd(**passwords: str) -> str:
    """A file of the cheapest hashes that there are."""
    lines = [
        f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}"
        for user, password in passwords.items()
    ]
    return "\n".join(lines) + "\n"


def write(directory: Path, text: str, **files: str | bytes) -> Path:
    """An access file, and others beside it."""
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (directory / name).write_bytes(data)
    path = directory / "access.toml"
    path.write_text(text)
    return path


class Guarded(Registry):
    """A registry with an access file."""

    path: Path
    gate: Gate


@asynccontextmanager
async def guarded(
    directory: Path, text: str, store: MemoryStore | None = None, **files: str | bytes
) -> AsyncIterator[Guarded]:
    """A registry that runs with this access file."""
    path = write(directory, text, **files)
    store = store or MemoryStore()
    gate = Gate(load_access(path))
    runner = await serve(store, Settings(), "127.0.0.1", 0, gate)
    try:
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            registry = Guarded(store, runner.addresses[0][1], session)
            registry.path, registry.gate = path, gate
            yield registry
    finally:
        await runner.cleanup()


def basic(user: str, password: str) -> dict[str, str]:
    """Headers of a login."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    """Headers with a token."""
    return {"Authorization": f"Bearer {token}"}


# --- a token server -------------------------------------------------------------------------------

RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
PRIVATE: dict[str, Any] = {"RS256": RSA, "ES256": EC, "EdDSA": ED}
STRANGER = ec.generate_private_key(ec.SECP256R1())


def public_pem(algorithm: str) -> bytes:
    """The public key as a token server's operator would hand it out."""
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(PRIVATE[algorithm].public_key().public_bytes(encoding, form))


def jwk(algorithm: str, **more: Any) -> dict[str, Any]:
    """The same as a JSON Web Key, named after its algorithm."""
    entry: dict[str, Any] = jwt.get_algorithm_by_name(algorithm).to_jwk(
        PRIVATE[algorithm].public_key(), as_dict=True
    )
    entry.pop("key_ops", None)
    return {**entry, "kid": f"key-{algorithm}", **more}


def jwks(*keys: dict[str, Any]) -> str:
    """A key set; of all three kinds by default."""
    return json.dumps({"keys": list(keys) or [jwk(algorithm) for algorithm in PRIVATE]})


def claims(now_s: float, **changed: Any) -> dict[str, Any]:
    """Of a good token; None takes a claim out."""
    usual: dict[str, Any] = {
        "iss": ISSUER,
        "aud": SERVICE,
        "sub": "alice",
        "exp": int(now_s) + 300,
        "nbf": int(now_s) - 10,
        "iat": int(now_s),
        "access": [{"type": "repository", "name": "app", "actions": ["pull", "push"]}],
    }
    return {name: value for name, value in {**usual, **changed}.items() if value is not None}


def sign(payload: dict[str, Any], algorithm: str = "ES256", key: Any = None, **header: Any) -> str:
    """A signed token."""
    header = {"kid": f"key-{algorithm}", **header}
    header = {name: value for name, value in header.items() if value is not None}
    return jwt.encode(payload, key or PRIVATE[algorithm], algorithm, headers=header)
