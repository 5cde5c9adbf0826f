"""Files of hooks: each mistake in one line with the file, the key and the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from fabric.driver.registry.hooks.config import HookTable
from fabric.driver.registry.hooks.load import HooksFileError, load_hooks
from fabric.driver.registry.hooks.wishes import Wish
from tests.unit.driver.registry.access.certificates import make_certificate

HOOK = '[[hook]]\nname = "ci"\nurl = "http://receiver.test/events"\n'
TLS = '[[hook]]\nname = "ci"\nurl = "https://receiver.test"\n'


def written(directory: Path, text: str) -> Path:
    path = directory / "hooks.toml"
    path.write_text(text)
    return path


def test_an_empty_file_has_no_hooks(tmp_path: Path) -> None:
    assert load_hooks(written(tmp_path, "")).hooks == ()


def test_what_is_not_said_has_a_default(tmp_path: Path) -> None:
    (hook,) = load_hooks(written(tmp_path, HOOK)).hooks
    assert hook.table == HookTable("ci", "http://receiver.test/events")
    assert (hook.table.timeout_s, hook.table.headers, hook.secret, hook.trusted) == (5.0, {}, b"", None)
    assert hook.wish == Wish("ci", ("push", "delete"), ("**",), 86_400.0)


def test_everything_at_once(tmp_path: Path) -> None:
    make_certificate(tmp_path, "server")
    (tmp_path / "hook.secret").write_text("a secret\n")
    text = """
    registry_url = "https://registry.example.org/"
    [[hook]]
    name = "audit.log-2"
    url = "https://[::1]:9000/events?of=registry"
    events = ["pull"]
    repositories = ["team/**", "tools"]
    secret_file = "hook.secret"
    headers = { Authorization = "Bearer abc def" }
    ca_file = "server.crt"
    timeout_s = 0.5
    retry_for_s = 60
    [[hook]]
    name = "ci"
    url = "http://127.0.0.1:9000"
    """
    file = load_hooks(written(tmp_path, text))
    assert file.registry_url == "https://registry.example.org"
    audit, ci = file.hooks
    assert (audit.secret, audit.trusted is not None) == (b"a secret", True)
    assert (audit.wish.wants("pull", "team/a/b"), audit.wish.wants("push", "team/a")) == (True, False)
    assert not audit.wish.wants("pull", "other")
    assert ci.name == "ci"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x = [", "not valid TOML: "),
        ("hooks = []", "object contains unknown field `hooks`"),
        ("[hook]\nname = 'ci'", "hook: expected `array`, got `object`"),
        ("[[hook]]\nurl = 'http://x/'", "hook[1]: object missing required field `name`"),
        (HOOK + "secret = 'x'", "hook[1]: object contains unknown field `secret`"),
        (HOOK + HOOK, "hook[2].name: hook[1] is called 'ci' too"),
        (HOOK.replace("ci", "../x"), "hook[1].name: a name has lower-case letters, digits, . _ and -"),
        (HOOK.replace("ci", ""), "hook[1].name: a name has"),
        (HOOK.replace("http:", "ftp:"), "hook[1].url: not an http:// or https:// address"),
        (HOOK.replace("receiver.test", ""), "hook[1].url: not an http:// or https:// address"),
        (HOOK.replace("receiver.test", "x:99999"), "hook[1].url: not an http:// or https:// address"),
        (HOOK.replace("receiver.test", "[::1"), "hook[1].url: not an http:// or https:// address"),
        (HOOK.replace("receiver.test", "a b"), "hook[1].url: not an http:// or https:// address"),
        (HOOK.replace("receiver", "me:secret@receiver"), "hook[1].url: an address is shown to people"),
        (HOOK.replace("events", "events#top"), "hook[1].url: a fragment (#) is never sent"),
        (HOOK + "events = []", "hook[1].events: expected `array` of length >= 1"),
        (HOOK + "events = ['push', 'pop']", "hook[1].events[2]: invalid enum value 'pop'"),
        (HOOK + "repositories = []", "hook[1].repositories: expected `array` of length >= 1"),
        (HOOK + "repositories = ['a/***']", "hook[1].repositories: 'a/***' is no pattern"),
        (HOOK + "headers = { Host = 'x' }", "hook[1].headers.Host: this header is set by the registry"),
        (HOOK + "headers = { 'a b' = 'x' }", "hook[1].headers.a b: not the name of a header"),
        (
            HOOK + 'headers = { A = "x\\ny" }',
            "hook[1].headers.A: must be",
        ),
        (HOOK + "headers = { A = 'ü' }", "hook[1].headers.A: must be visible ASCII"),
        (HOOK + "headers = { A = 1 }", "hook[1].headers: expected `str`, got `int`"),
        (HOOK + "timeout_s = 0", "hook[1].timeout_s: expected `float` > 0.0"),
        (HOOK + "timeout_s = 61", "hook[1].timeout_s: expected `float` <= 60.0"),
        (HOOK + "retry_for_s = 1", "hook[1].retry_for_s: expected `float` >= 60.0"),
        (HOOK + "retry_for_s = '1d'", "hook[1].retry_for_s: expected `float`, got `str`"),
        (HOOK + "ca_file = 'x'", "hook[1].ca_file: means nothing for an http:// address"),
        (
            HOOK + "secret_file = 'none'",
            "hook[1].secret_file: cannot read {dir}/none: No such file or directory",
        ),
        (HOOK + "secret_file = 'blank'", "hook[1].secret_file: {dir}/blank has no secret"),
        (TLS + "ca_file = 'none'", "hook[1].ca_file: cannot read {dir}/none: No such file"),
        (TLS + "ca_file = 'blank'", "hook[1].ca_file: {dir}/blank has no certificates"),
        ("registry_url = 'registry'", "registry_url: not an http:// or https:// address"),
        ("".join(HOOK.replace("ci", f"h{n}") for n in range(9)), "hook: 9 hooks, 8 at most"),
    ],
)
def test_a_mistake_is_told_with_its_key(tmp_path: Path, text: str, line: str) -> None:
    (tmp_path / "blank").write_text(" \n")
    path = written(tmp_path, text)
    with pytest.raises(HooksFileError) as error:
        load_hooks(path)
    told = str(error.value)
    assert told.startswith(f"{path}: " + line.replace("{dir}", str(tmp_path))), told
    assert "\n" not in told


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(HooksFileError, match=r"cannot read .*none: No such file or directory"):
        load_hooks(tmp_path / "none")
