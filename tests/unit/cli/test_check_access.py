"""``fabric registry check-access``: explains decisions of a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fabric.cli.registry import command
from tests.unit.driver.registry.access.access_world import TOKENS, htpasswd, jwks, write

RULES = """
[users]
htpasswd = "people"

[[rules]]
repositories = ["team/**"]
who = ["alice", "ghost"]
may = ["pull", "push"]

[[rules]]
repositories = ["**"]
who = ["@everybody"]
may = ["pull"]
"""


def check(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(command, ["check-access", str(path), *arguments])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path, RULES, people=htpasswd(alice="x", bob="y"))


def test_a_good_file_in_one_line_and_names_without_a_password(path: Path) -> None:
    result = check(path)
    assert result.exit_code == 0
    assert result.stdout == (
        f"{path} is good: logins passwords, rules 2, TLS no, read-only no, immutable tags none\n"
    )
    assert result.stderr == "warning: 'ghost' has no password in people\n"


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        ("--as alice --on team/x --do push", 0, "yes: alice may pull and push on team/x (rule 1)"),
        ("--as bob --on team/x --do push", 1, "no: bob may pull on team/x (rule 2)"),
        ("--on team/x --do pull", 0, "yes: somebody without a login may pull on team/x (rule 2)"),
        ("--as alice --on team/x", 0, "alice may pull and push on team/x (rule 1)"),
        ("--as alice --on team/x --do delete", 1, "no: alice may pull and push on team/x (rule 1)"),
    ],
)
def test_a_decision_and_its_rule(path: Path, arguments: str, status: int, line: str) -> None:
    result = check(path, *arguments.split())
    assert (result.exit_code, result.stdout) == (status, line + "\n")


def test_what_no_rule_is_about(tmp_path: Path) -> None:
    nothing = check(write(tmp_path, "rules = []"), "--on", "a", "--do", "pull")
    assert nothing.exit_code == 1
    assert nothing.stdout == "no: somebody without a login may do nothing on a (no rule is about both)\n"
    everything = check(write(tmp_path, TOKENS, keys=jwks()), "--on", "a", "--do", "delete", "--as", "x")
    assert everything.exit_code == 0
    assert "there are no rules; the token must allow it too" in everything.stdout


def test_somebody_who_cannot_log_in_is_pointed_out(path: Path, tmp_path: Path) -> None:
    assert "'ghost' has no password" in check(path, "--as", "ghost", "--on", "team/x").stderr
    (tmp_path / "open").mkdir()
    assert "no logins" in check(write(tmp_path / "open", ""), "--as", "x", "--on", "a").stderr


@pytest.mark.parametrize("arguments", ["--as alice", "--do pull", "--on Team", "--on a --do fly"])
def test_wrong_usage(path: Path, arguments: str) -> None:
    assert check(path, *arguments.split()).exit_code == 2


def test_a_mistake_is_status_2_and_one_line(tmp_path: Path) -> None:
    result = check(write(tmp_path, "x = 1"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"Error: {tmp_path}/access.toml: object contains unknown field `x`\n"
