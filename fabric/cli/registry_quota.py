"""``fabric registry quota``: what the accounts of quotas hold, and of how much."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fabric.cli.options import load_settings
from fabric.cli.output import print_json, print_table, size_text
from fabric.cli.registry import ACCESS_FILE, load_access_file
from fabric.cli.registry_common import config_option, json_option, proxy_option, stamper, through

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fabric.driver.registry.quota.accounts import AccountedStore
    from fabric.driver.registry.quota.quotas import Quota
    from fabric.driver.registry.quota.usage import AccountUsage, Usage
    from fabric.settings import Settings


@click.command()
@click.option("--repositories", "by_repository", is_flag=True, help="Show each repository, too.")
@click.option(
    "--access",
    type=ACCESS_FILE,
    default=None,
    help="First let the quotas of this access file hold, and no others.",
)
@config_option
@json_option
@proxy_option
def command(by_repository: bool, access: Path | None, config: Path | None, as_json: bool, proxy: str) -> None:
    """Show the quotas: limits, what is used, and how much of it others hold as well.

    The quotas are those that the store knows: of the access file that a registry read last.
    """
    from fabric.driver.registry.quota.usage import usage_of_accounts

    settings = load_settings(config)
    quotas = _quotas(access) if access is not None else None

    async def work(store: AccountedStore) -> list[AccountUsage]:
        if quotas is not None:
            await _declare(store, quotas, settings)
        return await usage_of_accounts(store)

    found = through(proxy, settings, work)
    if as_json:
        print_json([_plain(each, by_repository) for each in found])
    elif not found:
        click.echo("There are no quotas; an access file has them: docs/quota.md.")
    else:
        _show(found)
        if by_repository:
            _show_repositories(found)


def _quotas(file: Path) -> Sequence[Quota]:
    quotas = load_access_file(file).quotas
    if quotas is None:
        raise click.UsageError(f"{file} says nothing of quotas; `quota = []` at its top ends them all")
    return quotas


async def _declare(store: AccountedStore, quotas: Sequence[Quota], settings: Settings) -> None:
    """Let them hold, and count what is there."""
    from fabric.driver.registry.background import pace_of
    from fabric.driver.registry.quota.book import declare
    from fabric.driver.registry.quota.counting import Counting

    stamps = stamper()
    await declare(store, quotas, stamps.new_id)
    await Counting(store, stamps, settings.manifest_bytes_max, pace_of(0).pause).run()


def _plain(found: AccountUsage, by_repository: bool) -> dict[str, object]:
    account = found.account
    plain: dict[str, object] = {
        "account": account.repositories,
        "limit_bytes": account.limit_bytes,
        "used_bytes": found.used_bytes,
        "percent": round(found.percent, 3),
        "objects": found.objects,
        "unique_bytes": found.found.unique_bytes,
        "shared_bytes": found.found.shared_bytes,
        "counting": not account.is_counted,
    }
    if by_repository:
        plain["repositories"] = {
            name: {
                "bytes": usage.bytes,
                "objects": usage.objects,
                "unique_bytes": usage.unique_bytes,
                "shared_bytes": usage.shared_bytes,
            }
            for name, usage in sorted(found.repositories.items())
        }
    return plain


def _show(found: Sequence[AccountUsage]) -> None:
    rows = [
        [
            each.account.repositories,
            size_text(each.account.limit_bytes),
            size_text(each.used_bytes),
            f"{each.percent:.1f} %" if each.account.is_counted else "counting",
            *_figures(each.found),
        ]
        for each in found
    ]
    print_table("", ["account", "limit", "used", "", "objects", "unique", "shared"], rows, right=6)


def _show_repositories(found: Sequence[AccountUsage]) -> None:
    rows = [
        [each.account.repositories, name, size_text(usage.bytes), *_figures(usage)]
        for each in found
        for name, usage in sorted(each.repositories.items())
    ]
    print_table("", ["account", "repository", "size", "objects", "unique", "shared"], rows, right=4)


def _figures(usage: Usage) -> list[str]:
    return [str(usage.objects), size_text(usage.unique_bytes), size_text(usage.shared_bytes)]
