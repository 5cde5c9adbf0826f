"""What the documents for newcomers say holds: links lead somewhere, commands parse, settings exist."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from fabric.cli.admin import command as admin
from fabric.cli.root import fabric
from fabric.settings import settings_from

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
README = (ROOT / "README.md").read_text()
OPERATIONS = (ROOT / "docs/operations.md").read_text()
GARBAGE = (ROOT / "docs/garbage-collection.md").read_text()
WEBHOOKS = (ROOT / "docs/webhooks.md").read_text()


def _links() -> Iterator[tuple[Path, str]]:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
            if "://" not in target:
                yield document, target


@pytest.mark.parametrize(("document", "target"), list(_links()), ids=str)
def test_a_link_leads_to_a_file(document: Path, target: str) -> None:
    assert (document.parent / target).exists()


def _named_files() -> set[str]:
    text = README + (ROOT / "ARCHITECTURE.md").read_text()
    return set(re.findall(r"`((?:fabric|tests|docs)/[\w/]+\.(?:py|md))`", text))


@pytest.mark.parametrize("name", sorted(_named_files()))
def test_a_file_that_is_named_is_there(name: str) -> None:
    assert (ROOT / name).is_file()


def test_files_are_named_at_all() -> None:
    assert len(_named_files()) > 5


def _commands(document: str) -> list[list[str]]:
    """Every ``fabric …`` line of a document's consoles, without redirections and remarks."""
    lines = re.findall(r"^[\w-]*\$ +(?:\.venv/bin/)?fabric ([^#|\n]+)", document, re.MULTILINE)
    inline = re.findall(r"`fabric (\w[^`]*--[^`]*)`", document)
    return [shlex.split(line) for line in (*lines, *inline)]


def _operations() -> list[list[str]]:
    """Those of the operator's document; also where it names one in a sentence."""
    inline = re.findall(r"`fabric ((?:admin|chunk|stat|put|get) [^`]+)`", OPERATIONS)
    return [*_commands(OPERATIONS), *map(shlex.split, inline)]


def _parse(command: click.Command, arguments: list[str]) -> None:
    with command.make_context("fabric", list(arguments)) as context:
        if isinstance(command, click.Group) and (context._protected_args or context.args):
            rest = [*context._protected_args, *context.args]
            _, inner, rest = command.resolve_command(context, rest)
            assert inner is not None
            context.obj = {}
            _parse(inner, rest)


@pytest.mark.parametrize(
    "arguments",
    [*_commands(README), *_operations(), *_commands(GARBAGE), *_commands(WEBHOOKS)],
    ids=" ".join,
)
def test_a_command_that_is_shown_is_one(arguments: list[str]) -> None:
    _parse(fabric, arguments)


def test_the_operators_document_has_every_command_of_admin() -> None:
    shown = {tuple(arguments[1:3]) for arguments in _operations() if arguments[0] == "admin"}
    assert isinstance(admin, click.Group)
    wanted = {
        (name, inner)
        for name, command in admin.commands.items()
        for inner in (command.commands if isinstance(command, click.Group) else [""])
    }
    missing = {
        (name, inner)
        for name, inner in wanted
        if not any(seen[0] == name and inner in ("", *seen[1:]) for seen in shown)
    }
    assert missing == set()


def test_the_readme_shows_every_role_and_a_command_that_is_none_fails() -> None:
    assert {"master", "chunk", "proxy", "registry", "put", "admin"} <= {
        command[0] for command in _commands(README)
    }
    with pytest.raises(click.UsageError):
        _parse(fabric, ["up", "--replicats", "3"])
    with pytest.raises(click.UsageError):
        _parse(fabric, ["admin", "set-status", "chunk-2", "broken"])


def test_the_settings_of_the_readme_are_the_defaults() -> None:
    (block,) = re.findall(r"^```toml\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert settings_from(tomllib.loads(block)["settings"]) == settings_from({})
