"""The mirrors of a process: which one a repository belongs to."""

from __future__ import annotations

from collections.abc import Sequence

import aiohttp

from fabric.driver.registry.mirror.load import Mirror
from fabric.driver.registry.mirror.upstream import Upstream, new_session


class Mirrors:
    """One for each registry process.  Connections are made in the event loop that asks first."""

    def __init__(self, mirrors: Sequence[Mirror]) -> None:
        self._upstreams = [Upstream(mirror, self._connections) for mirror in mirrors]
        self._session: aiohttp.ClientSession | None = None

    def replace(self, mirrors: Sequence[Mirror]) -> None:
        """From the next request on these hold.

        Transfers under way go on; what was remembered of upstreams is forgotten.
        """
        self._upstreams = [Upstream(mirror, self._connections) for mirror in mirrors]

    def of(self, name: str) -> Upstream | None:
        """Where a repository comes from: the first of the file that is for it; None: it is our own."""
        if not name:
            return None
        for upstream in self._upstreams:
            if upstream.mapped.upstream_name(name) is not None:
                return upstream
        return None

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _connections(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = new_session()
        return self._session
