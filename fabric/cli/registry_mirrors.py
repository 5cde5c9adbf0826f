"""``fabric registry mirrors check``: is a file of mirrors good, and do the upstreams answer?"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fabric.cli.options import BadFile
from fabric.cli.output import print_json, print_table
from fabric.cli.registry_common import json_option

if TYPE_CHECKING:
    from fabric.driver.registry.mirror.load import Mirror
    from fabric.driver.registry.mirror.mirrors import Mirrors

MIRRORS_FILE = click.Path(dir_okay=False, path_type=Path)

REGISTRY_STATUS = (200, 401)
"""What a registry answers to ``GET /v2/``."""


# --- for the role ---------------------------------------------------------------------------------


def load_mirrors_file(path: Path) -> list[Mirror]:
    """What a file of mirrors says.  Raises BadFile: one line with file, key and reason."""
    from fabric.driver.registry.mirror.load import MirrorsFileError, load_mirrors

    try:
        return load_mirrors(path)
    except MirrorsFileError as error:
        raise BadFile(str(error)) from error


def mirrors_of(path: Path | None) -> Mirrors:
    """The mirrors of a registry; none without a file.  Raises BadFile."""
    from fabric.driver.registry.mirror.mirrors import Mirrors

    return Mirrors(load_mirrors_file(path) if path is not None else [])


def read_mirrors_again(mirrors: Mirrors, path: Path) -> None:
    """Let what the file says now hold; what it said before, if it cannot be used."""
    from fabric.driver.registry.mirror.load import MirrorsFileError, load_mirrors

    try:
        mirrors.replace(load_mirrors(path))
    except MirrorsFileError as error:
        logging.error("the file of mirrors is not taken, the one before holds: %s", error)
    else:
        logging.info("the file of mirrors %s was read again", path)


# --- for operators --------------------------------------------------------------------------------


@click.group()
def command() -> None:
    """Repositories that come from other registries."""


@command.command()
@click.argument("file", type=MIRRORS_FILE)
@click.option("--ask", is_flag=True, help="Ask each upstream whether it is there.")
@json_option
@click.pass_context
def check(context: click.Context, file: Path, ask: bool, as_json: bool) -> None:
    """Check a FILE of mirrors, and show what it says.

    Exit status 0: the file is good, and with --ask all upstreams answer; 1: one does not; 2: the file has
    a mistake.
    """
    mirrors = load_mirrors_file(file)
    answers = asyncio.run(_ask_all(mirrors)) if ask else [None] * len(mirrors)
    if as_json:
        print_json([_described(mirror, answer) for mirror, answer in zip(mirrors, answers, strict=True)])
    else:
        columns = ["repositories", "upstream", "login", "fresh", "stale", *(["answers"] if ask else [])]
        rows = [_row(mirror, answer) for mirror, answer in zip(mirrors, answers, strict=True)]
        print_table(f"{file} is good", columns, rows)
    if ask and any(answers):
        context.exit(1)


def _row(mirror: Mirror, answer: str | None) -> list[str]:
    table = mirror.table
    stale = "for ever" if table.stale_for_s < 0 else f"{table.stale_for_s:g} s"
    row = [table.repositories, table.upstream, mirror.username or "none", f"{table.tag_fresh_s:g} s", stale]
    return row if answer is None else [*row, answer or "yes"]


def _described(mirror: Mirror, answer: str | None) -> dict[str, object]:
    table = mirror.table
    described: dict[str, object] = {
        "repositories": table.repositories,
        "upstream": table.upstream,
        "username": mirror.username,
        "tag_fresh_s": table.tag_fresh_s,
        "stale_for_s": table.stale_for_s,
    }
    return described if answer is None else {**described, "answers": not answer, "problem": answer}


async def _ask_all(mirrors: list[Mirror]) -> list[str | None]:
    """For each upstream what is wrong with it; empty: nothing."""
    from fabric.driver.registry.mirror.failures import UpstreamFailed
    from fabric.driver.registry.mirror.upstream import Upstream, new_session

    logging.getLogger("fabric").addHandler(logging.NullHandler())  # the table says it
    async with new_session() as session:

        async def ask(mirror: Mirror) -> str:
            try:
                status = await Upstream(mirror, lambda: session).ping()
            except UpstreamFailed as error:
                return error.message
            return "" if status in REGISTRY_STATUS else f"it answered {status} to GET /v2/"

        return list(await asyncio.gather(*(ask(mirror) for mirror in mirrors)))
