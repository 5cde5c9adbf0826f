"""The registry as an aiohttp application: which handler answers what, and how an error looks.

One catch-all route: paths are parsed from their raw form by ``routes``, never by a framework's idea of
decoding.  ``serve`` runs the application on a port.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

from aiohttp import web

from fabric.driver.name_cache import NameCache
from fabric.driver.object_store import ObjectStore
from fabric.driver.registry import http_blobs, http_lists, http_manifests, http_parts, http_uploads
from fabric.driver.registry.access.gate import Gate
from fabric.driver.registry.background import collect_now_and_then
from fabric.driver.registry.errors import (
    BodyInterrupted,
    BodyMalformed,
    RegistryError,
    error_body,
    from_store,
    unsupported,
)
from fabric.driver.registry.hooks.service import Hooks
from fabric.driver.registry.lookups import WATCHED
from fabric.driver.registry.mirror.http import Mirroring
from fabric.driver.registry.mirror.mirrors import Mirrors
from fabric.driver.registry.quota.keeping import QuotaKeeper, accounted
from fabric.driver.registry.routes import Endpoint, Route, parse_path
from fabric.driver.registry.service import Service
from fabric.driver.registry.v1.http import Legacy
from fabric.driver.registry.v1.routes import is_legacy
from fabric.driver.watching import Ask, keep_watching
from fabric.errors import FabricError
from fabric.settings import KIB, Settings

READ_BUFFER_BYTES = 256 * KIB
"""Bytes of a body that wait in memory before the socket is left unread."""

HEADER_BYTES_MAX = 20 * KIB
"""Of one header: a token for many repositories is long."""

IDLE_TIMEOUT_S = 75.0
"""A connection without a complete request head for so long is closed."""

LINGER_S = 2.0
"""After a refusal, the rest of a body is read and dropped for so long: the client shall see the answer."""

SHUTDOWN_TIMEOUT_S = 10.0
API_VERSION = "registry/2.0"

Handler = Callable[[Service, web.Request, Route], Awaitable[web.StreamResponse]]

_log = logging.getLogger(__name__)


async def _alive(service: Service, request: web.Request, route: Route) -> web.StreamResponse:
    return web.json_response({})


HANDLERS: dict[Endpoint, dict[str, Handler]] = {
    Endpoint.HEALTH: {"GET": _alive, "HEAD": _alive},
    Endpoint.BASE: {"GET": _alive, "HEAD": _alive},
    Endpoint.CATALOG: {"GET": http_lists.catalog, "HEAD": http_lists.catalog},
    Endpoint.TAGS: {"GET": http_lists.tags, "HEAD": http_lists.tags},
    Endpoint.REFERRERS: {"GET": http_lists.referrers, "HEAD": http_lists.referrers},
    Endpoint.MANIFEST: {
        "PUT": http_manifests.put,
        "GET": http_manifests.get,
        "HEAD": http_manifests.head,
        "DELETE": http_manifests.delete,
    },
    Endpoint.BLOB: {"GET": http_blobs.get, "HEAD": http_blobs.head, "DELETE": http_blobs.delete},
    Endpoint.UPLOADS: {"POST": http_uploads.start},
    Endpoint.PARTS: {"POST": http_parts.start},
    Endpoint.EXTENSIONS: {"GET": http_parts.discover, "HEAD": http_parts.discover},
    Endpoint.UPLOAD: {
        "PATCH": http_uploads.append,
        "PUT": http_uploads.finish,
        "GET": http_uploads.status,
        "DELETE": http_uploads.cancel,
    },
}


def make_app(
    store: ObjectStore,
    settings: Settings,
    gate: Gate | None = None,
    *,
    v1: bool = False,
    watch: Ask | None = None,
    hooks: Hooks | None = None,
    mirrors: Mirrors | None = None,
) -> web.Application:
    """The registry over ``store``, which must be started and outlives the application.

    ``gate`` says who may do what; without one everybody may do everything.  ``v1``: answer clients of the
    first protocol too.  ``watch`` asks the store which names have changed; with it, copies are kept.
    ``hooks``: receivers that are told of pushes, pulls and deletions.
    ``mirrors``: repositories that come from other registries.
    """
    gate = gate if gate is not None else Gate()
    count = min(8, os.cpu_count() or 2)
    executor, writing = ThreadPoolExecutor(count, "sha"), ThreadPoolExecutor(count, "send")
    cache = NameCache(settings.registry_cache_bytes) if watch and settings.registry_cache_bytes else None
    accounts = accounted(store)
    announced = hooks.announcing(accounts) if hooks is not None else accounts
    service = Service(gate.guarded(announced), settings, executor, writing, cache, hooks, accounts)
    mirrors = mirrors if mirrors is not None else Mirrors([])
    mirroring = Mirroring(mirrors, service)
    legacy = Legacy(service, gate, store, executor, mirrors) if v1 else None

    async def dispatch(request: web.Request) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        if legacy is not None and is_legacy(path):
            return await legacy.answer(request, path)
        route = parse_path(path)
        handlers = HANDLERS[route.endpoint]
        handler = handlers.get(request.method)
        if handler is None:
            allowed = {"Allow": ", ".join(handlers)}
            raise unsupported(405, f"{request.method} is not for {route.endpoint.value}", allowed)
        place = await gate.admit(request, route)
        with place, hooks.origin(request, route) if hooks is not None else nullcontext():
            upstream = mirrors.of(route.name)
            if upstream is not None:
                return await mirroring.answer(upstream, request, route, handler)
            return await handler(service, request, route)

    async def background(app: web.Application) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(collect_now_and_then(service.garbage, settings.gc_interval_s))]
        quotas = QuotaKeeper(accounts, service.stamper, settings, lambda: gate.quotas)
        gate.on_replaced = quotas.look_again
        tasks.append(asyncio.create_task(quotas.run()))
        if watch is not None and cache is not None:
            tasks.append(asyncio.create_task(keep_watching(watch, cache, WATCHED, time.monotonic)))
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await service.followers.close()
        await mirroring.close()
        executor.shutdown()
        writing.shutdown()
        if legacy is not None:
            legacy.close()
        gate.close()

    app = web.Application(middlewares=[_answer_errors])
    app.router.add_route("*", r"/{path:[\s\S]*}", dispatch)
    app.on_response_prepare.append(_mark)
    app.cleanup_ctx.append(background)
    if hooks is not None:
        app.cleanup_ctx.append(hooks.running)
    return app


def make_runner(app: web.Application) -> web.AppRunner:
    """A runner with the limits and buffers that the registry wants."""
    return web.AppRunner(
        app,
        access_log=None,
        keepalive_timeout=IDLE_TIMEOUT_S,
        read_bufsize=READ_BUFFER_BYTES,
        max_field_size=HEADER_BYTES_MAX,
        auto_decompress=False,
        lingering_time=LINGER_S,
        shutdown_timeout=SHUTDOWN_TIMEOUT_S,
    )


async def serve(
    store: ObjectStore,
    settings: Settings,
    host: str,
    port: int,
    gate: Gate | None = None,
    *,
    v1: bool = False,
    watch: Ask | None = None,
    hooks: Hooks | None = None,
    mirrors: Mirrors | None = None,
    share_port: bool = False,
) -> web.AppRunner:
    """Listen on ``host`` and ``port``; ``await runner.cleanup()`` ends it gracefully.

    ``share_port``: other processes that say so too may listen there as well.  Raises OSError when the
    address cannot be taken.
    """
    gate = gate if gate is not None else Gate()
    runner = make_runner(make_app(store, settings, gate, v1=v1, watch=watch, hooks=hooks, mirrors=mirrors))
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=gate.tls(), reuse_port=share_port or None)
        await site.start()
    except OSError:
        await runner.cleanup()
        raise
    return runner


@web.middleware
async def _answer_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except RegistryError as error:
        return _response(error)
    except FabricError as error:
        answer = from_store(error)
        _log.log(
            logging.ERROR if answer.status == 500 else logging.WARNING,
            "%s %s: %d %s: %s", request.method, request.path, answer.status, error.code, error.message,
        )  # fmt: skip
        return _response(answer)
    except BodyInterrupted as error:
        status = 400 if isinstance(error, BodyMalformed) else 408
        close = {"Connection": "close"}
        return _response(RegistryError(status, "BLOB_UPLOAD_INVALID", str(error), None, close))
    except web.HTTPException as error:
        return _response(unsupported(error.status, error.reason))


def _response(error: RegistryError) -> web.Response:
    return web.Response(
        status=error.status,
        body=error_body(error),
        headers=error.headers,
        content_type="application/json",
    )


async def _mark(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Docker-Distribution-Api-Version"] = API_VERSION
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Server"] = "speedy-fabric"
