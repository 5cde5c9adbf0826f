"""``fabric registry hooks check|status|test``: are the receivers of webhooks told?"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fabric.cli.options import BadFile, load_settings
from fabric.cli.output import plain, print_json, print_table, time_text
from fabric.cli.registry_common import OPERATOR, json_option, proxy_option, through

if TYPE_CHECKING:
    from fabric.driver.object_store import ObjectStore
    from fabric.driver.registry.hooks.load import Hook, HooksFile
    from fabric.driver.registry.hooks.sender import Answer
    from fabric.driver.registry.hooks.service import Hooks
    from fabric.driver.registry.hooks.status import HookStatus
    from fabric.driver.registry.hooks.wishes import Wish

HOOKS_FILE = click.Path(dir_okay=False, path_type=Path)


# --- for the role ---------------------------------------------------------------------------------


def load_hooks_file(path: Path) -> HooksFile:
    """What a file of hooks says.  Raises BadFile: one line with file, key and reason."""
    from fabric.driver.registry.hooks.load import HooksFileError, load_hooks

    try:
        return load_hooks(path)
    except HooksFileError as error:
        raise BadFile(str(error)) from error


def hooks_of(file: HooksFile | None, http: str) -> Hooks:
    """The webhooks of a registry that listens at ``tcp://HOST:PORT``."""
    from fabric.driver.registry.hooks.service import Hooks

    return Hooks(file, f"{socket.gethostname()}:{http.rpartition(':')[2]}")


def read_hooks_again(hooks: Hooks, path: Path) -> None:
    """Let what the file says now hold; what it said before, if it cannot be used."""
    from fabric.driver.registry.hooks.load import HooksFileError, load_hooks

    try:
        hooks.replace(load_hooks(path))
    except HooksFileError as error:
        logging.error("the file of hooks is not taken, the one before holds: %s", error)
    else:
        logging.info("the file of hooks %s was read again", path)


# --- for commands that change something -----------------------------------------------------------


async def announced(store: ObjectStore, who: str = OPERATOR) -> ObjectStore:
    """The store, with commits that tell the hooks of this fabric, if it has any."""
    from fabric.driver.registry.hooks.outbox import Announcer, Source
    from fabric.driver.registry.hooks.service import new_token, wall_ms
    from fabric.driver.registry.hooks.wishes import read_wishes

    wishes = (await read_wishes(store)).in_force(wall_ms())
    if not wishes:
        return store

    async def known() -> Mapping[str, Wish]:
        return wishes

    return Announcer(store, known, Source(socket.gethostname(), new_token()), wall_ms, new_token, who)


# --- commands -------------------------------------------------------------------------------------


@click.group()
def command() -> None:
    """Webhooks: receivers that are told of pushes, pulls and deletions."""


@command.command()
@click.argument("file", type=HOOKS_FILE)
def check(file: Path) -> None:
    """Check a FILE of hooks.  Exit status 0: it is good; 2: it has a mistake, which is told with its key."""
    hooks = load_hooks_file(file).hooks
    click.echo(f"{file} is good: {len(hooks)} hook{'' if len(hooks) == 1 else 's'}")
    for hook in hooks:
        table = hook.table
        signed = "signed" if hook.secret else "not signed"
        click.echo(
            f"  {table.name}: {' and '.join(table.events)} of {', '.join(table.repositories)}"
            f" to {table.url}, {signed}, tried for {table.retry_for_s:g} s"
        )


@command.command()
@json_option
@proxy_option
def status(as_json: bool, proxy: str) -> None:
    """Show what waits for each hook, what was delivered, and what went wrong last."""
    from fabric.driver.registry.hooks.service import wall_ms
    from fabric.driver.registry.hooks.status import hooks_status

    async def work(store: ObjectStore) -> list[HookStatus]:
        return await hooks_status(store, wall_ms())

    found = through(proxy, load_settings(None), work)
    if as_json:
        print_json([plain(each) for each in found])
        return
    if not found:
        click.echo("There are no hooks; registries are told of them by --hooks FILE.")
        return
    rows = [
        [
            each.name + ("" if each.is_known else " (no registry delivers)"),
            _times(each),
            each.last_error,
            f"{each.waiting}{' or more' if each.waiting_is_least else ''}",
            str(each.delivered),
            str(each.dropped),
            f"{each.pulls_delivered}/{each.pulls_dropped}",
        ]
        for each in found
    ]
    columns = ["hook", "", "last error", "waiting", "delivered", "dropped", "pulls told/dropped"]
    print_table("", columns, rows, right=4)


def _times(status: HookStatus) -> str:
    told = f"oldest {time_text(status.oldest_ms)}" if status.oldest_ms else ""
    if status.failures:
        failing = f"{status.failures} tries failed, the last at {time_text(status.last_error_ms)}"
        return f"{failing}; {told}" if told else failing
    if told or not status.last_success_ms:
        return told
    return f"last at {time_text(status.last_success_ms)}"


@command.command()
@click.argument("name")
@click.option("--hooks", "file", type=HOOKS_FILE, required=True, help="The registries' file of hooks.")
@click.pass_context
def test(context: click.Context, name: str, file: Path) -> None:
    """Send an event "ping" to the hook NAME now, and print the answer.

    Exit status 0: the receiver has taken it; 1: it has not.
    """
    from fabric.driver.registry.hooks.sender import NoAnswer

    hooks = {hook.name: hook for hook in load_hooks_file(file).hooks}
    if name not in hooks:
        raise click.UsageError(f"{file} has no hook {name!r}; it has {', '.join(hooks) or 'none'}")
    url = hooks[name].table.url
    try:
        answer = asyncio.run(_ping(hooks[name]))
    except NoAnswer as error:
        raise click.ClickException(f"{url}: {error}") from error
    click.echo(f"{url}: {answer.status} {answer.reason}")
    if answer.text:
        click.echo(answer.text)
    if answer.error:
        context.exit(1)


async def _ping(hook: Hook) -> Answer:
    from fabric.driver.registry.hooks.envelope import ping
    from fabric.driver.registry.hooks.outbox import Source
    from fabric.driver.registry.hooks.sender import Sender
    from fabric.driver.registry.hooks.service import new_token, wall_ms

    sender = Sender(hook)
    try:
        source = Source(socket.gethostname(), new_token())
        return await sender.ask([ping(new_token(), wall_ms(), OPERATOR, source)])
    finally:
        await sender.close()
