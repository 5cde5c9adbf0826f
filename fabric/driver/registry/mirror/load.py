"""Reads a file of mirrors and the files that it names; paths in it are relative to its own directory."""

from __future__ import annotations

import ssl
import tomllib
from dataclasses import dataclass
from pathlib import Path

from fabric.driver.registry.access.tables import Mistake
from fabric.driver.registry.mirror.config import MirrorTable, parse_mirrors

SECRET_BYTES_MAX = 16 * 1024


class MirrorsFileError(Exception):
    """A file of mirrors, or one that it names, cannot be used: the file, the key, the reason, in one line."""


@dataclass(frozen=True, slots=True)
class Mirror:
    """One mirror, ready for use."""

    table: MirrorTable
    username: str = ""
    password: str = ""
    trusted: ssl.SSLContext | None = None
    """Whose certificates are taken; None: whom this machine trusts."""


def load_mirrors(path: Path) -> list[Mirror]:
    """What ``path`` says.  Raises MirrorsFileError."""
    try:
        table = parse_mirrors(tomllib.loads(_read(path, path, "").decode()))
        return [_mirror(path, f"mirror[{number}]", each) for number, each in enumerate(table.mirror, start=1)]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MirrorsFileError(f"{path}: not valid TOML: {error}") from error
    except Mistake as error:
        raise MirrorsFileError(f"{path}: {error}") from error


def _mirror(path: Path, place: str, table: MirrorTable) -> Mirror:
    username = password = ""
    if table.username_file is not None and table.password_file is not None:
        username = _secret(path, table.username_file, f"{place}.username_file")
        password = _secret(path, table.password_file, f"{place}.password_file")
        if ":" in username:
            raise MirrorsFileError(f"{path}: {place}.username_file: a name has no colon")
    return Mirror(table, username, password, _trusted(path, table.ca_file, f"{place}.ca_file"))


def _secret(path: Path, name: str, key: str) -> str:
    file = path.parent / name
    try:
        text = _read(path, file, key).decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise MirrorsFileError(f"{path}: {key}: {file} is not text") from error
    if not text or len(text) > SECRET_BYTES_MAX or any(ord(character) < 32 for character in text):
        raise MirrorsFileError(f"{path}: {key}: {file} is not one line of text")
    return text


def _trusted(path: Path, name: str | None, key: str) -> ssl.SSLContext | None:
    if name is None:
        return None
    file = path.parent / name
    pem = _read(path, file, key)
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(cadata=pem.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise MirrorsFileError(f"{path}: {key}: {file} holds no certificates in PEM") from error
    return context


def _read(path: Path, file: Path, key: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        place = f"{path}: {key}: " if key else ""
        raise MirrorsFileError(f"{place}cannot read {file}: {error.strerror}") from error
