"""Logins at an upstream, and redirects away from it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from aiohttp import web

from tests.unit.driver.registry.access.certificates import make_certificate
from tests.unit.driver.registry.harness import asynchronous, refused, sha256
from tests.unit.driver.registry.mirror.fake_upstream import FakeUpstream, fake_upstream, mirror_of

TAG = "/v2/hub/app/manifests/v1"
BASIC = "Basic cm9ib3Q6d29yZA=="


def asks_for_tokens(upstream: FakeUpstream, tokens: FakeUpstream, realm: str = "") -> list[web.Request]:
    """Let ``upstream`` want tokens that ``tokens`` gives; the requests for tokens."""
    asked: list[web.Request] = []

    async def token(request: web.Request) -> web.StreamResponse:
        asked.append(request)
        return web.json_response({"token": f"t{len(asked)}", "expires_in": 300})

    async def guarded(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") == f"Bearer t{len(asked)}":
            return await upstream.usual(request)
        where = realm or f"{tokens.url}/token/x/y"
        challenge = f'Bearer realm="{where}",service="hub",scope="repository:somebody-else:pull"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    tokens.answering, upstream.answering = token, guarded
    return asked


@asynchronous
async def test_a_token_is_fetched_and_kept() -> None:
    async with fake_upstream() as upstream, fake_upstream() as tokens:
        asked = asks_for_tokens(upstream, tokens)
        manifest = upstream.add_image("v1", b"layer")
        async with mirror_of(upstream.url, tag_fresh_s=0) as client:
            for _ in range(3):
                assert (await client.call("GET", TAG)).body == manifest
            assert (await client.call("GET", f"/v2/hub/app/blobs/{sha256(b'layer')}")).body == b"layer"
            assert len(asked) == 1
            query = parse_qs(asked[0].query_string)
            assert query == {"service": ["hub"], "scope": ["repository:app:pull"]}
            assert "Authorization" not in asked[0].headers
            # One that the upstream does not take any more is replaced.
            asked.append(asked[0])
            assert (await client.call("GET", TAG)).body == manifest
            assert len(asked) == 3


@asynchronous
async def test_credentials_are_for_the_token_server_only() -> None:
    async with fake_upstream() as upstream, fake_upstream() as tokens:
        asked = asks_for_tokens(upstream, tokens)
        manifest = upstream.add_image("v1", b"layer")
        async with mirror_of(upstream.url, username="robot") as client:
            assert (await client.call("GET", TAG)).body == manifest
        assert asked[0].headers["Authorization"] == BASIC
        assert {headers.get("Authorization") for headers in upstream.headers} == {None, "Bearer t1"}


@asynchronous
async def test_basic_credentials() -> None:
    async with fake_upstream() as upstream:
        manifest = upstream.add_image("v1", b"layer")

        async def guarded(request: web.Request) -> web.StreamResponse:
            if request.headers.get("Authorization") == BASIC:
                return await upstream.usual(request)
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})

        upstream.answering = guarded
        async with mirror_of(upstream.url, username="robot", tag_fresh_s=0) as client:
            for _ in range(2):
                assert (await client.call("GET", TAG)).body == manifest
        assert upstream.asked.total() == 3, "asked without once, and never again"
        async with mirror_of(upstream.url) as client:
            refused(403, "DENIED", await client.call("GET", TAG))


@asynchronous
async def test_a_denied_tag_that_is_here_is_served_stale() -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url, tag_fresh_s=0) as client:
        manifest = upstream.add_image("v1", b"layer")
        await client.call("GET", TAG)

        async def denied(request: web.Request) -> web.StreamResponse:
            return web.Response(status=403)

        upstream.answering = denied
        answer = await client.call("GET", TAG)
        assert (answer.body, "Warning" in answer.headers) == (manifest, True)


@asynchronous
async def test_realms_that_nobody_follows() -> None:
    for realm in ("file:///etc/passwd", "gopher://127.0.0.1/", "nowhere"):
        async with fake_upstream() as upstream, mirror_of(upstream.url, username="robot") as client:
            upstream.add_image("v1", b"layer")
            asks_for_tokens(upstream, upstream, realm)
            answer = await client.call("GET", TAG)
            assert answer.status == 502, answer.body


@asynchronous
async def test_a_token_server_that_answers_nonsense_or_nothing() -> None:
    async with fake_upstream() as upstream, fake_upstream() as tokens:
        upstream.add_image("v1", b"layer")
        asks_for_tokens(upstream, tokens)

        async def endless(request: web.Request) -> web.StreamResponse:
            return web.Response(body=b" " * 100_000)

        async def silent(request: web.Request) -> web.StreamResponse:
            await tokens.gate.wait()
            return web.Response()

        async with mirror_of(upstream.url, timeout_s=1.0) as client:
            for answering, status in ((tokens.usual, 502), (endless, 502), (silent, 503)):
                tokens.answering = answering
                tokens.gate.clear()
                async with asyncio.timeout(5):
                    assert (await client.call("GET", TAG)).status == status


@asynchronous
async def test_a_redirect_is_followed_without_credentials() -> None:
    async with fake_upstream() as upstream, fake_upstream() as network:
        data = b"from the delivery network" * 1000
        network.blobs[sha256(data)] = data

        async def redirecting(request: web.Request) -> web.StreamResponse:
            if "Authorization" not in request.headers:
                return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
            url = f"{network.url}/cdn/blobs/{sha256(data)}?signature=a%2Bb"
            return web.Response(status=307, headers={"Location": url})

        upstream.answering = redirecting
        async with mirror_of(upstream.url, username="robot") as client:
            assert (await client.call("GET", f"/v2/hub/app/blobs/{sha256(data)}")).body == data
        assert len(network.headers) == 1 and "Authorization" not in network.headers[0]


@asynchronous
async def test_redirects_that_nobody_follows() -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url) as client:
        for location in ("/v2/round/and/round", "file:///etc/passwd", "", "http://[", "http://x:99999999/"):

            async def redirecting(request: web.Request, location: str = location) -> web.StreamResponse:
                return web.Response(status=302, headers={"Location": location})

            upstream.answering = redirecting
            upstream.asked.clear()
            answer = await client.call("GET", f"/v2/hub/app/blobs/{sha256(location.encode())}")
            assert answer.status in (502, 503), (location, answer.body)
            assert upstream.asked.total() <= 6


@pytest.fixture
def contexts(tmp_path: Path) -> Callable[[], tuple[ssl.SSLContext, ssl.SSLContext]]:
    """A server's context, and that of who trusts it."""
    make_certificate(tmp_path, "server")

    def make() -> tuple[ssl.SSLContext, ssl.SSLContext]:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
        return server, ssl.create_default_context(cafile=str(tmp_path / "server.crt"))

    return make


@asynchronous
async def test_an_upstream_behind_tls(contexts: Callable[[], tuple[ssl.SSLContext, ssl.SSLContext]]) -> None:
    server, trusting = contexts()
    async with fake_upstream(server) as upstream:
        manifest = upstream.add_image("v1", b"layer")
        async with mirror_of(upstream.url, trusted=trusting) as client:
            assert (await client.call("GET", TAG)).body == manifest
        async with mirror_of(upstream.url) as client:
            refused(503, "UPSTREAM_UNAVAILABLE", await client.call("GET", TAG))


@asynchronous
async def test_nothing_leads_from_tls_to_a_place_without(
    contexts: Callable[[], tuple[ssl.SSLContext, ssl.SSLContext]],
) -> None:
    server, trusting = contexts()
    async with fake_upstream(server) as upstream, fake_upstream() as plain:
        upstream.add_image("v1", b"layer")

        async def redirecting(request: web.Request) -> web.StreamResponse:
            return web.Response(status=302, headers={"Location": plain.url + request.path})

        async with mirror_of(upstream.url, trusted=trusting, username="robot") as client:
            upstream.answering = redirecting
            refused(502, "UPSTREAM_INVALID", await client.call("GET", TAG))
            asks_for_tokens(upstream, plain)
            refused(502, "UPSTREAM_INVALID", await client.call("GET", TAG))
        assert not plain.asked
