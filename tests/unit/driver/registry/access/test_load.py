"""Access files: each mistake in one line with the file, the key and the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from fabric.driver.registry.access.config import unknown_users
from fabric.driver.registry.access.load import AccessFileError, load_access
from tests.unit.driver.registry.access.access_world import TOKENS, htpasswd, jwks, write
from tests.unit.driver.registry.access.certificates import make_certificate

USERS = '[users]\nhtpasswd = "people"\n'
RULE = '[[rules]]\nrepositories = ["app"]\nwho = ["alice"]\nmay = ["pull"]\n'


def test_an_empty_file_is_an_open_registry(tmp_path: Path) -> None:
    access = load_access(write(tmp_path, ""))
    assert access.passwords is None and access.trust is None and access.certificate is None
    assert not access.challenger.asks_for_login


def test_everything_at_once(tmp_path: Path) -> None:
    make_certificate(tmp_path, "server")
    text = f"""
    read_only = true
    {USERS}
    realm = "our images"
    [groups]
    builders = ["ci", "alice"]
    [[rules]]
    repositories = ["team/**"]
    who = ["@builders", "bob", "@users", "@everybody"]
    may = ["*"]
    [[immutable]]
    repositories = ["**"]
    tags = ["v*"]
    [tls]
    certificate = "server.crt"
    key = "server.key"
    [limits]
    requests_per_s = 10
    burst = 20
    concurrent_max = 5
    wrong_passwords_per_min = 3.5
    """
    access = load_access(write(tmp_path, text, people=htpasswd(alice="x")))
    assert access.passwords is not None and access.passwords.users == {"alice"}
    assert access.challenger.header("") == 'Basic realm="our images", charset="UTF-8"'
    assert access.certificate == (tmp_path / "server.crt", tmp_path / "server.key")
    assert unknown_users(access.table, access.passwords.users) == ["bob", "ci"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x = [", "not valid TOML: "),
        ("\0", "not valid TOML: "),
        ("read_onli = true", "object contains unknown field `read_onli`"),
        ('read_only = "yes"', "read_only: expected `bool`, got `str`"),
        ("[users]", "users: object missing required field `htpasswd`"),
        (
            '[users]\nhtpasswd = "nowhere"',
            "users.htpasswd: cannot read {dir}/nowhere: No such file or directory",
        ),
        ('[users]\nhtpasswd = "bad"', "users.htpasswd: {dir}/bad: line 1: not NAME:HASH"),
        (USERS + 'realm = "a\\"b"', "users.realm: must be visible ASCII without quotes and backslashes"),
        (
            USERS + TOKENS,
            "tokens: there is a [users] table too; clients are asked for one kind of login only",
        ),
        (
            TOKENS.replace("https://", "ftp://"),
            "tokens.realm: not the http:// or https:// address of a token server",
        ),
        (TOKENS.replace("registry.example.org", "a\\nb"), "tokens.service: must be visible ASCII"),
        (TOKENS.replace('"keys"', '"bad"'), "tokens.keys: {dir}/bad: neither PEM nor JSON"),
        (TOKENS + "leeway_s = 1000", "tokens.leeway_s: expected `float` <= 300.0"),
        (RULE + RULE.replace('"pull"', '"pul"'), "rules[2].may: 'pul' is none of pull, push, delete and *"),
        (RULE.replace('"alice"', "3"), "rules[1].who[1]: expected `str`, got `int`"),
        (RULE.replace('["alice"]', "[]"), "rules[1].who: expected `array` of length >= 1"),
        (RULE.replace("alice", "@buliders"), "rules[1].who: '@buliders' is no group of this file"),
        (RULE.replace('"app"', '"App"'), "rules[1].repositories: 'App' is no pattern of repositories"),
        (
            'immutable = [{repositories = ["A"], tags = ["v"]}]',
            "immutable[1].repositories: 'A' is no pattern",
        ),
        (
            'immutable = [{repositories = ["a"], tags = ["/"]}]',
            "immutable[1].tags: '/' is no pattern of tags",
        ),
        ('[groups]\nusers = ["a"]', "groups.users: not a name for a group"),
        ('[groups]\nall = ["@users"]', "groups.all: '@users' is not a user; groups hold no groups"),
        ("[limits]\nrequests_per_s = 0", "limits.requests_per_s: expected `float` > 0.0"),
        ("[limits]\nburst = 3", "limits.burst: means nothing without requests_per_s"),
        (
            '[tls]\ncertificate = "no"\nkey = "bad"',
            "tls.certificate: cannot read {dir}/no: No such file or directory",
        ),
        (
            '[tls]\ncertificate = "bad"\nkey = "bad"',
            "tls: {dir}/bad and {dir}/bad are no certificate and its key",
        ),
    ],
    ids=lambda value: value.splitlines()[0][:40] if value else "empty",
)
def test_a_mistake_is_one_line_with_file_key_and_reason(tmp_path: Path, text: str, line: str) -> None:
    path = write(tmp_path, text, people=htpasswd(alice="x"), bad="nonsense", keys=jwks())
    with pytest.raises(AccessFileError) as refused:
        load_access(path)
    assert str(refused.value).startswith(f"{path}: " + line.format(dir=tmp_path))
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AccessFileError) as refused:
        load_access(tmp_path / "x")
    assert str(refused.value) == f"cannot read {tmp_path}/x: No such file or directory"


def test_a_key_of_another_certificate_and_one_with_a_password_are_refused(tmp_path: Path) -> None:
    make_certificate(tmp_path, "one")
    make_certificate(tmp_path, "two")
    make_certificate(tmp_path, "locked", password="x")
    for certificate, key in (("one", "two"), ("locked", "locked")):
        path = write(tmp_path, f'[tls]\ncertificate = "{certificate}.crt"\nkey = "{key}.key"')
        with pytest.raises(AccessFileError, match="are no certificate and its key"):
            load_access(path)
