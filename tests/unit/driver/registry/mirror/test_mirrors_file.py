"""A file of mirrors: what it means, and how its mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from fabric.driver.registry.access.tables import Mistake
from fabric.driver.registry.mirror.config import Mapped, MirrorTable, parse_mirrors
from fabric.driver.registry.mirror.load import MirrorsFileError, load_mirrors

GOOD = {"repositories": "hub/**", "upstream": "https://registry-1.docker.io"}

NAMES = [
    ({}, "hub/library/alpine", "library/alpine"),
    ({}, "hub/alpine", "alpine"),
    ({}, "hub", None),
    ({}, "hubs/alpine", None),
    ({}, "other/hub/alpine", None),
    ({"repositories": "**"}, "library/alpine", "library/alpine"),
    ({"repositories": "a/b/**"}, "a/b/c/d", "c/d"),
    ({"upstream_prefix": "library"}, "hub/alpine", "library/alpine"),
    ({"but_not": ["hub/our/**"]}, "hub/our/app", None),
    ({"but_not": ["hub/our/**"]}, "hub/ours/app", "ours/app"),
]


@pytest.mark.parametrize(("more", "name", "upstream_name"), NAMES)
def test_names_upstream(more: dict[str, object], name: str, upstream_name: str | None) -> None:
    table = parse_mirrors({"mirror": [GOOD | more]}).mirror[0]
    assert Mapped(table).upstream_name(name) == upstream_name


MISTAKES = [
    ({"repositories": "hub/*"}, "mirror[1].repositories"),
    ({"repositories": "/**"}, "mirror[1].repositories"),
    ({"repositories": "HUB/**"}, "mirror[1].repositories"),
    ({"repositories": "hub**"}, "mirror[1].repositories"),
    ({"upstream": "registry-1.docker.io"}, "mirror[1].upstream"),
    ({"upstream": "ftp://x"}, "mirror[1].upstream"),
    ({"upstream": "https://user:word@x"}, "mirror[1].upstream"),
    ({"upstream": "https://x/v2/"}, "mirror[1].upstream"),
    ({"upstream": "https://x:99999"}, "mirror[1].upstream"),
    ({"upstream": "https://x y"}, "mirror[1].upstream"),
    ({"upstream_prefix": "/x"}, "mirror[1].upstream_prefix"),
    ({"stale_for_s": -2}, "mirror[1].stale_for_s"),
    ({"timeout_s": 0}, "mirror[1].timeout_s"),
    ({"username_file": "name"}, "mirror[1].password_file"),
    ({"password_file": "word"}, "mirror[1].username_file"),
    ({"ca_file": "ca.pem", "upstream": "http://x"}, "mirror[1].ca_file"),
    ({"but_not": ["A"]}, "mirror[1].but_not"),
    ({"surprise": 1}, "mirror[1]"),
]


@pytest.mark.parametrize(("more", "key"), MISTAKES)
def test_a_mistake_is_told_with_its_key(more: dict[str, object], key: str) -> None:
    with pytest.raises(Mistake, match="^" + key.replace("[", r"\[").replace("]", r"\]") + ":"):
        parse_mirrors({"mirror": [GOOD | more]})


def test_two_mirrors_for_the_same_repositories() -> None:
    with pytest.raises(Mistake, match=r"mirror\[2\].repositories: mirror\[1\] is for these already"):
        parse_mirrors({"mirror": [GOOD, GOOD]})


def test_what_stands_by_default() -> None:
    table = parse_mirrors({"mirror": [GOOD]}).mirror[0]
    assert table == MirrorTable("hub/**", "https://registry-1.docker.io")
    assert (table.tag_fresh_s, table.stale_for_s) == (60, -1)
    assert parse_mirrors({}).mirror == []


def write(directory: Path, more: str) -> Path:
    path = directory / "mirrors.toml"
    path.write_text(f'[[mirror]]\nrepositories = "hub/**"\nupstream = "https://hub.example"\n{more}')
    return path


LOGIN = 'username_file = "name"\npassword_file = "word"\n'


def test_secrets_come_from_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "name").write_text("robot\n")
    (tmp_path / "word").write_text("pass word\n")
    (mirror,) = load_mirrors(write(tmp_path, LOGIN))
    assert (mirror.username, mirror.password) == ("robot", "pass word")


@pytest.mark.parametrize("content", [b"", b"two\nlines", b"\xff"])
def test_a_secret_is_one_line_of_text(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "name").write_text("robot")
    (tmp_path / "word").write_bytes(content)
    with pytest.raises(MirrorsFileError, match=r"mirror\[1\].password_file: .*word is not"):
        load_mirrors(write(tmp_path, LOGIN))


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(MirrorsFileError, match="cannot read"):
        load_mirrors(tmp_path / "absent.toml")
    with pytest.raises(MirrorsFileError, match=r"mirror\[1\].username_file: cannot read"):
        load_mirrors(write(tmp_path, LOGIN))
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(MirrorsFileError, match=r"mirror\[1\].ca_file: .* holds no certificates"):
        load_mirrors(write(tmp_path, 'ca_file = "ca.pem"'))
    (tmp_path / "bad.toml").write_text("[[")
    with pytest.raises(MirrorsFileError, match="not valid TOML"):
        load_mirrors(tmp_path / "bad.toml")
