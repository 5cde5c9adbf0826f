"""Reads an access file and the files that it names; paths in it are relative to its own directory."""

from __future__ import annotations

import ssl
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fabric.driver.registry.access.challenge import Challenger
from fabric.driver.registry.access.config import (
    AccessTable,
    TlsTable,
    TokensTable,
    UsersTable,
    challenger_of,
    limits_of,
    parse_table,
    policy_of,
    quotas_of,
)
from fabric.driver.registry.access.htpasswd import BadPasswordFile, PasswordFile, parse_htpasswd
from fabric.driver.registry.access.limits import Limits
from fabric.driver.registry.access.policy import Policy
from fabric.driver.registry.access.tables import Mistake
from fabric.driver.registry.quota.quotas import Quota

if TYPE_CHECKING:
    from fabric.driver.registry.access.tokens import Trust


class AccessFileError(Exception):
    """An access file, or one that it names, cannot be used: the file, the key, the reason, in one line."""


@dataclass(frozen=True, slots=True)
class Access:
    """Everything that an access file says, checked and ready for use."""

    table: AccessTable = field(default_factory=AccessTable)
    policy: Policy = field(default_factory=Policy)
    challenger: Challenger = field(default_factory=Challenger)
    limits: Limits = field(default_factory=Limits)
    quotas: Sequence[Quota] | None = None
    """None: the file says nothing of quotas."""
    passwords: PasswordFile | None = None
    trust: Trust | None = None
    certificate: tuple[Path, Path] | None = None
    """Of the TLS certificate's chain and of its key; loaded once, to see that they are good."""

    @property
    def is_open(self) -> bool:
        """Whether everybody may do everything, at any rate."""
        table, limits = self.table, self.table.limits
        has_limits = limits.requests_per_s is not None or limits.concurrent_max is not None
        has_logins = self.passwords is not None or self.trust is not None
        return not (has_logins or has_limits or table.read_only or self.policy.rules is not None)


def load_access(path: Path) -> Access:
    """What ``path`` says.  Raises AccessFileError."""
    try:
        table = parse_table(tomllib.loads(_read(path, path, "").decode()))
        return Access(
            table=table,
            policy=policy_of(table),
            challenger=challenger_of(table),
            limits=limits_of(table),
            quotas=quotas_of(table),
            passwords=_passwords(path, table.users) if table.users is not None else None,
            trust=_trust(path, table.tokens) if table.tokens is not None else None,
            certificate=_certificate(path, table.tls) if table.tls is not None else None,
        )
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AccessFileError(f"{path}: not valid TOML: {error}") from error
    except Mistake as error:
        raise AccessFileError(f"{path}: {error}") from error


def server_context() -> ssl.SSLContext:
    """For TLS 1.2 and later, without a certificate yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _passwords(path: Path, users: UsersTable) -> PasswordFile:
    file = path.parent / users.htpasswd
    try:
        return parse_htpasswd(_read(path, file, "users.htpasswd"))
    except BadPasswordFile as error:
        raise AccessFileError(f"{path}: users.htpasswd: {file}: {error}") from error


def _trust(path: Path, tokens: TokensTable) -> Trust:
    # Costs 0.15 s to import: only where tokens are wanted.
    from fabric.driver.registry.access.token_keys import BadKeys, parse_keys
    from fabric.driver.registry.access.tokens import Trust

    file = path.parent / tokens.keys
    try:
        keys = parse_keys(_read(path, file, "tokens.keys"))
    except BadKeys as error:
        raise AccessFileError(f"{path}: tokens.keys: {file}: {error}") from error
    return Trust(keys, tokens.issuer, tokens.service, tokens.leeway_s)


def _certificate(path: Path, tls: TlsTable) -> tuple[Path, Path]:
    certificate, key = path.parent / tls.certificate, path.parent / tls.key
    _read(path, certificate, "tls.certificate")
    _read(path, key, "tls.key")
    try:
        server_context().load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        raise AccessFileError(
            f"{path}: tls: {certificate} and {key} are no certificate and its key, both PEM: {reason}"
        ) from error
    return certificate, key


def _no_password() -> str:
    """Instead of asking on the terminal of a server."""
    raise ValueError("the key is encrypted")


def _read(path: Path, file: Path, key: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        place = f"{path}: {key}: " if key else ""
        raise AccessFileError(f"{place}cannot read {file}: {error.strerror}") from error
