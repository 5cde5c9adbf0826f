"""The ``fabric`` command: a table of subcommands, each imported when it is used.

Role processes start in a fraction of a second because nothing but their own file is loaded.
"""

from __future__ import annotations

import importlib
from typing import NamedTuple

import click

from fabric import __version__


class Lazy(NamedTuple):
    """Where a subcommand lives, and its line in ``--help``."""

    module: str
    attribute: str
    section: str
    help: str


COMMANDS: dict[str, Lazy] = {
    "up": Lazy("fabric.cli.up", "command", "Everything", "Run all roles on this machine."),
    "put": Lazy("fabric.cli.objects", "put", "Objects", "Store a file as an object."),
    "get": Lazy("fabric.cli.objects", "get", "Objects", "Read an object into a file."),
    "stat": Lazy("fabric.cli.objects", "stat", "Objects", "Show an object's size, digest and generation."),
    "ls": Lazy("fabric.cli.objects", "ls", "Objects", "List objects by prefix."),
    "mv": Lazy("fabric.cli.objects", "mv", "Objects", "Rename an object."),
    "rm": Lazy("fabric.cli.objects", "rm", "Objects", "Remove objects."),
    "admin": Lazy("fabric.cli.admin", "command", "Operation", "Look at nodes and groups, and direct them."),
    "master": Lazy("fabric.cli.master", "command", "Roles", "Run the master: catalog and membership."),
    "chunk": Lazy("fabric.cli.chunk", "command", "Roles", "Run a chunk server: one replica's disk."),
    "proxy": Lazy("fabric.cli.proxy", "command", "Roles", "Run a proxy: writes to and reads from replicas."),
    "registry": Lazy(
        "fabric.cli.registry", "command", "Roles", "Run the registry: HTTP for container tools."
    ),
}


class LazyGroup(click.Group):
    """A group whose help comes from ``COMMANDS`` and whose commands are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(importlib.import_module(entry.module), entry.attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section in dict.fromkeys(entry.section for entry in COMMANDS.values()):
            rows = [(name, entry.help) for name, entry in COMMANDS.items() if entry.section == section]
            with formatter.section(section):
                formatter.write_dl(rows)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fabric")
def fabric() -> None:
    """Replicated storage for container images, with an OCI registry in front."""
