"""The gate before all handlers: who is it, may they, and not too much at once.

``admit`` wraps one request.  It finds out who asks (the shell's part: headers, threads, clocks), lets the
pure rules decide, and leaves the ``Client`` on the request for handlers that have more to ask.
``replace`` swaps everything that an access file says, between two requests.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from ssl import SSLContext

from aiohttp import web

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.access.credentials import BadCredentials, Password, Token, read_authorization
from fabric.driver.registry.access.htpasswd import PasswordFile
from fabric.driver.registry.access.limits import address_of
from fabric.driver.registry.access.load import Access, server_context
from fabric.driver.registry.access.logins import Logins
from fabric.driver.registry.access.policy import ANYBODY, Client, Identity
from fabric.driver.registry.access.requirements import need_of, read_only, refusal
from fabric.driver.registry.access.tag_guard import TagGuard
from fabric.driver.registry.errors import RegistryError
from fabric.driver.registry.quota.quotas import Quota
from fabric.driver.registry.routes import Endpoint, Route

_CLIENT: web.RequestKey[Client] = web.RequestKey("client", Client)

_log = logging.getLogger(__name__)


def client_of(request: web.Request) -> Client:
    """Who asks; somebody who may do everything where there is no gate."""
    client: Client = request.get(_CLIENT, ANYBODY)
    return client


def user_of(request: web.Request) -> str:
    """The name of who asks; empty for somebody who did not log in."""
    return client_of(request).identity.user


def _nothing() -> None:
    """Nobody wants to know."""


class Gate:
    """One for each registry process."""

    def __init__(self, access: Access | None = None) -> None:
        """Without an access file everybody may do everything."""
        self._access = access if access is not None else Access()
        threads = min(4, os.cpu_count() or 1)
        self._executor = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="bcrypt")
        self._logins = Logins(self._executor)
        self._tls: SSLContext | None = None
        self.on_replaced: Callable[[], None] = _nothing
        """Called when another access file holds."""

    def close(self) -> None:
        """End the threads; no request may come any more."""
        self._executor.shutdown()

    def guarded(self, store: ObjectStore) -> ObjectStore:
        """The store, with immutable tags kept as they are."""
        return TagGuard(store, lambda name, tag: self._access.policy.is_immutable(name, tag))

    def tls(self) -> SSLContext | None:
        """The context to serve with, the same for the process's life; None for plain HTTP."""
        if self._tls is None and self._access.certificate is not None:
            self._tls = server_context()
            self._tls.load_cert_chain(*self._access.certificate)
        return self._tls

    def replace(self, access: Access) -> None:
        """From now on this access file holds; new connections get its certificate.

        Raises ValueError when one has TLS and the other has not: that needs a restart.
        """
        if (access.certificate is None) != (self._access.certificate is None):
            raise ValueError("TLS is switched on and off by a restart only")
        if self._tls is not None and access.certificate is not None:
            self._tls.load_cert_chain(*access.certificate)
        self._access = access
        self.on_replaced()

    @property
    def quotas(self) -> Sequence[Quota] | None:
        """What the access file says of quotas; None: nothing."""
        return self._access.quotas

    @property
    def is_open(self) -> bool:
        """Whether everybody may do everything."""
        return self._access.is_open

    async def admit(
        self, request: web.Request, route: Route, known: Identity | None = None
    ) -> AbstractContextManager[None]:
        """Let one request in; it counts for as long as the context that is returned is open.

        ``known``: who asks, if something else than the headers that we read here has proved it.
        Raises RegistryError: UNAUTHORIZED (401), DENIED (403), UNSUPPORTED (405) or TOOMANYREQUESTS (429).
        """
        access = self._access
        if access.is_open or route.endpoint is Endpoint.HEALTH:
            return nullcontext()
        address = address_of(request.remote)
        try:
            if known is not None:
                client = Client(known, access.policy)
            else:
                client = await self._identify(access, request, route, address)
        except RegistryError:
            access.limits.request(f"address {address}", time.monotonic())
            raise
        who = f"user {client.identity.user}" if client.identity.user else f"address {address}"
        place = access.limits.request(who, time.monotonic())
        refused = refusal(client, need_of(request.method, route), access.challenger)
        if refused is None and access.table.read_only:
            refused = read_only(request.method)
        if refused is not None:
            raise refused
        request[_CLIENT] = client
        return place

    async def _identify(self, access: Access, request: web.Request, route: Route, address: str) -> Client:
        if access.passwords is None and access.trust is None:
            return Client(policy=access.policy)
        scope = need_of(request.method, route).scope()
        try:
            shown = read_authorization(request.headers.getall("Authorization", []))
        except BadCredentials as error:
            raise access.challenger.challenge(scope, str(error)) from error
        if access.trust is not None:
            return self._by_token(access, shown, scope)
        assert access.passwords is not None
        return await self._by_password(access, access.passwords, shown, scope, route, address)

    def _by_token(self, access: Access, shown: Password | Token | None, scope: str) -> Client:
        from fabric.driver.registry.access.tokens import BadToken

        assert access.trust is not None
        if not isinstance(shown, Token):
            raise access.challenger.challenge(scope, "this needs a token")
        try:
            identity, grants = access.trust.verify(shown.text, time.time())
        except BadToken as error:
            raise access.challenger.challenge(scope, str(error), "invalid_token") from error
        return Client(identity, access.policy, grants)

    async def _by_password(
        self,
        access: Access,
        file: PasswordFile,
        shown: Password | Token | None,
        scope: str,
        route: Route,
        address: str,
    ) -> Client:
        if isinstance(shown, Token):
            raise access.challenger.challenge(scope, "this registry takes passwords, not tokens")
        if shown is None:
            assert access.table.users is not None
            is_welcome = not access.table.users.ask_first and access.policy.strangers_may_something()
            if route.endpoint is Endpoint.BASE and not is_welcome:
                raise access.challenger.challenge(scope, "this needs a login")
            return Client(policy=access.policy)
        now_s = time.monotonic()
        if not self._logins.remembers(file, shown, now_s):
            access.limits.check_passwords(address, now_s)
            if not await self._logins.verify(file, shown, now_s):
                access.limits.wrong_password(address, now_s)
                _log.warning("wrong name or password for %.80r from %s", shown.user, address)
                raise access.challenger.challenge(scope, "wrong name or password")
        return Client(Identity(shown.user), access.policy)
