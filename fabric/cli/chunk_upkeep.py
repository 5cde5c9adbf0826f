"""``fabric chunk status|scrub|compact``: asking a chunk server that runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from fabric.cli.options import HOST_PORT
from fabric.cli.output import (
    duration_text,
    plain,
    print_json,
    print_table,
    reported_errors,
    share_bar,
    size_text,
    time_text,
)

if TYPE_CHECKING:
    from fabric.wire.messages import ChunkDetails

TIMEOUT_S = 3.0
LOOK_S = 0.3
"""Between two looks at work that is waited for."""
FILES_SHOWN = 8
REPAIR_S = 10.0
"""How long behind a pass its last repairs are waited for; those that take longer lack a good copy."""

_address = click.argument("server", metavar="HOST:PORT", type=HOST_PORT)
_json = click.option("--json", "as_json", is_flag=True, help="One JSON document, for programs.")
_wait = click.option(
    "--wait", is_flag=True, help="Return when it is done; with a progress bar on a terminal."
)


@click.command()
@_address
@_json
def status(server: str, as_json: bool) -> None:
    """Show what the chunk server at HOST:PORT holds, and how far its scrub and its compaction are."""
    show_details(_ask(server, "status"), as_json)


@click.command()
@_address
@_wait
@_json
def scrub(server: str, wait: bool, as_json: bool) -> None:
    """Have the chunk server at HOST:PORT read and verify every record, from the beginning.

    It goes on by itself, at `scrub_bytes_per_s`, beside reads and writes; to end this command does not end
    it.  What is damaged is replaced by a good copy from the other members of its group.  A pass also begins
    by itself every `scrub_interval_s`.

    With --wait, exit status 1 when fragments are still damaged at the end.
    """
    details = _ask(server, "scrub")
    if wait:
        details = _wait_for(details, server, "scrub", scrub_progress)
        details = _wait_for_repairs(details, server)
    show_details(details, as_json)
    if wait and details.quarantined:
        sys.exit(1)


@click.command()
@_address
@_wait
@_json
def compact(server: str, wait: bool, as_json: bool) -> None:
    """Have the chunk server at HOST:PORT give the space of all deleted fragments back.

    It goes on by itself, at `compaction_bytes_per_s`, beside reads and writes; to end this command does not
    end it.  Unasked, a server compacts the data files of which `compaction_garbage_ratio` is garbage.
    What was removed just now is given back later: readers may finish within `delete_grace_s`.

    With --wait, exit status 1 when it was given up.
    """
    details = _ask(server, "compact")
    if wait:
        details = _wait_for(details, server, "compact", compaction_progress)
    show_details(details, as_json)
    if wait and details.compaction.problem:
        sys.exit(1)


COMMANDS = {"status": status, "scrub": scrub, "compact": compact}


def _ask(server: str, action: Any) -> ChunkDetails:
    # Here, and not above, so that --help and usage errors do not wait for ZeroMQ.
    from fabric.node.ask import ask
    from fabric.wire.messages import ChunkDetails, MaintainChunk

    with reported_errors():
        answer = ask(server, MaintainChunk(0, action), TIMEOUT_S)
    assert isinstance(answer, ChunkDetails)
    return answer


def _wait_for(
    details: ChunkDetails, server: str, title: str, progress: Callable[[ChunkDetails], float]
) -> ChunkDetails:
    """Look until it is done; ``progress`` gives 1.0 then.

    Raises click.ClickException when the server was restarted: it has forgotten what it was asked for.
    """
    incarnation = details.incarnation
    with share_bar(f"{title} {details.server}") as show:
        while (share := progress(details)) < 1.0:
            show(share)
            time.sleep(LOOK_S)
            details = _ask(server, "status")
            if details.incarnation != incarnation:
                raise click.ClickException(f"{details.server} was restarted meanwhile: ask it again")
        show(1.0)
    return details


def _wait_for_repairs(details: ChunkDetails, server: str) -> ChunkDetails:
    until = time.monotonic() + REPAIR_S
    while details.quarantined and time.monotonic() < until:
        time.sleep(LOOK_S)
        details = _ask(server, "status")
    return details


def scrub_progress(now: ChunkDetails) -> float:
    """Of the pass that was asked for; 1.0: done."""
    if now.scrub.ordered:
        return 0.0
    return min(now.scrub.progress, 0.99) if now.scrub.running else 1.0


def compaction_progress(now: ChunkDetails) -> float:
    """Of the files that it is at; there may be others after them.  1.0: done."""
    return min(now.compaction.progress, 0.99) if now.compaction.ordered else 1.0


def show_details(details: ChunkDetails, as_json: bool) -> None:
    """Everything that a server tells of itself."""
    if as_json:
        print_json(plain(details))
        return
    rows = [
        ["group", f"{details.group}, epoch {details.epoch}, {details.mode}"],
        ["read-only", details.read_only_reason or "no"],
        ["fragments", f"{details.fragments}, {size_text(details.live_bytes)}"],
        ["data files", f"{details.files}, {size_text(details.data_bytes)}"],
        ["garbage", size_text(details.garbage_bytes)],
        ["damaged", str(details.quarantined)],
        ["free", f"{size_text(details.free_bytes)} of {size_text(details.capacity_bytes)}"],
        ["scrub", scrub_text(details)],
        ["compaction", compaction_text(details)],
        ["read", f"{details.reads} fragments, {size_text(details.read_bytes)}; {details.pending_reads} wait"],
        ["written", _written_text(details)],
        ["disk check", _check_text(details)],
    ]
    print_table(f"{details.server}, version {details.version}", ["", ""], rows)


def _written_text(details: ChunkDetails) -> str:
    text = f"{details.writes} fragments, {size_text(details.written_bytes)}; {details.pending_writes} wait"
    if not details.pending_writes:
        return text
    return (
        f"{text}, {size_text(details.pending_bytes)}, the oldest for {duration_text(details.oldest_write_ms)}"
    )


def _check_text(details: ChunkDetails) -> str:
    check = details.disk
    if check.running:
        return "under way"
    if not check.checked_at_ms:
        return "none since the start"
    at = time_text(check.checked_at_ms)
    if check.problem:
        return f"{at}: {check.problem}"
    parts = {"write": check.write_us, "sync": check.sync_us, "read": check.read_us}
    took = ", ".join(f"{name} {disk_text(took_us, check.bytes)}" for name, took_us in parts.items())
    return f"{at}: all is well; {took}"


def disk_text(took_us: int, size_bytes: int) -> str:
    """How long a disk took, and the rate: ``1.5 ms, 666.7 MiB/s``; empty when it did not come to that."""
    if not size_bytes:
        return ""
    text = f"{took_us / 1000:.1f} ms"
    return f"{text}, {size_text(size_bytes * 1_000_000 // took_us)}/s" if took_us else text


def scrub_text(details: ChunkDetails) -> str:
    """How far its scrub is."""
    scrub = details.scrub
    found = f"{scrub.records} records, {size_text(scrub.read_bytes)}, {scrub.damaged} damaged"
    if scrub.running:
        return f"{scrub.progress:.0%} since {time_text(scrub.started_at_ms)}: {found}"
    if scrub.ordered:
        return "about to begin"
    if not scrub.finished_at_ms:
        return "never finished a pass"
    took = duration_text(max(0, scrub.finished_at_ms - scrub.started_at_ms))
    return f"finished {time_text(scrub.finished_at_ms)}, in {took}: {found}"


def compaction_text(details: ChunkDetails) -> str:
    """What its compaction does."""
    compaction = details.compaction
    so_far = f"{size_text(compaction.freed_bytes)} given back since the start"
    if compaction.running:
        more = len(compaction.files) - FILES_SHOWN
        files = ", ".join(map(str, compaction.files[:FILES_SHOWN])) + (
            f" and {more} more" if more > 0 else ""
        )
        return f"{compaction.progress:.0%} of data files {files}; {so_far}"
    if compaction.ordered:
        return f"about to begin; {so_far}"
    if compaction.problem:
        return f"given up: {compaction.problem}; {so_far}"
    return f"idle; {so_far}"
