"""Which names a pattern describes."""

from __future__ import annotations

import pytest

from fabric.driver.registry.access.patterns import BadPattern, repository_patterns, tag_patterns


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("app", ["app"], ["apps", "app/x", "x/app", "ap"]),
        ("team/*", ["team/app"], ["team", "team/app/base", "teams/app"]),
        ("team/**", ["team/app", "team/app/base"], ["team", "teams/app", "x/team/app"]),
        ("**", ["app", "a/b/c"], []),
        ("*", ["app"], ["a/b"]),
        ("*/base", ["a/base"], ["base", "a/b/base", "a/base/c"]),
        ("**/base", ["a/base", "a/b/base"], ["base"]),
        ("team/*-dev", ["team/app-dev", "team/-dev"], ["team/app", "team/a/b-dev"]),
        ("a.b", ["a.b"], ["axb"]),
    ],
)
def test_repositories(pattern: str, matching: list[str], others: list[str]) -> None:
    patterns = repository_patterns([pattern])
    assert [name for name in matching + others if patterns.match(name)] == matching


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("latest", ["latest"], ["Latest", "latest-1"]),
        ("v*", ["v", "v1.2.3"], ["1v", "V1"]),
        ("*-rc*", ["1-rc", "1-rc2"], ["1-r"]),
        ("*", ["anything"], []),
    ],
)
def test_tags(pattern: str, matching: list[str], others: list[str]) -> None:
    patterns = tag_patterns([pattern])
    assert [tag for tag in matching + others if patterns.match(tag)] == matching


def test_one_of_several_is_enough() -> None:
    patterns = repository_patterns(["a", "b/**"])
    assert patterns.match("a") and patterns.match("b/c") and not patterns.match("b")


@pytest.mark.parametrize(
    "text", ["", "/a", "a//b", "a/", "Team/*", "a**", "**a", "a/***", "a b", "[ab]", "a?"]
)
def test_what_can_describe_no_repository_is_refused(text: str) -> None:
    with pytest.raises(BadPattern):
        repository_patterns([text])


@pytest.mark.parametrize("text", ["", "a/b", "v**", "a b", "é", "x" * 129])
def test_what_can_describe_no_tag_is_refused(text: str) -> None:
    with pytest.raises(BadPattern):
        tag_patterns([text])
