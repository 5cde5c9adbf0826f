"""Many clients that come, go, stall and want parts, at an upstream whose connections break, on one seed."""

from __future__ import annotations

import asyncio
import random

import aiohttp
import pytest
from aiohttp import web

from fabric.driver.registry.mirror import decisions, transfer
from fabric.settings import KIB, MIB
from tests.unit.driver.registry.harness import Registry, asynchronous, sha256
from tests.unit.driver.registry.mirror.fake_upstream import (
    FakeUpstream,
    fake_upstream,
    mirror_of,
    random_bytes,
)

DATA = random_bytes(4 * MIB + 321)
PATH = f"/v2/hub/app/blobs/{sha256(DATA)}"
CLIENTS = 12


@pytest.mark.parametrize("seed", range(8))
@asynchronous
async def test_a_whole_answer_is_always_right(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "WINDOW_BYTES", 512 * KIB)
    monkeypatch.setattr(transfer, "SEGMENT_BYTES", 256 * KIB)
    monkeypatch.setattr(decisions, "FINISH_BYTES_MAX", 256 * KIB)
    rng = random.Random(seed)
    async with fake_upstream() as upstream, mirror_of(upstream.url, rest_s=0.0) as client:
        upstream.blobs[sha256(DATA)] = DATA
        upstream.answering = breaking(upstream, rng)
        await asyncio.gather(*(one_client(client, rng) for _ in range(CLIENTS)))

        upstream.answering = None
        async with asyncio.timeout(20):
            assert (await client.call("GET", PATH)).body == DATA, f"seed {seed}"
            while client.store.paths("uploads/"):
                await asyncio.sleep(0.01)
        assert client.store.content(client.store.paths("blobs/")[0]) == DATA


def breaking(upstream: FakeUpstream, rng: random.Random):  # type: ignore[no-untyped-def]
    """Break off, or refuse, now and then."""

    async def answer(request: web.Request) -> web.StreamResponse:
        luck = rng.random()
        if luck < 0.1:
            return web.Response(status=503)
        start = request.http_range.start or 0
        if luck < 0.5:
            return await upstream.send_blob(request, DATA, cut_at=rng.randrange(start, len(DATA)))
        return await upstream.usual(request)

    return answer


async def one_client(client: Registry, rng: random.Random) -> None:
    """Come after a moment, and want all, a part, or only the beginning."""
    await asyncio.sleep(rng.uniform(0, 0.2))
    wish = rng.choice(["whole", "whole", "part", "leave"])
    start = rng.randrange(len(DATA)) if wish == "part" else 0
    end = min(len(DATA), start + rng.randrange(1, MIB)) if wish == "part" else len(DATA)
    headers = {"Range": f"bytes={start}-{end - 1}"} if wish == "part" else {}
    url = f"http://127.0.0.1:{client.port}{PATH}"
    try:
        async with client.session.get(url, headers=headers) as response:
            if response.status in (429, 502, 503):
                return
            if wish == "leave":
                await response.content.read(rng.randrange(1, MIB))
                response.close()
                return
            assert response.status == (206 if wish == "part" else 200)
            assert await response.read() == DATA[start:end]
    except aiohttp.ClientPayloadError:
        return  # cut, which no client takes for the whole
