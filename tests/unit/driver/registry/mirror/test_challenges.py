"""Logins: what upstreams say, honest ones and others."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from fabric.driver.registry.mirror.challenges import (
    TOKEN_S_MAX,
    BadAnswer,
    Challenge,
    parse_challenges,
    parse_token,
    token_url,
)

HUB = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull"'
SCOPE = "repository:a/b:pull"

PARSED = [
    ([HUB], [Challenge("bearer", {"realm": "https://auth.docker.io/token", "service": "registry.docker.io",
                                  "scope": SCOPE})]),
    (['Basic realm="a \\"quoted\\" one"'], [Challenge("basic", {"realm": 'a "quoted" one'})]),
    (["Basic realm=x, Bearer realm=y"],
     [Challenge("basic", {"realm": "x"}), Challenge("bearer", {"realm": "y"})]),
    (["Negotiate", "BASIC Realm=x"], [Challenge("negotiate", {}), Challenge("basic", {"realm": "x"})]),
    (["Negotiate , Basic realm=x"], [Challenge("negotiate", {}), Challenge("basic", {"realm": "x"})]),
    (['Bearer realm="unfinished'], [Challenge("bearer", {})]),
    (["", "===", '"'], []),
]  # fmt: skip


@pytest.mark.parametrize(("headers", "challenges"), PARSED)
def test_challenges(headers: list[str], challenges: list[Challenge]) -> None:
    assert parse_challenges(headers) == challenges


def test_an_endless_challenge_is_cut() -> None:
    (challenge,) = parse_challenges(["Bearer " + ",".join(f"k{n}=v" for n in range(100_000))])
    assert len(challenge.parameters) < 1000


def bearer(realm: str, **more: str) -> Challenge:
    return Challenge("bearer", {"realm": realm, **more})


def test_the_address_of_a_token() -> None:
    url = urlsplit(token_url(bearer("https://auth.example/t?a=1", service="hub & co"), SCOPE, "https://x"))
    assert (url.netloc, url.path) == ("auth.example", "/t")
    assert parse_qs(url.query) == {"a": ["1"], "service": ["hub & co"], "scope": [SCOPE]}
    assert token_url(bearer("http://auth.example/t"), SCOPE, "http://x").startswith("http://auth.example/t?")


REALMS = ["", "file:///etc/passwd", "gopher://x", "//auth", "https://", "https://a:b@c/", "http://[", "x:0"]


@pytest.mark.parametrize("realm", [*REALMS, "http://auth.example/in-the-clear"])
def test_credentials_go_to_no_such_place(realm: str) -> None:
    with pytest.raises(BadAnswer):
        token_url(bearer(realm), SCOPE, "https://upstream.example")


def test_tokens() -> None:
    assert parse_token(b'{"token": "abc", "expires_in": 300}', now=1000).expires_at == 1290
    assert parse_token(b'{"access_token": "abc"}', now=1000).expires_at == 1050
    assert parse_token(b'{"token": "abc", "expires_in": 4}', now=1000).expires_at == 1002
    assert parse_token(b'{"token": "abc", "expires_in": 1e300}', now=0).expires_at < TOKEN_S_MAX
    assert parse_token(b'{"token": "abc", "expires_in": -5}', now=0).expires_at == 50
    assert parse_token(b'{"token": "abc", "expires_in": "soon"}', now=0).text == "abc"


ANSWERS = [b"", b"\xff", b"[]", b"{}", b'{"token": 7}', b'{"token": "a\\nb"}', b'{"token": ""}', b"[" * 10**5]


@pytest.mark.parametrize("body", ANSWERS)
def test_answers_without_a_token(body: bytes) -> None:
    with pytest.raises(BadAnswer):
        parse_token(body, now=0)
