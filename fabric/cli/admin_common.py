"""What all commands of ``fabric admin`` share: their options, and whom they ask."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import update_wrapper
from typing import Any, TypeVar

import click
import msgspec

from fabric.cli.options import HOST_PORT
from fabric.cli.output import reported_errors
from fabric.errors import FabricError
from fabric.wire.messages import (
    ChunkDetails,
    ClusterStatus,
    GetStatus,
    MaintainChunk,
    Message,
    NodeStatus,
    Request,
)

TIMEOUT_S = 3.0
LOOK_S = 0.5
"""Between two looks at work that is waited for."""
PATIENCE_S = 30.0
"""For so long a peer that answered before may be away while something is waited for."""
ASKED_AT_ONCE_MAX = 32
MB = 1_000_000

M = TypeVar("M", bound=Message)
GROUP_NUMBER = click.IntRange(1, 2**32 - 1)


def shared(function: Callable[..., None]) -> Callable[..., None]:
    """The options of every command here, which may stand before or behind its name."""

    @click.option("--master", type=HOST_PORT, help="The master.  [default: 127.0.0.1:7400]")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @click.pass_context
    def with_shared(ctx: click.Context, /, master: str | None, as_json: bool, **rest: Any) -> None:
        given = ctx.obj
        with reported_errors():
            function(master or given["master"] or "tcp://127.0.0.1:7400", as_json or given["as_json"], **rest)

    return update_wrapper(with_shared, function)


dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
rate_option = click.option(
    "--max-mb-s",
    type=click.FloatRange(min=0.001, max=1e6),
    help="Move at most so many megabytes (1,000,000 bytes) a second.  [default: the master's]",
)


def ask(endpoint: str, message: Request, kind: type[M]) -> M:
    """The answer of one peer.  Raises its error, or Unavailable within ``TIMEOUT_S``."""
    # Here, and not above, so that --help and usage errors do not wait for ZeroMQ.
    from fabric.node.ask import ask as ask_peer

    answer = ask_peer(endpoint, message, TIMEOUT_S)
    assert isinstance(answer, kind)
    return answer


def ask_patiently(endpoint: str, message: Request, kind: type[M], patience_s: float = PATIENCE_S) -> M:
    """The same of a peer that answered before: while it is away or starting, ask again for so long."""
    until = time.monotonic() + patience_s
    while True:
        try:
            return ask(endpoint, message, kind)
        except FabricError as error:
            if not error.retryable or time.monotonic() >= until:
                raise
        time.sleep(LOOK_S)


def cluster_of(master: str) -> ClusterStatus:
    """Everything about nodes and groups."""
    return ask(master, GetStatus(0), ClusterStatus)


# --- chunk servers ---------------------------------------------------------------------------------


class Answer(msgspec.Struct, frozen=True):
    """What a chunk server said, or why it did not."""

    server: str
    details: ChunkDetails | None = None
    error: str = ""

    def as_json(self) -> dict[str, Any]:
        """By field names; with ``error`` alone when there are no details."""
        from fabric.cli.output import plain

        if self.details is None:
            return {"server": self.server, "error": self.error}
        return {**plain(self.details), "error": self.error}


def find_servers(cluster: ClusterStatus, names: Sequence[str]) -> list[NodeStatus]:
    """The servers of these names; without names all.  Raises click.ClickException for an unknown one."""
    known = {node.server: node for node in cluster.nodes}
    for name in names:
        if name not in known:
            raise click.ClickException(f"no chunk server {name!r}; known: {', '.join(known) or 'none'}")
    return [known[name] for name in dict.fromkeys(names or known)]


def ask_servers(servers: Iterable[NodeStatus], action: Any) -> list[Answer]:
    """Ask all of them at the same time; one that does not answer costs the others nothing."""

    def ask_one(node: NodeStatus) -> Answer:
        try:
            return Answer(node.server, ask(node.endpoint, MaintainChunk(0, action), ChunkDetails))
        except FabricError as error:
            return Answer(node.server, error=error.message)

    servers = list(servers)
    if not servers:
        return []
    with ThreadPoolExecutor(min(len(servers), ASKED_AT_ONCE_MAX)) as threads:
        return list(threads.map(ask_one, servers))
