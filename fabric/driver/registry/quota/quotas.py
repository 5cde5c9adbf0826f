"""What an operator writes about quotas, and what it means.

A quota is for one repository (``team/app``), for all below a prefix (``team/**``, at any depth, not
``team`` itself) or for all there are (``**``).  Two quotas never have a repository in common: so each
repository is counted in one account at most, and no change of one quota moves a repository from or to
another.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fabric.driver.registry.errors import RegistryError
from fabric.driver.registry.names import repository_name

EVERYTHING = "**"
BELOW = "/**"

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kKMGTP]?i?B)")
_UNITS = {
    "B": 1,
    **{unit: 1000**power for power, unit in enumerate(("kB", "MB", "GB", "TB", "PB"), start=1)},
    **{unit: 1024**power for power, unit in enumerate(("KiB", "MiB", "GiB", "TiB", "PiB"), start=1)},
}

LIMIT_BYTES_MAX = 2**62


class BadQuota(ValueError):
    """A quota that cannot be used; says why."""


@dataclass(frozen=True, slots=True)
class Quota:
    """So many bytes for these repositories."""

    repositories: str
    limit_bytes: int

    def covers(self, name: str) -> bool:
        """Whether the repository is counted here."""
        return covers(self.repositories, name)


def covers(repositories: str, name: str) -> bool:
    """Whether what a quota is for includes a repository."""
    if repositories == EVERYTHING:
        return True
    if repositories.endswith(BELOW):
        return name.startswith(repositories.removesuffix("**"))
    return name == repositories


def make_quotas(entries: Sequence[tuple[str, int | str]]) -> list[Quota]:
    """Quotas from (repositories, bytes) as they are written.  Raises BadQuota."""
    quotas: list[Quota] = []
    for repositories, size in entries:
        quotas = add_quota(quotas, repositories, size)
    return quotas


def add_quota(quotas: Sequence[Quota], repositories: str, size: int | str) -> list[Quota]:
    """One quota more, as it is written.

    Raises BadQuota, also when there is one already that has repositories in common with it.
    """
    quota = Quota(_checked(repositories), parse_bytes(size))
    for other in quotas:
        if _overlap(quota.repositories, other.repositories):
            raise BadQuota(
                f"{quota.repositories!r} and {other.repositories!r} have repositories in common;"
                " each repository counts in one quota"
            )
    return [*quotas, quota]


def parse_bytes(text: int | str) -> int:
    """A number of bytes, or one with a unit: ``100 GB`` is 10**11, ``100 GiB`` is 100 * 2**30.

    Raises BadQuota.
    """
    if isinstance(text, int):
        size = text
    else:
        found = _SIZE.fullmatch(text)
        if found is None or found[2] not in _UNITS:
            raise BadQuota(f"{text!r} is no number of bytes: an integer, or such as '100 GB' or '1.5 TiB'")
        whole, _, fraction = found[1].partition(".")
        # In integers: a float has no room for the last bytes of a petabyte.
        size = int(whole + fraction) * _UNITS[found[2]] // 10 ** len(fraction)
    if not 0 <= size <= LIMIT_BYTES_MAX:
        raise BadQuota(f"{text!r} is not between 0 and {LIMIT_BYTES_MAX} bytes")
    return size


def _checked(repositories: str) -> str:
    if repositories != EVERYTHING:
        try:
            repository_name(repositories.removesuffix(BELOW))
        except RegistryError as error:
            raise BadQuota(
                f"{repositories!r} is neither a repository ('team/app'), nor all below one ('team/**'),"
                " nor all there are ('**')"
            ) from error
    return repositories


def _overlap(one: str, other: str) -> bool:
    """Of two sets of this kind that have a member in common, one contains a sample of the other."""
    return covers(one, _sample(other)) or covers(other, _sample(one))


def _sample(repositories: str) -> str:
    """The shortest kind of name that a quota covers; no name that is written can be it."""
    return repositories.replace("**", "*")
