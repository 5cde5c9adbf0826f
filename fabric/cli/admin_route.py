"""``fabric admin route``: where the bytes of one object lie."""

from __future__ import annotations

from collections.abc import Sequence

import click

from fabric.cli.admin_common import ask, cluster_of, shared
from fabric.cli.output import print_json, print_table, size_text
from fabric.wire.messages import (
    ClusterStatus,
    FragmentRef,
    Fragments,
    ListFragments,
    ObjectInfo,
    Open,
    Opened,
)


@click.command()
@click.argument("path")
@click.option("--fragments", "show_all", is_flag=True, help="A row for each fragment.")
@shared
def route(master: str, as_json: bool, path: str, show_all: bool) -> None:
    """Show which groups and servers hold the object PATH.

    --fragments names every fragment, as errors do.
    """
    info, fragments = _fragments_of(master, path)
    cluster = cluster_of(master)
    if as_json:
        print_json(
            {
                "info": info,
                "fragments": fragments,
                "groups": [group for group in cluster.groups if group.group in _numbers(fragments)],
            }
        )
        return
    click.echo(f"{info.path}: {size_text(info.size)} in {len(fragments)} fragments")
    if show_all:
        _print_fragments(fragments)
    _print_groups(fragments, cluster)


def _fragments_of(master: str, path: str) -> tuple[ObjectInfo, list[FragmentRef]]:
    """All pages of its fragments.  Raises NotFound."""
    opened = ask(master, Open(0, path, 0), Opened)
    fragments, more = list(opened.fragments), opened.more
    while more:
        offset = sum(fragment.length for fragment in fragments)
        page = ask(master, ListFragments(0, opened.info.object_id, offset), Fragments)
        fragments += page.fragments
        more = page.more and bool(page.fragments)
    return opened.info, fragments


def _numbers(fragments: Sequence[FragmentRef]) -> list[int]:
    return sorted({fragment.group for fragment in fragments})


def _print_fragments(fragments: Sequence[FragmentRef]) -> None:
    rows, offset = [], 0
    for fragment in fragments:
        numbers = (offset, fragment.length, fragment.group, fragment.fid)
        rows.append([*map(str, numbers), f"{fragment.checksum:016x}"])
        offset += fragment.length
    print_table("Fragments", ["offset", "length", "group", "fragment", "checksum"], rows, right=5)


def _print_groups(fragments: Sequence[FragmentRef], cluster: ClusterStatus) -> None:
    states = {node.server: node.state for node in cluster.nodes}
    groups = {group.group: group for group in cluster.groups}
    rows = []
    for number in _numbers(fragments):
        own = [fragment.length for fragment in fragments if fragment.group == number]
        group = groups.get(number)
        members = [f"{name} {states.get(name, '')}" for name in group.members] if group is not None else []
        state = group.state if group is not None else "unknown"
        rows.append([str(number), state, ", ".join(members), str(len(own)), size_text(sum(own))])
    print_table("Groups", ["group", "state", "servers", "fragments", "bytes"], rows, right=2)


COMMANDS = (route,)
