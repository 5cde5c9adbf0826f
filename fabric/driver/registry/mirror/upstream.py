"""The HTTP of one upstream: requests, logins, redirects; every wait and every size has a bound.

Credentials go to the upstream, and to the token server that it names.  A redirect to another host (a store
of blobs, a delivery network) is followed without them, and never from TLS to a place without.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import NamedTuple

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from fabric.driver.registry.mirror.challenges import (
    BadAnswer,
    Token,
    parse_challenges,
    parse_token,
    token_url,
)
from fabric.driver.registry.mirror.config import Mapped
from fabric.driver.registry.mirror.decisions import Missing, Standing
from fabric.driver.registry.mirror.failures import (
    UpstreamBusy,
    UpstreamDenies,
    UpstreamFailed,
    UpstreamWrong,
)
from fabric.driver.registry.mirror.load import Mirror
from fabric.settings import KIB

REDIRECTS_MAX = 5
TOKENS_MAX = 1000
TOKEN_BYTES_MAX = 64 * KIB
VIA_CHARACTERS_MAX = 1000
READ_BUFFER_BYTES = 256 * KIB

OWN_NAME = f"fabric-{secrets.token_hex(6)}"
"""Of this process, in ``Via``: what comes back to us through mirrors of mirrors is a circle."""

VIA: ContextVar[str] = ContextVar("VIA", default="")
"""The ``Via`` of the request that is being answered."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_FAILURES = (aiohttp.ClientError, TimeoutError, OSError, asyncio.IncompleteReadError)
"""What the client library raises for whatever is wrong with a peer or an answer."""

_log = logging.getLogger(__name__)


class Reply(NamedTuple):
    """An answer that was read to its end."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes


def new_session() -> aiohttp.ClientSession:
    """For all upstreams of a process.  Keeps no cookies, and reads no proxies from the environment."""
    return aiohttp.ClientSession(
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "speedy-fabric", "Accept-Encoding": "identity"},
        read_bufsize=READ_BUFFER_BYTES,
    )


class Upstream:
    """One upstream, and what is remembered of it."""

    def __init__(self, mirror: Mirror, session: Callable[[], aiohttp.ClientSession]) -> None:
        self.mirror = mirror
        self.table = mirror.table
        self.mapped = Mapped(mirror.table)
        self.missing = Missing(mirror.table.missing_fresh_s)
        self.standing = Standing(mirror.table.rest_s)
        self._session = session
        self._tokens: OrderedDict[str, Token] = OrderedDict()
        self._wants_basic = False
        # An answer's head and every silence in its body have this time; bodies as a whole are bounded
        # by whoever reads them.
        seconds = mirror.table.timeout_s
        self._timeout = aiohttp.ClientTimeout(total=None, connect=seconds, sock_read=seconds)

    async def ask(
        self, method: str, name: str, path: str, bytes_max: int, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """A whole small answer.  ``name`` is the repository's there, ``path`` begins behind it.

        Raises UpstreamFailed for anything but a success, 304, or 4xx that is about what was asked for.
        """
        async with self._translating():
            async with asyncio.timeout(self.table.timeout_s):
                response = await self._open(method, name, path, headers or {})
                try:
                    body = await _bounded(response, bytes_max) if method != "HEAD" else b""
                finally:
                    response.close()  # no more than a word when all was read
                return Reply(response.status, response.headers, body)

    async def ping(self) -> int:
        """The status of its answer to ``GET /v2/``, without a login.  Raises UpstreamFailed."""
        async with self._translating():
            async with asyncio.timeout(self.table.timeout_s):
                response = await self._send("GET", URL(f"{self.table.upstream.rstrip('/')}/v2/"), {})
                response.close()
                return response.status

    @asynccontextmanager
    async def opened(
        self, name: str, path: str, headers: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer whose body the caller reads; whatever happens to it becomes UpstreamFailed."""
        async with self._translating():
            async with asyncio.timeout(self.table.timeout_s):
                response = await self._open("GET", name, path, headers)
            try:
                yield response
            finally:
                response.close()

    @asynccontextmanager
    async def _translating(self) -> AsyncIterator[None]:
        """What goes wrong becomes UpstreamFailed, and is known of the upstream from then on."""
        try:
            yield
        except UpstreamDenies:
            raise
        except UpstreamFailed as error:
            if not isinstance(error, UpstreamWrong):
                self._failed(error)
            raise
        except _FAILURES as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            failure = UpstreamFailed(f"{self.table.upstream} does not answer: {reason}"[:500])
            self._failed(failure)
            raise failure from error
        else:
            if self.standing.answered():
                _log.info("upstream %s answers again", self.table.upstream)

    def _failed(self, error: UpstreamFailed) -> None:
        if self.standing.failed(time.monotonic(), error.retry_after_s):
            _log.warning("upstream: %s", error.message)

    # --- one request --------------------------------------------------------------------------------

    async def _open(
        self, method: str, name: str, path: str, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        via = ", ".join(filter(None, (VIA.get()[:VIA_CHARACTERS_MAX], f"1.1 {OWN_NAME}")))
        headers = {**headers, "Via": via}
        url = URL(f"{self.table.upstream.rstrip('/')}/v2/{name}/{path}", encoded=True)
        response = await self._send(method, url, {**headers, **self._login(name)})
        if response.status == 401:
            asked = response.headers.getall("WWW-Authenticate", [])
            response.close()
            response = await self._send(method, url, {**headers, **await self._log_in(name, asked)})
        response = await self._follow(method, response, headers)
        try:
            self._check(response)
        except UpstreamFailed:
            response.close()
            raise
        return response

    async def _send(self, method: str, url: URL, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        return await self._session().request(
            method,
            url,
            headers=headers,
            allow_redirects=False,
            timeout=self._timeout,
            ssl=self.mirror.trusted if self.mirror.trusted is not None else True,
        )

    async def _follow(
        self, method: str, response: aiohttp.ClientResponse, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        for _ in range(REDIRECTS_MAX):
            if response.status not in _REDIRECTS:
                return response
            response.close()
            target = self._target(response)
            if target.scheme not in ("http", "https") or not target.host:
                raise UpstreamWrong(f"{self.table.upstream} redirects to {str(target)[:200]}")
            if response.url.scheme == "https" and target.scheme != "https":
                raise UpstreamWrong(f"{self.table.upstream} redirects away from TLS")
            # Whoever redirects says all that is needed in the address.
            response = await self._send(method, target, headers)
        response.close()
        raise UpstreamWrong(f"{self.table.upstream} redirects again and again")

    def _target(self, response: aiohttp.ClientResponse) -> URL:
        text = response.headers.get("Location", "")
        try:
            return response.url.join(URL(text, encoded=True))
        except ValueError as error:
            raise UpstreamWrong(f"{self.table.upstream} redirects to {text[:200]!r}") from error

    def _check(self, response: aiohttp.ClientResponse) -> None:
        status, who = response.status, self.table.upstream
        if status == 429:
            raise UpstreamBusy(f"{who} has had too many requests", _retry_after_s(response))
        if status >= 500:
            raise UpstreamFailed(f"{who} answered {status}", _retry_after_s(response))
        if status in (401, 403):
            raise UpstreamDenies(f"{who} does not give this: it answered {status}")
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise UpstreamWrong(f"{who} encodes what nobody asked it to encode")

    # --- logins -------------------------------------------------------------------------------------

    @property
    def _credentials(self) -> dict[str, str]:
        if not self.mirror.username:
            return {}
        login = aiohttp.encode_basic_auth(self.mirror.username, self.mirror.password)
        return {"Authorization": login}

    def _login(self, name: str) -> dict[str, str]:
        """What let us in before."""
        token = self._tokens.get(name)
        if token is not None and time.monotonic() < token.expires_at:
            return {"Authorization": f"Bearer {token.text}"}
        return self._credentials if self._wants_basic else {}

    async def _log_in(self, name: str, asked: list[str]) -> dict[str, str]:
        """What lets us in, by what the upstream asks for.  Raises UpstreamDenies, UpstreamFailed."""
        self._tokens.pop(name, None)
        for challenge in parse_challenges(asked):
            if challenge.scheme == "basic" and self.mirror.username:
                self._wants_basic = True
                return self._credentials
            if challenge.scheme == "bearer":
                try:
                    url = token_url(challenge, f"repository:{name}:pull", self.table.upstream)
                    token = parse_token(await self._token_answer(url), time.monotonic())
                except BadAnswer as error:
                    raise UpstreamWrong(f"{self.table.upstream}: {error}") from error
                self._tokens[name] = token
                while len(self._tokens) > TOKENS_MAX:
                    self._tokens.popitem(last=False)
                return {"Authorization": f"Bearer {token.text}"}
        raise UpstreamDenies(f"{self.table.upstream} wants a login, and there is none for it")

    async def _token_answer(self, url: str) -> bytes:
        async with asyncio.timeout(self.table.timeout_s):
            response = await self._send("GET", URL(url, encoded=True), self._credentials)
            try:
                self._check(response)
                if response.status != 200:
                    raise UpstreamWrong(
                        f"the token server of {self.table.upstream} answered {response.status}"
                    )
                return await _bounded(response, TOKEN_BYTES_MAX)
            finally:
                response.close()


async def _bounded(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    """A whole body.  Raises UpstreamWrong for more than ``bytes_max``."""
    collected = bytearray()
    if (response.content_length or 0) <= bytes_max:
        async for piece in response.content.iter_any():
            collected += piece
            if len(collected) > bytes_max:
                break
        else:
            return bytes(collected)
    raise UpstreamWrong(f"{response.url.host} answered with more than {bytes_max} bytes")


def _retry_after_s(response: aiohttp.ClientResponse) -> float:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 7 else 0.0
