"""The Authorization header, taken apart."""

from __future__ import annotations

import base64

import pytest

from fabric.driver.registry.access.credentials import BadCredentials, Password, Token, read_authorization


def basic(data: bytes, scheme: str = "Basic") -> list[str]:
    return [f"{scheme} {base64.b64encode(data).decode()}"]


def test_what_clients_send() -> None:
    assert read_authorization([]) is None
    assert read_authorization(basic(b"alice:pa:ss")) == Password("alice", b"pa:ss")
    assert read_authorization(basic("ålice:pæss".encode(), "bAsIc")) == Password("ålice", "pæss".encode())
    assert read_authorization(["Bearer a.b.c"]) == Token("a.b.c")
    assert read_authorization(["bearer  a.b.c "]) == Token("a.b.c")


def test_an_empty_login_is_none() -> None:
    assert read_authorization(basic(b":")) is None
    assert read_authorization(basic(b":x")) == Password("", b"x")
    assert read_authorization(basic(b"alice:")) == Password("alice", b"")


@pytest.mark.parametrize(
    "values",
    [
        [""],
        ["Basic"],
        ["Bearer"],
        ["Bearer "],
        ["Digest username=x"],
        ["Basic !!!!"],
        ["Basic YWxpY2U"],
        basic(b"alice"),
        basic(b"\xff\xfe:x"),
        [*basic(b"a:b"), *basic(b"c:d")],
    ],
    ids=repr,
)
def test_what_cannot_be_read_is_refused(values: list[str]) -> None:
    with pytest.raises(BadCredentials):
        read_authorization(values)
