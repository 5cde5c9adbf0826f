"""``fabric registry gc run|status|why``: garbage collection, and what keeps the rest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fabric.cli.options import load_settings
from fabric.cli.output import duration_text, plain, print_json, print_table, size_text, time_text
from fabric.cli.registry_common import config_option, json_option, proxy_option, stamper, through
from fabric.cli.registry_hooks import announced

if TYPE_CHECKING:
    from fabric.driver.object_store import ObjectStore
    from fabric.driver.registry.collection import Report
    from fabric.driver.registry.why import Explanation

DID = {
    "discarded_uploads": "abandoned uploads discarded",
    "discarded_parts": "parts of uploads that are over discarded",
    "trashed_manifests": "untagged manifests moved to the trash",
    "purged_manifests": "deleted manifests purged from the trash",
    "purged_blobs": "deleted blobs purged from the trash",
    "purged_tag_states": "earlier states of tags forgotten",
    "released_pushes": "broken pushes of large manifests let go",
    "doubted_blobs": "blobs without a manifest put in doubt",
    "unlinked_blobs": "blobs without a manifest unlinked",
    "removed_repositories": "empty repositories removed",
    "changed_meanwhile": "decisions left to the next pass, because something changed",
}


@click.group()
def command() -> None:
    """Garbage collection of the registry: online, beside all pushes."""


@command.command()
@click.option("--dry-run", is_flag=True, help="Say what is ripe now, and change nothing.")
@config_option
@json_option
@proxy_option
def run(dry_run: bool, config: Path | None, as_json: bool, proxy: str) -> None:
    """Run one pass now.

    Registries do so by themselves; passes side by side are harmless.  What may go and when is in the
    settings `gc_grace_s`, `gc_untagged_after_s`, `undelete_s` and `upload_expiry_s`.
    """
    from fabric.driver.registry.background import garbage_collection

    settings = load_settings(config)

    async def work(store: ObjectStore) -> Report:
        return await garbage_collection(await announced(store), settings, stamper()).run(dry_run=dry_run)

    report = through(proxy, settings, work)
    if as_json:
        print_json(plain(report))
    else:
        _show_report(report)
    if report.problems:
        raise SystemExit(1)


@command.command()
@config_option
@json_option
@proxy_option
def status(config: Path | None, as_json: bool, proxy: str) -> None:
    """Show what the last pass did, and what waits for the next ones."""
    import msgspec

    from fabric.driver.registry.collection import Report
    from fabric.driver.registry.garbage import LAST_PASS_PATH
    from fabric.driver.registry.indexing import is_indexed
    from fabric.driver.registry.why import waiting
    from fabric.errors import NotFound

    async def work(store: ObjectStore) -> tuple[Report | None, bool, dict[str, tuple[int, int]]]:
        try:
            text = (await store.stat(LAST_PASS_PATH)).attributes["report"]
            last = msgspec.json.decode(text, type=Report)
        except NotFound:
            last = None
        return last, await is_indexed(store), await waiting(store)

    last, indexed, marks = through(proxy, load_settings(config), work)
    if as_json:
        counts = {what: {"count": count, "oldest_ms": oldest} for what, (count, oldest) in marks.items()}
        print_json({"last_pass": plain(last) if last else None, "indexed": indexed, "waiting": counts})
        return
    if last is None:
        click.echo("No pass has ended yet.")
    else:
        click.echo(f"Last pass: {time_text(last.started_at_ms)}")
        _show_report(last)
    if not indexed:
        click.echo("The books of this store are not complete; the next pass completes them first.")
    rows = [
        [what, f"{count}" if count < 1000 else "1000 or more", time_text(oldest) if oldest else ""]
        for what, (count, oldest) in marks.items()
    ]
    print_table("What passes look at", ["what", "count", "oldest"], rows)


@command.command()
@click.argument("digest")
@json_option
@proxy_option
def why(digest: str, as_json: bool, proxy: str) -> None:
    """Say what keeps the bytes of DIGEST: which repositories link them, and which manifests need them."""
    from fabric.driver.registry.errors import RegistryError
    from fabric.driver.registry.names import parse_digest
    from fabric.driver.registry.why import explain, tags_of_user

    try:
        wanted = parse_digest(digest)
    except RegistryError as error:
        raise click.UsageError(error.message) from error

    async def work(store: ObjectStore) -> tuple[Explanation, dict[tuple[str, str], str]]:
        found = await explain(store, wanted)
        users = {(each.repository, user) for each in found.keepers for user in each.used_by}
        return found, {user: await tags_of_user(store, *user) for user in sorted(users)}

    found, users = through(proxy, load_settings(None), work)
    if as_json:
        print_json(plain(found))
    else:
        _show_explanation(found, users)


# --- for people -----------------------------------------------------------------------------------


def _show_report(report: Report) -> None:
    verb = "Would free" if report.dry_run else "Freed"
    things = f"{report.freed} blobs and manifests, {size_text(report.freed_bytes)}"
    took = duration_text(max(0, report.ended_at_ms - report.started_at_ms))
    click.echo(f"{verb} {things} (took {took})")
    values: dict[str, Any] = {name: getattr(report, name) for name in DID}
    for name, text in DID.items():
        if values[name]:
            click.echo(f"  {values[name]} {text}")
    for reason, count in report.kept.items():
        click.echo(f"  kept: {reason}: {count}")
    for problem in report.problems:
        click.echo(f"  problem: {problem}", err=True)


def _show_explanation(found: Explanation, users: dict[tuple[str, str], str]) -> None:
    if found.size < 0:
        click.echo(f"{found.digest} is not stored.")
    else:
        click.echo(f"{found.digest}: {size_text(found.size)}")
    for each in found.keepers:
        note = f" since {time_text(each.since_ms)}" if each.since_ms else ""
        note += f" by {each.who}" if each.who else ""
        click.echo(f"  {each.kind} of {each.repository}: {each.state}{note}")
        for user in each.used_by:
            click.echo(f"    needed by {user} ({users[each.repository, user]})")
        if each.tags:
            click.echo(f"    named by {', '.join(each.tags)}")
        for referrer in each.referrers:
            click.echo(f"    {referrer} is about it")
        if each.marked:
            click.echo("    the next pass looks at it")
    if not found.keepers and found.size >= 0:
        click.echo("  nothing links it" + ("; the next pass removes it" if found.marked else ""))
