"""``fabric registry retention``: delete tags by rules."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fabric.cli.options import load_settings
from fabric.cli.output import print_json, print_table, time_text
from fabric.cli.registry import ACCESS_FILE, load_access_file
from fabric.cli.registry_common import (
    config_option,
    json_option,
    manifests_over,
    proxy_option,
    stamper,
    through,
)
from fabric.cli.registry_hooks import announced

if TYPE_CHECKING:
    from fabric.driver.object_store import ObjectStore
    from fabric.driver.registry.retention import Decision, Rule


@click.command()
@click.option(
    "--rules",
    "rules_file",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="TOML file of rules: docs/garbage-collection.md.",
)
@click.option("--dry-run", is_flag=True, help="Say what would go, and delete nothing.")
@click.option("--all", "show_all", is_flag=True, help="Say also what is kept, and why.")
@click.option(
    "--access", type=ACCESS_FILE, default=None, help="The registries' access file: immutable tags stay."
)
@config_option
@json_option
@proxy_option
def command(
    rules_file: Path,
    dry_run: bool,
    show_all: bool,
    access: Path | None,
    config: Path | None,
    as_json: bool,
    proxy: str,
) -> None:
    """Delete the tags that the rules of a file do not keep.

    What is deleted can be restored like any other tag (`fabric registry restore`).
    """
    from fabric.driver.registry.retention import Retention

    rules = _rules(rules_file)
    settings = load_settings(config)

    async def work(store: ObjectStore) -> list[Decision]:
        guarded = _guarded(await announced(store), access)
        retention = Retention(guarded, manifests_over(guarded, settings), rules)
        return [each async for each in retention.run(stamper().wall_ms(), dry_run=dry_run)]

    decisions = through(proxy, settings, work)
    shown = [each for each in decisions if show_all or not each.keep]
    if as_json:
        print_json([_plain(each) for each in shown])
        return
    verb = "would go" if dry_run else "deleted"
    rows = [
        [
            "kept" if each.keep else verb,
            f"{each.repository}:{each.tag}",
            time_text(each.set_at_ms),
            each.digest,
            each.reason,
        ]
        for each in shown
    ]
    if rows:
        print_table("", ["", "tag", "set", "digest", "why"], rows)
    gone = sum(not each.keep for each in decisions)
    click.echo(f"{gone} {verb}, {len(decisions) - gone} kept; tags that no rule describes stay.")


def _rules(file: Path) -> list[Rule]:
    from fabric.driver.registry.retention import BadRules, parse_rules

    try:
        return parse_rules(tomllib.loads(file.read_text()))
    except OSError as error:
        raise click.UsageError(f"cannot read {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, BadRules) as error:
        raise click.UsageError(f"{file}: {error}") from error


def _guarded(store: ObjectStore, access_file: Path | None) -> ObjectStore:
    if access_file is None:
        return store
    from fabric.driver.registry.access.tag_guard import TagGuard

    policy = load_access_file(access_file).policy
    return TagGuard(store, policy.is_immutable)


def _plain(decision: Decision) -> dict[str, object]:
    return {
        "repository": decision.repository,
        "tag": decision.tag,
        "digest": decision.digest,
        "set_at_ms": decision.set_at_ms,
        "keep": decision.keep,
        "reason": decision.reason,
    }
