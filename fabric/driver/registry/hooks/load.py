"""Reads a file of hooks and the files that it names; paths in it are relative to its own directory."""

from __future__ import annotations

import ssl
import tomllib
from dataclasses import dataclass
from pathlib import Path

from fabric.driver.registry.access.tables import Mistake
from fabric.driver.registry.hooks.config import HookTable, parse_hooks
from fabric.driver.registry.hooks.wishes import Wish

SECRET_BYTES_MAX = 4096


class HooksFileError(Exception):
    """A file of hooks, or one that it names, cannot be used: the file, the key, the reason, in one line."""


@dataclass(frozen=True, slots=True)
class Hook:
    """A receiver, ready for use."""

    table: HookTable
    secret: bytes = b""
    """Empty: bodies are not signed."""
    trusted: ssl.SSLContext | None = None
    """Of its certificate; None: what this machine trusts."""

    @property
    def name(self) -> str:
        """By which operators know it."""
        return self.table.name

    @property
    def wish(self) -> Wish:
        """What it wants to be told."""
        return self.table.wish()


@dataclass(frozen=True, slots=True)
class HooksFile:
    """Everything that a file of hooks says."""

    registry_url: str = ""
    hooks: tuple[Hook, ...] = ()


def load_hooks(path: Path) -> HooksFile:
    """What ``path`` says.  Raises HooksFileError."""
    try:
        table = parse_hooks(tomllib.loads(_read(path, path, "").decode()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise HooksFileError(f"{path}: not valid TOML: {error}") from error
    except Mistake as error:
        raise HooksFileError(f"{path}: {error}") from error
    hooks = (_hook(path, number, hook) for number, hook in enumerate(table.hook, start=1))
    return HooksFile(table.registry_url.rstrip("/"), tuple(hooks))


def _hook(path: Path, number: int, table: HookTable) -> Hook:
    secret, trusted = b"", None
    if table.secret_file is not None:
        key = f"hook[{number}].secret_file"
        file = path.parent / table.secret_file
        secret = _read(path, file, key).strip()
        if not 0 < len(secret) <= SECRET_BYTES_MAX:
            raise HooksFileError(
                f"{path}: {key}: {file} has no secret, or one above {SECRET_BYTES_MAX} bytes"
            )
    if table.ca_file is not None:
        key = f"hook[{number}].ca_file"
        file = path.parent / table.ca_file
        _read(path, file, key)
        try:
            trusted = ssl.create_default_context(cafile=file)
        except ssl.SSLError as error:
            raise HooksFileError(f"{path}: {key}: {file} has no certificates in PEM form") from error
    return Hook(table, secret, trusted)


def _read(path: Path, file: Path, key: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        place = f"{path}: {key}: " if key else ""
        raise HooksFileError(f"{place}cannot read {file}: {error.strerror}") from error
