"""Manifests through a mirror: asked for as seldom as possible, served without the upstream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from aiohttp import web

from fabric.driver.registry.access.config import parse_table, policy_of
from fabric.driver.registry.access.gate import Gate
from fabric.driver.registry.access.load import Access
from fabric.driver.registry.mirror.upstream import OWN_NAME
from fabric.errors import NoWritableGroup
from tests.unit.driver.registry.harness import OCI_MANIFEST, Registry, asynchronous, image, refused, sha256
from tests.unit.driver.registry.memory_store import MemoryStore
from tests.unit.driver.registry.mirror.fake_upstream import fake_upstream, mirror_of

TAG = "/v2/hub/app/manifests/v1"


@asynccontextmanager
async def mirror_of_a_stopped_upstream(**options: float) -> AsyncIterator[tuple[Registry, bytes]]:
    """A mirror that has fetched ``v1`` from an upstream which is gone now."""
    async with AsyncExitStack() as mirrors:
        async with fake_upstream() as upstream:
            manifest = upstream.add_image("v1", b"layer")
            client = await mirrors.enter_async_context(mirror_of(upstream.url, **options))
            assert (await client.call("GET", TAG)).body == manifest
        yield client, manifest


@asynchronous
async def test_a_tag_is_fetched_once_and_is_fresh_for_a_while() -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url) as client:
        manifest = upstream.add_image("v1", b"layer")
        for method in ("HEAD", "GET", "GET"):
            answer = await client.call(method, TAG)
            assert (answer.status, answer.headers["Docker-Content-Digest"]) == (200, sha256(manifest))
            assert answer.headers["Content-Type"] == OCI_MANIFEST
            assert "Warning" not in answer.headers
        assert answer.body == manifest
        assert (await client.call("GET", f"/v2/hub/app/manifests/{sha256(manifest)}")).body == manifest
        assert dict(upstream.asked) == {"GET manifests": 1}
        assert "application/vnd.oci.image.index.v1+json" in upstream.headers[0]["Accept"]


@asynchronous
async def test_an_old_tag_costs_a_head_until_it_has_changed() -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url, tag_fresh_s=0) as client:
        first = upstream.add_image("v1", b"one")
        for _ in range(3):
            assert (await client.call("GET", TAG)).body == first
        assert dict(upstream.asked) == {"GET manifests": 1, "HEAD manifests": 2}
        assert upstream.headers[-1]["If-None-Match"] == f'"{sha256(first)}"'

        second = upstream.add_image("v1", b"two")
        assert (await client.call("GET", TAG)).body == second
        assert dict(upstream.asked) == {"GET manifests": 2, "HEAD manifests": 3}
        assert (await client.call("GET", f"/v2/hub/app/manifests/{sha256(first)}")).body == first


@asynchronous
async def test_an_upstream_that_knows_no_conditions() -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url, tag_fresh_s=0) as client:
        upstream.add_image("v1", b"one")

        async def unconditional(request: web.Request) -> web.StreamResponse:
            headers = {key: value for key, value in request.headers.items() if key != "If-None-Match"}
            return await upstream.usual(request.clone(headers=headers))

        upstream.answering = unconditional
        await client.call("GET", TAG)
        assert (await client.call("GET", TAG)).status == 200
        assert dict(upstream.asked) == {"GET manifests": 1, "HEAD manifests": 1}


@asynchronous
async def test_many_at_once_are_one_request() -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url) as client:
        manifest = upstream.add_image("v1", b"layer")
        arrived = asyncio.Event()

        async def slow(request: web.Request) -> web.StreamResponse:
            arrived.set()
            await upstream.gate.wait()
            return await upstream.usual(request)

        upstream.answering = slow
        upstream.gate.clear()
        calls = [asyncio.create_task(client.call("GET", TAG)) for _ in range(50)]
        await arrived.wait()
        upstream.gate.set()
        assert {answer.body for answer in await asyncio.gather(*calls)} == {manifest}
        assert dict(upstream.asked) == {"GET manifests": 1}


@asynchronous
async def test_without_the_upstream_a_stale_tag_is_served_with_a_warning() -> None:
    async with mirror_of_a_stopped_upstream(tag_fresh_s=0) as (client, manifest):
        for method in ("GET", "HEAD"):
            answer = await client.call(method, TAG)
            assert (answer.status, answer.headers["Warning"]) == (200, '110 - "Response is Stale"')
        digest = await client.call("GET", f"/v2/hub/app/manifests/{sha256(manifest)}")
        assert (digest.status, "Warning" in digest.headers) == (200, False)
        answer = await client.call("GET", "/v2/hub/app/manifests/other")
        refused(503, "UPSTREAM_UNAVAILABLE", answer)
        assert int(answer.headers["Retry-After"]) >= 1
        tags = await client.call("GET", "/v2/hub/app/tags/list")
        assert (tags.json["tags"], "Warning" in tags.headers) == (["v1"], True)


@asynchronous
async def test_not_for_longer_than_it_may() -> None:
    async with mirror_of_a_stopped_upstream(tag_fresh_s=0, stale_for_s=0) as (client, _):
        await asyncio.sleep(0.01)  # it has an age
        refused(503, "UPSTREAM_UNAVAILABLE", await client.call("GET", TAG))


@asynchronous
async def test_a_fresh_tag_needs_no_upstream() -> None:
    async with mirror_of_a_stopped_upstream() as (client, manifest):
        answer = await client.call("GET", TAG)
        assert (answer.body, "Warning" in answer.headers) == (manifest, False)


@asynchronous
async def test_a_failing_upstream_is_left_alone_for_a_while() -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url, tag_fresh_s=0) as client:
        manifest = upstream.add_image("v1", b"layer")
        await client.call("GET", TAG)
        for status in (500, 503, 429):
            upstream.asked.clear()

            async def failing(request: web.Request, status: int = status) -> web.StreamResponse:
                return web.Response(status=status, headers={"Retry-After": "1"})

            upstream.answering = failing
            for _ in range(3):
                answer = await client.call("GET", TAG)
                assert (answer.body, "Warning" in answer.headers) == (manifest, True)
            assert upstream.asked.total() <= 1
        refused(429, "TOOMANYREQUESTS", await client.call("GET", "/v2/hub/app/manifests/v2"))


@asynchronous
async def test_a_silent_upstream_costs_its_timeout_once() -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url, tag_fresh_s=0, timeout_s=0.5) as client:
        manifest = upstream.add_image("v1", b"layer")
        await client.call("GET", TAG)

        async def silent(request: web.Request) -> web.StreamResponse:
            await upstream.gate.wait()
            return web.Response()

        upstream.answering = silent
        upstream.gate.clear()
        async with asyncio.timeout(8):
            for _ in range(20):
                assert (await client.call("GET", TAG)).body == manifest
        refused(503, "UPSTREAM_UNAVAILABLE", await client.call("GET", "/v2/hub/app/manifests/v2"))


@asynchronous
async def test_what_the_upstream_does_not_have_is_remembered() -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url) as client:
        for reference in ("v9", sha256(b"nothing")):
            for _ in range(3):
                answer = await client.call("GET", f"/v2/hub/app/manifests/{reference}")
                refused(404, "MANIFEST_UNKNOWN", answer)
        assert upstream.asked.total() == 2
        refused(404, "MANIFEST_UNKNOWN", await client.call("GET", "/v2/hub/app/manifests/-not-a-tag"))
        refused(400, "DIGEST_INVALID", await client.call("GET", "/v2/hub/app/manifests/sha256:1"))
        assert upstream.asked.total() == 2


@asynchronous
async def test_a_tag_deleted_upstream_is_deleted_here_and_can_be_restored() -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url, tag_fresh_s=0) as client:
        manifest = upstream.add_image("v1", b"layer")
        await client.call("GET", TAG)
        del upstream.manifests["v1"]
        refused(404, "MANIFEST_UNKNOWN", await client.call("GET", TAG))
        assert not client.store.paths("repositories/hub/app/_tags/")
        assert client.store.paths("repositories/hub/app/_history/tags/v1/")
        assert (await client.call("GET", f"/v2/hub/app/manifests/{sha256(manifest)}")).body == manifest


@asynchronous
async def test_a_page_of_a_proxy_deletes_nothing() -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url, tag_fresh_s=0) as client:
        manifest = upstream.add_image("v1", b"layer")
        await client.call("GET", TAG)

        async def portal(request: web.Request) -> web.StreamResponse:
            return web.Response(status=404, text="<html>Please log in to the network</html>")

        upstream.answering = portal
        answer = await client.call("GET", TAG)
        assert (answer.body, "Warning" in answer.headers) == (manifest, True)


@asynchronous
async def test_nothing_wrong_is_stored() -> None:
    good = image(b"{}", [b"layer"])
    wrong = {
        "another digest": ({"Docker-Content-Digest": sha256(b"other")}, good),
        "another type": ({"Content-Type": "text/html"}, good),
        "no JSON": ({"Content-Type": OCI_MANIFEST}, b"<html>"),
        "layers and manifests": (
            {"Content-Type": OCI_MANIFEST}, json.dumps({**json.loads(good), "manifests": []}).encode(),
        ),
        "too large": ({"Content-Type": OCI_MANIFEST}, good + b" " * 5_000_000),
        "encoded": ({"Content-Type": OCI_MANIFEST, "Content-Encoding": "gzip"}, good),
    }  # fmt: skip
    async with fake_upstream() as upstream, mirror_of(upstream.url) as client:
        for what, (headers, body) in wrong.items():

            async def answer(
                request: web.Request, headers: dict[str, str] = headers, body: bytes = body
            ) -> web.StreamResponse:
                return web.Response(headers=headers, body=body)

            upstream.answering = answer
            refused(502, "UPSTREAM_INVALID", await client.call("GET", TAG))
            assert not client.store.entries, what
        refused(502, "UPSTREAM_INVALID", await client.call("GET", f"/v2/hub/app/manifests/{sha256(b'x')}"))
        assert not client.store.entries


@asynchronous
async def test_an_endless_manifest_is_cut() -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url) as client:

        async def endless(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            try:
                while True:
                    await response.write(b" " * 65536)
            except ConnectionError:
                return response

        upstream.answering = endless
        refused(502, "UPSTREAM_INVALID", await client.call("GET", TAG))


@asynchronous
async def test_nothing_is_pushed_to_a_mirror_and_what_is_deleted_comes_again() -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url) as client:
        manifest = upstream.add_image("v1", b"layer")
        refused(403, "DENIED", await client.push_manifest(manifest, "v1", "hub/app"))
        refused(403, "DENIED", await client.call("POST", "/v2/hub/app/blobs/uploads/"))
        assert (await client.call("GET", TAG)).status == 200
        assert (await client.call("DELETE", TAG)).status == 202
        assert (await client.call("GET", TAG)).status == 200
        await client.push_image(name="own")  # other repositories are as ever
        assert (await client.call("GET", "/v2/own/manifests/absent")).status == 404
        assert upstream.asked["GET manifests"] == 2


@asynchronous
async def test_the_first_protocol_cannot_push_to_a_mirror_either() -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url, v1=True) as client:
        answer = await client.call("PUT", "/v1/repositories/hub/app/tags/v1", data=b'"' + b"a" * 64 + b'"')
        assert (answer.status, upstream.url in answer.json["error"]) == (403, True)


@asynchronous
async def test_an_immutable_tag_stays_what_it_is() -> None:
    table = parse_table({"immutable": [{"repositories": ["hub/**"], "tags": ["v*"]}]})
    gate = Gate(Access(table=table, policy=policy_of(table)))
    async with fake_upstream() as upstream, mirror_of(upstream.url, tag_fresh_s=0, gate=gate) as client:
        first = upstream.add_image("v1", b"one")
        await client.call("GET", TAG)
        upstream.add_image("v1", b"two")
        answer = await client.call("GET", TAG)
        assert (answer.body, "Warning" in answer.headers) == (first, True)
        del upstream.manifests["v1"]
        assert (await client.call("GET", TAG)).body == first


@asynchronous
async def test_lists_are_the_upstreams() -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url) as client:

        async def lists(request: web.Request) -> web.StreamResponse:
            link = f'</v2/app/{request.path.partition("/app/")[2]}?n=2&last=b>; rel="next"'
            document = {"name": "app", "tags": ["a", "b"], "manifests": [{"digest": request.path}]}
            headers = {"Link": link, "OCI-Filters-Applied": "artifactType"}
            return web.json_response({**document, "query": request.query_string}, headers=headers)

        upstream.answering = lists
        answer = await client.call("GET", "/v2/hub/app/tags/list?n=2")
        assert answer.json == {"name": "hub/app", "tags": ["a", "b"]}
        assert answer.headers["Link"] == '</v2/hub/app/tags/list?n=2&last=b>; rel="next"'
        subject = sha256(b"subject")
        answer = await client.call("GET", f"/v2/hub/app/referrers/{subject}?artifactType=x%2Fy")
        assert answer.json["manifests"] == [{"digest": f"/v2/app/referrers/{subject}"}]
        assert (answer.json["query"], answer.headers["OCI-Filters-Applied"]) == (
            "artifactType=x/y",
            "artifactType",
        )
        upstream.answering = None
        answer = await client.call("GET", f"/v2/hub/app/referrers/{subject}")
        assert (answer.status, answer.json["manifests"], "Warning" in answer.headers) == (200, [], True)
        refused(404, "NAME_UNKNOWN", await client.call("GET", "/v2/hub/absent/tags/list"))


@asynchronous
async def test_two_mirrors_of_each_other_make_no_circle() -> None:
    async with mirror_of("http://127.0.0.1:1") as one:
        answer = await one.call("GET", TAG, headers={"Via": "1.1 fabric-other"})
        assert answer.status == 503
        answer = await one.call("GET", TAG, headers={"Via": f"1.1 fabric-other, 1.1 {OWN_NAME}"})
        assert answer.status == 508


@asynchronous
async def test_an_upstream_that_never_says_digests_fills_no_history() -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url, tag_fresh_s=0) as client:
        manifest = upstream.add_image("v1", b"layer")

        async def terse(request: web.Request) -> web.StreamResponse:
            return web.Response(body=manifest, headers={"Content-Type": OCI_MANIFEST})

        upstream.answering = terse
        for _ in range(3):
            assert (await client.call("GET", TAG)).body == manifest
        assert len(client.store.paths("repositories/hub/app/_history/tags/v1/")) == 1


@asynchronous
async def test_a_store_that_takes_nothing_withholds_nothing() -> None:
    async with fake_upstream() as upstream, mirror_of(upstream.url, tag_fresh_s=0) as client:
        first = upstream.add_image("v1", b"one")
        await client.call("GET", TAG)
        upstream.add_image("v1", b"two")
        client.store.fail("stage", NoWritableGroup("full"))
        answer = await client.call("GET", TAG)
        assert (answer.body, "Warning" in answer.headers) == (first, True)
        client.store.fail("stage", NoWritableGroup("full"))
        assert (await client.call("GET", "/v2/hub/app/manifests/v9")).status == 404
        upstream.add_image("v2", b"three")
        refused(503, "NO_WRITABLE_GROUP", await client.call("GET", "/v2/hub/app/manifests/v2"))


@asynchronous
async def test_an_absence_of_a_moment_ago_deletes_no_tag_that_came_since() -> None:
    store = MemoryStore()
    async with (
        fake_upstream() as upstream,
        mirror_of(upstream.url, store=store, tag_fresh_s=0) as one,
        mirror_of(upstream.url, store=store, tag_fresh_s=0) as other,
    ):
        assert (await one.call("GET", TAG)).status == 404
        first = upstream.add_image("v1", b"one")
        assert (await other.call("GET", TAG)).body == first
        second = upstream.add_image("v1", b"two")
        assert (await one.call("GET", TAG)).body == second


@asynchronous
async def test_rules_hold_before_the_upstream_is_asked() -> None:
    rules = [
        {"repositories": ["hub/app"], "who": ["@everybody"], "may": ["pull"]},
        {"repositories": ["hub/**"], "who": ["root"], "may": ["*"]},
    ]
    table = parse_table({"rules": rules})
    gate = Gate(Access(table=table, policy=policy_of(table)))
    async with fake_upstream() as upstream, mirror_of(upstream.url, gate=gate) as client:
        manifest = upstream.add_image("v1", b"layer")
        for path in ("manifests/v1", f"blobs/{sha256(b'layer')}", "tags/list"):
            refused(403, "DENIED", await client.call("GET", f"/v2/hub/secret/{path}"))
        refused(403, "DENIED", await client.call("DELETE", TAG))
        assert not upstream.asked
        assert (await client.call("GET", TAG)).body == manifest
