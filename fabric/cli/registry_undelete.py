"""``fabric registry history|trash|restore``: what happened to tags, and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fabric.cli.options import load_settings
from fabric.cli.output import print_json, print_table, size_text, time_text
from fabric.cli.registry_common import (
    MOMENT,
    OPERATOR,
    config_option,
    json_option,
    parse_target,
    proxy_option,
    through,
    undelete_over,
)
from fabric.cli.registry_hooks import announced

if TYPE_CHECKING:
    from fabric.driver.object_store import ObjectStore
    from fabric.driver.registry.history import TagEvent
    from fabric.driver.registry.undelete import Restored, Trashed


@click.command()
@click.argument("target", metavar="REPO[:TAG]")
@json_option
@proxy_option
def history(target: str, as_json: bool, proxy: str) -> None:
    """Show what happened to a tag, or to all tags of a repository, in order: when, what, who."""
    from fabric.driver.registry.bookkeeping import histories_prefix
    from fabric.driver.registry.history import History

    name, tag, digest = parse_target(target)
    if digest:
        raise click.UsageError("a history is of a tag or of a repository")

    async def work(store: ObjectStore) -> list[TagEvent]:
        reader = History(store)
        tags = [tag] if tag else await reader.tags(name, histories_prefix(name))
        events = [event for each in tags for event in await reader.of(name, each)]
        return sorted(events, key=lambda event: event.generation)

    events = through(proxy, load_settings(None), work)
    if not events:
        raise click.ClickException(f"nothing is known of {target}")
    if as_json:
        print_json([_event(event) for event in events])
        return
    rows = [
        [time_text(event.at_ms), event.tag, event.what, str(event.digest or ""), event.who]
        for event in events
    ]
    print_table("", ["time", "tag", "what", "digest", "who"], rows)


def _event(event: TagEvent) -> dict[str, object]:
    digest = str(event.digest) if event.digest is not None else ""
    return {"at_ms": event.at_ms, "tag": event.tag, "what": event.what, "digest": digest, "who": event.who}


@click.command()
@click.argument("repository", metavar="[REPO]", default="")
@config_option
@json_option
@proxy_option
def trash(repository: str, config: Path | None, as_json: bool, proxy: str) -> None:
    """List what was deleted and can be restored, oldest first."""
    name = parse_target(repository)[0] if repository else ""
    settings = load_settings(config)

    async def work(store: ObjectStore) -> list[Trashed]:
        return [each async for each in undelete_over(store, settings).trash(name)]

    found = through(proxy, settings, work)
    until_ms = int(settings.undelete_s * 1000)
    if as_json:
        print_json(
            [
                {
                    "repository": each.repository, "kind": each.kind, "digest": str(each.digest),
                    "size": each.size, "at_ms": each.at_ms, "until_ms": each.at_ms + until_ms,
                    "who": each.who,
                }
                for each in found
            ]
        )  # fmt: skip
        return
    rows = [
        [
            time_text(each.at_ms), each.repository, each.kind, str(each.digest), each.who,
            time_text(each.at_ms + until_ms), size_text(each.size),
        ]
        for each in found
    ]  # fmt: skip
    print_table("", ["deleted", "repository", "kind", "digest", "who", "kept until", "size"], rows, right=1)


@click.command()
@click.argument("target", metavar="REPO[:TAG|@DIGEST]")
@click.option(
    "--at",
    "at_ms",
    type=MOMENT,
    help="As it was then: 2026-11-24T13:00 (local time), or 90m, 2h, 3d.  [default: before its last change]",
)
@config_option
@json_option
@proxy_option
def restore(target: str, at_ms: int | None, config: Path | None, as_json: bool, proxy: str) -> None:
    """Bring back a tag, a manifest with its tags, or a whole repository.

    A tag goes back to what it named before its last change.  A manifest comes back with the tags that
    were deleted together with it.  A repository gets back all manifests in its trash and all deleted tags;
    with --at, its tags also go back to what they named then.
    """
    from fabric.driver.registry.names import parse_digest

    name, tag, digest = parse_target(target)
    if digest and at_ms is not None:
        raise click.UsageError("--at is for tags and repositories")
    settings = load_settings(config)

    async def work(store: ObjectStore) -> list[Restored]:
        undelete = undelete_over(await announced(store), settings)
        if tag:
            return [await undelete.tag(name, tag, at_ms, OPERATOR)]
        if digest:
            return await undelete.manifest(name, parse_digest(digest), OPERATOR)
        return await undelete.repository(name, at_ms, OPERATOR)

    restored = through(proxy, settings, work)
    if as_json:
        print_json(
            [
                {"repository": each.repository, "tag": each.tag, "digest": str(each.digest)}
                for each in restored
            ]
        )
    elif not restored:
        click.echo("Nothing to restore: it is all there.")
    else:
        for each in restored:
            what = f":{each.tag} is {each.digest}" if each.tag else f"@{each.digest} is back"
            click.echo(f"{each.repository}{what}")
