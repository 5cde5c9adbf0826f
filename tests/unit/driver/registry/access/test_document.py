"""What ``docs/access.md`` shows is what the code takes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from fabric.cli.root import fabric
from fabric.driver.registry.access.config import AccessTable, challenger_of, parse_table, policy_of
from fabric.driver.registry.access.policy import Identity

DOCUMENT = (Path(__file__).parents[5] / "docs/access.md").read_text()
EXAMPLES = re.findall(r"^```toml\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES, ids=["passwords", "tokens"])
def test_an_example_is_a_good_file(text: str) -> None:
    table = parse_table(tomllib.loads(text))
    policy_of(table)
    assert challenger_of(table).asks_for_login


def test_what_it_says_of_its_example() -> None:
    policy = policy_of(parse_table(tomllib.loads(EXAMPLES[0])))

    def decided(user: str) -> tuple[set[str], int]:
        decision = policy.decide(Identity(user), "team/app")
        return {right.value for right in decision.may}, decision.rule

    assert decided("ci") == ({"pull", "push"}, 1)
    assert decided("root") == ({"pull"}, 2)


def test_every_key_is_explained() -> None:
    keys = {field.encode_name for field in msgspec.structs.fields(AccessTable)}
    for table in AccessTable.__annotations__.values():
        for kind in re.findall(r"\w+Table", str(table)):
            module = __import__("fabric.driver.registry.access.config", fromlist=[kind])
            keys |= {field.encode_name for field in msgspec.structs.fields(getattr(module, kind))}
    assert len(keys) > 20
    assert {key for key in keys if key not in DOCUMENT} == set()


def test_its_commands_parse() -> None:
    lines = re.findall(r"^\$ fabric ([^#\n]+)", DOCUMENT, re.MULTILINE)
    assert len(lines) == 4
    for line in lines:
        name, *arguments = line.split()
        command = fabric.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        if arguments[0] == "check-access":
            command, arguments = command.get_command(None, arguments[0]), arguments[1:]  # type: ignore[attr-defined]
        with command.make_context(name, arguments):
            pass
