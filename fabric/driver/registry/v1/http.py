"""The v1 protocol over HTTP: which handler answers what, who is let in, and how an error looks.

Requests about repositories are let in by the same gate as those of the later protocol.  Requests about
images name no repository: there the session says which one is meant, and who asks.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor

from aiohttp import web

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.access.gate import Gate, client_of
from fabric.driver.registry.access.policy import Identity, Right
from fabric.driver.registry.access.requirements import WRITES
from fabric.driver.registry.errors import BodyInterrupted, BodyMalformed, RegistryError, from_store
from fabric.driver.registry.mirror.http import refuse_pushes
from fabric.driver.registry.mirror.mirrors import Mirrors
from fabric.driver.registry.routes import Endpoint as GateEndpoint
from fabric.driver.registry.routes import Route as GateRoute
from fabric.driver.registry.service import Service
from fabric.driver.registry.v1 import http_images, http_repositories
from fabric.driver.registry.v1.http_images import success
from fabric.driver.registry.v1.names import refused
from fabric.driver.registry.v1.routes import OF_IMAGES, Endpoint, Route, parse_path
from fabric.driver.registry.v1.service import LegacyService
from fabric.driver.registry.v1.sessions import Session, not_in_session
from fabric.driver.registry.v1.visitor import Visitor
from fabric.errors import FabricError

Handler = Callable[[LegacyService, web.Request, Route, Visitor], Awaitable[web.StreamResponse]]

HANDLERS: dict[Endpoint, dict[str, Handler]] = {
    Endpoint.PING: {"GET": http_repositories.ping, "HEAD": http_repositories.ping},
    Endpoint.USERS: {"GET": http_repositories.get_users, "POST": http_repositories.post_users},
    Endpoint.USER: {"PUT": http_repositories.put_user},
    Endpoint.SEARCH: {"GET": http_repositories.search},
    Endpoint.IMAGE_JSON: {
        "GET": http_images.get_json,
        "HEAD": http_images.get_json,
        "PUT": http_images.put_json,
    },
    Endpoint.IMAGE_LAYER: {
        "GET": http_images.get_layer,
        "HEAD": http_images.get_layer,
        "PUT": http_images.put_layer,
    },
    Endpoint.IMAGE_ANCESTRY: {"GET": http_images.get_ancestry},
    Endpoint.IMAGE_CHECKSUM: {"GET": http_images.get_checksum, "PUT": http_images.put_checksum},
    Endpoint.IMAGE_FILES: {"GET": http_images.get_files},
    Endpoint.REPOSITORY: {
        "PUT": http_repositories.put_repository,
        "DELETE": http_repositories.delete_repository,
    },
    Endpoint.IMAGES: {"GET": http_repositories.get_images, "PUT": http_repositories.put_images},
    Endpoint.TAGS: {"GET": http_repositories.get_tags, "DELETE": http_repositories.delete_repository},
    Endpoint.TAG: {
        "GET": http_repositories.get_tag,
        "PUT": http_repositories.put_tag,
        "DELETE": http_repositories.delete_tag,
    },
    Endpoint.PROPERTIES: {
        "GET": http_repositories.get_properties,
        "PUT": http_repositories.put_properties,
    },
    Endpoint.AUTH: {"PUT": http_repositories.put_auth},
}

_FOR_EVERYBODY = {("GET", Endpoint.PING), ("HEAD", Endpoint.PING), ("POST", Endpoint.USERS)}
"""Asked before a client can show who it is."""

_IMAGE_ENDPOINTS = frozenset(OF_IMAGES.values())

_log = logging.getLogger(__name__)


class Legacy:
    """Answers the clients of the v1 protocol."""

    def __init__(
        self, service: Service, gate: Gate, store: ObjectStore, executor: Executor, mirrors: Mirrors
    ) -> None:
        self._mirrors = mirrors
        self._service = LegacyService(service, store, executor)
        self._gate = gate

    def close(self) -> None:
        """End the threads; no request may come any more."""
        self._service.reading.close()

    async def answer(self, request: web.Request, raw_path: str) -> web.StreamResponse:
        """The answer to a request whose path ``is_legacy``; errors are in this protocol's form."""
        try:
            return await self._dispatch(request, parse_path(raw_path))
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
            return success({"error": str(error)}, status, {"Connection": "close"})

    async def _dispatch(self, request: web.Request, route: Route) -> web.StreamResponse:
        handlers = HANDLERS[route.endpoint]
        handler = handlers.get(request.method)
        if handler is None:
            message = f"{request.method} is not for {route.endpoint.value}"
            raise refused(405, message, Allow=", ".join(handlers))
        if (request.method, route.endpoint) in _FOR_EVERYBODY:
            visitor = Visitor(lambda name: False, is_trusted=self._gate.is_open)
            return await handler(self._service, request, route, visitor)
        session = await self._session(request, route)
        known = Identity(session.user) if session is not None else None
        repository = route.name or (session.repository if session is not None else "")
        with await self._gate.admit(request, _gate_route(route, repository), known):
            upstream = self._mirrors.of(repository)
            if upstream is not None and request.method in WRITES:
                refuse_pushes(upstream, request.method, repository)
            client = client_of(request)
            visitor = Visitor(
                lambda name: client.may(Right.PULL, name),
                client.identity.user,
                repository,
                is_trusted=self._gate.is_open,
            )
            return await handler(self._service, request, route, visitor)

    async def _session(self, request: web.Request, route: Route) -> Session | None:
        """The session that a request shows.  Raises RegistryError 401 and 403."""
        scheme, _, token = request.headers.get("Authorization", "").strip().partition(" ")
        if scheme.lower() != "token":
            if route.endpoint in _IMAGE_ENDPOINTS and not self._gate.is_open:
                raise not_in_session("images are for those who have asked for their repository")
            return None
        try:
            session = await self._service.sessions.find(token)
        except RegistryError:
            if self._gate.is_open:
                return None  # somebody else's token, that no one needs here
            raise
        if route.name and route.name != session.repository:
            raise not_in_session("the token is for another repository")
        if request.method in WRITES and not session.may_write:
            raise refused(403, "the token is for reading")
        return session


def _gate_route(route: Route, repository: str) -> GateRoute:
    """What the gate has to know of a request: the right it needs follows from the method."""
    if route.endpoint in (Endpoint.USERS, Endpoint.USER):
        return GateRoute(GateEndpoint.BASE)
    if route.endpoint is Endpoint.SEARCH:
        return GateRoute(GateEndpoint.CATALOG)
    return GateRoute(GateEndpoint.LEGACY, repository)


def _response(error: RegistryError) -> web.Response:
    return success({"error": error.message}, error.status, error.headers)
