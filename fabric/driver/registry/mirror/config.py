"""What may stand in a file of mirrors, and what it means.  Files it names are read by ``load``.

Every mistake is told with its key, such as ``mirror[2].upstream``, and a reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec

from fabric.driver.registry.access.patterns import BadPattern, Patterns, repository_patterns
from fabric.driver.registry.access.tables import Mistake, Table, converted
from fabric.driver.registry.errors import RegistryError
from fabric.driver.registry.names import repository_name
from fabric.settings import GIB

EVERYTHING = "**"
_URL = re.compile(r"https?://[!-~]{1,500}")

FOR_EVER = -1.0
"""Of ``stale_for_s``."""


class MirrorTable(Table, frozen=True):
    """Some repositories, and where they come from.  Times in seconds."""

    repositories: str
    """``prefix/**``, or ``**`` for all."""
    upstream: str
    """``https://host`` or ``http://host:port``."""
    but_not: tuple[str, ...] = ()
    """Patterns of repositories that are our own all the same."""
    upstream_prefix: str = ""
    """Put before the name that is asked for upstream, with a slash between."""
    username_file: str | None = None
    password_file: str | None = None
    ca_file: str | None = None
    """PEM; whom to trust besides those that this machine trusts."""
    tag_fresh_s: Annotated[float, msgspec.Meta(ge=0)] = 60.0
    """A tag that the upstream confirmed within this time is not asked for again."""
    stale_for_s: float = FOR_EVER
    """Without an answer of the upstream, a tag is served for so long after it was confirmed; -1: for ever."""
    missing_fresh_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 5.0
    """What the upstream does not have is not asked for again within this time."""
    rest_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 10.0
    """After a failure, tags that are here are served without asking for so long."""
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 10.0
    """For an answer about a manifest or a tag, and for any silence while a blob comes."""
    blob_bytes_max: Annotated[int, msgspec.Meta(ge=1)] = 128 * GIB


class MirrorsTable(Table, frozen=True):
    """The whole file."""

    mirror: list[MirrorTable] = []


class Mapped:
    """Which repositories a mirror is for, and what they are called upstream."""

    def __init__(self, table: MirrorTable) -> None:
        """Of a table that was checked."""
        self._prefix = table.repositories.removesuffix(EVERYTHING)
        self._before = f"{table.upstream_prefix}/" if table.upstream_prefix else ""
        self._but_not: Patterns = repository_patterns(table.but_not)

    def upstream_name(self, name: str) -> str | None:
        """Its name upstream; None for a repository that this mirror is not for."""
        if not name.startswith(self._prefix) or name == self._prefix or self._but_not.match(name):
            return None
        return self._before + name.removeprefix(self._prefix)


def parse_mirrors(values: Mapping[str, Any]) -> MirrorsTable:
    """The file's content, typed and checked.  Raises Mistake."""
    table = converted(values, MirrorsTable)
    seen: dict[str, int] = {}
    for number, mirror in enumerate(table.mirror, start=1):
        place = f"mirror[{number}]"
        _check(place, mirror)
        if mirror.repositories in seen:
            raise Mistake(
                f"{place}.repositories", f"mirror[{seen[mirror.repositories]}] is for these already"
            )
        seen[mirror.repositories] = number
    return table


def _check(place: str, mirror: MirrorTable) -> None:
    prefix = mirror.repositories.removesuffix(EVERYTHING)
    if mirror.repositories != EVERYTHING:
        if not prefix.endswith("/") or prefix == mirror.repositories:
            raise Mistake(f"{place}.repositories", f"{mirror.repositories!r} is neither ** nor prefix/**")
        _check_name(f"{place}.repositories", prefix[:-1])
    if mirror.upstream_prefix:
        _check_name(f"{place}.upstream_prefix", mirror.upstream_prefix)
    _check_upstream(f"{place}.upstream", mirror.upstream)
    try:
        repository_patterns(mirror.but_not)
    except BadPattern as error:
        raise Mistake(f"{place}.but_not", str(error)) from error
    if mirror.stale_for_s < 0 and mirror.stale_for_s != FOR_EVER:
        raise Mistake(f"{place}.stale_for_s", "seconds, or -1 for ever")
    if (mirror.username_file is None) != (mirror.password_file is None):
        missing = "username_file" if mirror.username_file is None else "password_file"
        raise Mistake(f"{place}.{missing}", "a name and a password come together")
    if mirror.ca_file is not None and mirror.upstream.startswith("http:"):
        raise Mistake(f"{place}.ca_file", "means nothing for an http:// upstream")


def _check_name(key: str, text: str) -> None:
    try:
        repository_name(text)
    except RegistryError as error:
        raise Mistake(key, f"{text!r}: {error.message}") from error


def _check_upstream(key: str, text: str) -> None:
    wrong = Mistake(key, f"{text!r} is not like https://registry.example or http://host:port")
    if _URL.fullmatch(text) is None:
        raise wrong
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise wrong from error
    if port == 0 or not parts.hostname or "@" in parts.netloc:
        raise wrong
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise Mistake(key, "a registry is at the root of its host: there is no path behind it")
