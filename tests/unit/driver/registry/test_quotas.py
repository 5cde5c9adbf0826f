"""What an operator may write about quotas."""

from __future__ import annotations

import re
import tomllib
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.cli.registry import command as registry_group
from fabric.driver.registry.access.config import parse_table, quotas_of
from fabric.driver.registry.access.tables import Mistake
from fabric.driver.registry.quota.quotas import BadQuota, Quota, covers, make_quotas, parse_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (0, 0), (5, 5), ("7 B", 7), ("1kB", 1000), ("100 GB", 10**11), ("100 GiB", 100 * 2**30),
        ("1.5 TiB", 3 * 2**39), ("0.1 PB", 10**14), ("2 KiB", 2048), ("1 MB", 10**6),
        ("4095.999999999999999 PiB", 2**62 - 2),
    ],
)  # fmt: skip
def test_bytes(text: int | str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "100", "GB", "100 gb", "1 KB", "1 kiB", "-1 GB", "1e3 MB", "1. GB", "1  GB", "1 GB ", "1 EB",
     "9999 PB", -1, 2**62 + 1],
)  # fmt: skip
def test_what_is_no_number_of_bytes(text: int | str) -> None:
    with pytest.raises(BadQuota):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("repositories", "inside", "outside"),
    [
        ("team/app", ["team/app"], ["team", "team/app/sub", "team/apple", "other"]),
        ("team/**", ["team/app", "team/app/sub"], ["team", "teams/app", "other"]),
        ("**", ["team", "team/app"], []),
    ],
)
def test_what_a_quota_covers(repositories: str, inside: list[str], outside: list[str]) -> None:
    quota = Quota(repositories, 1)
    assert [name for name in [*inside, *outside] if quota.covers(name)] == inside


@pytest.mark.parametrize(
    "text", ["", "*", "team/*", "te*m", "**/app", "team**", "/**", "Team/**", "team//app", "a/**/b"]
)
def test_what_is_no_set_of_repositories(text: str) -> None:
    with pytest.raises(BadQuota):
        make_quotas([(text, 1)])


COMPONENTS = st.sampled_from(["a", "b", "a-b"])
NAMES = st.lists(COMPONENTS, min_size=1, max_size=3).map("/".join)
SETS = st.one_of(NAMES, NAMES.map(lambda name: f"{name}/**"), st.just("**"))


@given(st.lists(SETS, min_size=2, max_size=4), st.lists(NAMES, max_size=30))
def test_quotas_are_taken_together_only_if_no_repository_is_in_two(sets: list[str], names: list[str]) -> None:
    # A name in both of two sets that overlap is the longer of the two, or something right below it.
    candidates = [*names, *(each.replace("**", "a") for each in sets)]
    overlap = any(
        covers(one, name) and covers(other, name)
        for one, other in combinations(sets, 2)
        for name in candidates
    )
    try:
        make_quotas([(each, 1) for each in sets])
    except BadQuota:
        assert overlap
    else:
        assert not overlap


@pytest.mark.parametrize(
    ("entries", "mistake"),
    [
        ([{"repositories": "team/*", "bytes": 1}], "quota[1]: 'team/*' is neither"),
        (
            [{"repositories": "a", "bytes": 1}, {"repositories": "b", "bytes": "1 gb"}],
            "quota[2]: '1 gb' is no",
        ),
        (
            [{"repositories": "a/**", "bytes": 1}, {"repositories": "a/b", "bytes": 1}],
            "quota[2]: 'a/b' and 'a/**' have repositories in common",
        ),
        ([{"repositories": "a"}], "quota[1]: object missing required field `bytes`"),
        ([{"repositories": "a", "bytes": 1.5}], "quota[1].bytes"),
        ([{"repositories": "a", "bytes": 1, "files": 3}], "quota[1]: object contains unknown field `files`"),
    ],
)
def test_a_mistake_is_told_with_its_place(entries: list[object], mistake: str) -> None:
    with pytest.raises(Mistake) as error:
        quotas_of(parse_table({"quota": entries}))
    assert mistake in str(error.value)


def test_a_file_may_say_nothing_of_quotas_or_that_there_are_none() -> None:
    assert quotas_of(parse_table({})) is None
    assert quotas_of(parse_table({"quota": []})) == []


DOCUMENT = (Path(__file__).parents[4] / "docs/quota.md").read_text()


def test_the_example_of_the_document_is_good() -> None:
    (text,) = re.findall(r"^```toml\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert quotas_of(parse_table(tomllib.loads(text))) == [
        Quota("team/**", 10**11),
        Quota("team", 3 * 2**29),
    ]


def test_the_commands_of_the_document_parse() -> None:
    lines = re.findall(r"^\$ fabric registry quota ?([^\n]*)$", DOCUMENT, re.MULTILINE)
    assert len(lines) == 3
    command = registry_group.get_command(None, "quota")  # type: ignore[arg-type]
    assert command is not None
    for line in lines:
        with command.make_context("quota", line.split()):
            pass
