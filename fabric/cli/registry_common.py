"""What the commands about a registry's content share: they go through a proxy, as a registry does."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fabric.cli.options import HOST_PORT
from fabric.cli.output import reported_errors

if TYPE_CHECKING:
    from fabric.driver.object_store import ObjectStore
    from fabric.driver.registry.bookkeeping import Stamper
    from fabric.driver.registry.manifest_store import ManifestStore
    from fabric.driver.registry.quota.accounts import AccountedStore
    from fabric.driver.registry.undelete import Undelete
    from fabric.settings import Settings

OPERATOR = "operator"
"""Who restores something from the command line."""

Result = TypeVar("Result")

proxy_option = click.option(
    "--proxy", type=HOST_PORT, default="127.0.0.1:7420", show_default=True, help="The proxy to go through."
)
config_option = click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="TOML file with a [settings] table: the one of the registries.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def through(proxy: str, settings: Settings, work: Callable[[AccountedStore], Awaitable[Result]]) -> Result:
    """Run ``work`` with a store; what goes wrong is one line and exit status 1.

    What repositories own is counted in their accounts, and no quota refuses it.
    """
    from fabric.driver.fabric_store import FabricStore
    from fabric.driver.registry.errors import RegistryError
    from fabric.driver.registry.quota.accounts import AccountedStore

    async def run() -> Result:
        store = FabricStore(proxy=proxy, settings=settings)
        await store.start()
        try:
            return await work(AccountedStore(store, refuses=False))
        finally:
            await store.close()

    with reported_errors():
        try:
            return asyncio.run(run())
        except RegistryError as error:
            raise click.ClickException(_told(error)) from error


def _told(error: Any) -> str:
    details = error.detail if isinstance(error.detail, list) else [error.detail]
    named = ", ".join(str(value) for each in details if isinstance(each, dict) for value in each.values())
    return f"{error.message}: {named}" if named else str(error.message)


def stamper() -> Stamper:
    """Stamps of this machine's clock."""
    from fabric.driver.registry.bookkeeping import Stamper

    return Stamper(lambda: time.time_ns() // 1_000_000, lambda: secrets.token_hex(16))


def manifests_over(store: ObjectStore, settings: Settings) -> ManifestStore:
    """The manifests and tags in a store."""
    from fabric.driver.registry.manifest_store import ManifestStore

    return ManifestStore(store, settings.manifest_bytes_max, stamper())


def undelete_over(store: ObjectStore, settings: Settings) -> Undelete:
    """What lists and restores."""
    from fabric.driver.registry.undelete import Undelete

    return Undelete(store, manifests_over(store, settings), stamper(), settings.manifest_bytes_max)


class Moment(click.ParamType):  # type: ignore[type-arg]
    """A time of the past; converts to milliseconds since 1970."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value).strip()
        unit = _UNITS.get(text[-1:])
        if unit is not None and text[:-1].isdigit():
            moment = datetime.now(UTC) - timedelta(seconds=int(text[:-1]) * unit)
        else:
            try:
                moment = datetime.fromisoformat(text).astimezone(UTC)
            except ValueError:
                self.fail(f"{text!r} is neither like 2026-11-24T13:00 nor like 90m, 2h, 3d (ago)", param, ctx)
        return int(moment.timestamp() * 1000)


MOMENT = Moment()


def parse_target(text: str) -> tuple[str, str, str]:
    """``REPO``, ``REPO:TAG`` or ``REPO@DIGEST`` as (repository, tag, digest), with empty texts."""
    from fabric.driver.registry.errors import RegistryError
    from fabric.driver.registry.names import parse_digest, repository_name, tag_name

    try:
        if "@" in text:
            name, _, digest = text.partition("@")
            return repository_name(name), "", str(parse_digest(digest))
        name, colon, tag = text.partition(":")
        return repository_name(name), tag_name(tag) if colon else "", ""
    except RegistryError as error:
        raise click.UsageError(f"{text!r}: {error.message}") from error
