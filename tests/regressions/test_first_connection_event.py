"""A client that had never looked at its monitor socket missed the event of its first connection.

ZeroMQ's descriptors signal edges, and the first edge only after the socket was once found empty.  The
client then took its connection for unfinished, and every request ran into its deadline.
"""

from __future__ import annotations

import asyncio

from fabric.driver.client import Client
from fabric.settings import Settings
from fabric.wire.messages import Ping, Pong
from tests.unit.node.echo import running


def test_a_request_after_the_connection_was_made_unwatched_is_answered() -> None:
    async def ask(endpoint: str) -> Pong:
        client = Client(endpoint, Settings())
        await client.start()
        # The connection is made by ZeroMQ's own thread while our loop does nothing at all.
        await asyncio.sleep(0.1)
        try:
            answer, _ = await client.request(Pong, Ping(0), patience_s=3.0)
        finally:
            await client.close()
        return answer

    with running() as echo:
        assert asyncio.run(ask(echo.endpoint)) == Pong("echo", "e", "1")
