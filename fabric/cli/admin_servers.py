"""``fabric admin scrub|compact|check-disk|io-status|kill-pending|details``: asked of the chunk servers.

The master says where they are; each is asked itself, all at the same time.  One that does not answer is a row
with the reason, and exit status 1; the others are shown all the same.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import click

from fabric.cli.admin_common import (
    LOOK_S,
    Answer,
    ask_servers,
    cluster_of,
    find_servers,
    shared,
    yes_option,
)
from fabric.cli.chunk_upkeep import (
    REPAIR_S,
    compaction_progress,
    compaction_text,
    disk_text,
    scrub_progress,
    scrub_text,
    show_details,
)
from fabric.cli.output import duration_text, print_json, print_json_line, size_text
from fabric.cli.server_work import exit_unless, order, show_rows
from fabric.wire.messages import ChunkDetails, NodeStatus

CHECK_S_MAX = 30.0
"""A disk that has not finished its check by then has failed it."""

_servers = click.argument("servers", metavar="[SERVER]...", nargs=-1)
_wait = click.option("--wait", is_flag=True, help="Return when all are done; a bar on a terminal.")


# --- scrub and compaction --------------------------------------------------------------------------


@click.group()
def scrub() -> None:
    """Have chunk servers verify every byte."""


@scrub.command()
@_servers
@_wait
@shared
def start(master: str, as_json: bool, servers: tuple[str, ...], wait: bool) -> None:
    """Begin a pass over every record on SERVER..., or on all chunk servers.

    It goes on by itself at `scrub_bytes_per_s`, beside reads and writes.  What is damaged is replaced by a
    good copy from the group.  With --wait, status 1 when damage is left that nobody could repair.
    """
    found = find_servers(cluster_of(master), servers)
    answers = order(found, "scrub", wait, _scrub_work)
    if wait:
        answers = _wait_for_repairs(found, answers)
    show_rows(answers, as_json, "Scrub", {"scrub": scrub_text, "damaged": _quarantined})
    exit_unless(answers, lambda details: not (wait and details.quarantined))


def _wait_for_repairs(nodes: Sequence[NodeStatus], answers: list[Answer]) -> list[Answer]:
    """The last of what a pass found is repaired soon after it, or lacks a good copy."""
    until = time.monotonic() + REPAIR_S
    while time.monotonic() < until and any(
        answer.details is not None and answer.details.quarantined for answer in answers
    ):
        time.sleep(LOOK_S)
        again = ask_servers(nodes, "status")
        answers = [old if old.details is None else new for old, new in zip(answers, again, strict=True)]
    return answers


@scrub.command("status")
@_servers
@shared
def scrub_status(master: str, as_json: bool, servers: tuple[str, ...]) -> None:
    """Show how far the scrub is on SERVER..., or on all chunk servers."""
    answers = ask_servers(find_servers(cluster_of(master), servers), "status")
    show_rows(answers, as_json, "Scrub", {"scrub": scrub_text, "damaged": _quarantined})
    exit_unless(answers)


@click.command()
@_servers
@_wait
@shared
def compact(master: str, as_json: bool, servers: tuple[str, ...], wait: bool) -> None:
    """Give the space of deleted fragments back.

    On SERVER..., or on all chunk servers.  It goes on by itself at `compaction_bytes_per_s`, beside reads
    and writes; unasked, data files are compacted when `compaction_garbage_ratio` of them is garbage.  With
    --wait, status 1 when one gave it up.
    """
    answers = order(find_servers(cluster_of(master), servers), "compact", wait, _compaction_work)
    texts = {"compaction": compaction_text, "garbage": lambda details: size_text(details.garbage_bytes)}
    show_rows(answers, as_json, "Compaction", texts)
    exit_unless(answers, lambda details: not (wait and details.compaction.problem))


@click.command("check-disk")
@_servers
@shared
def check_disk(master: str, as_json: bool, servers: tuple[str, ...]) -> None:
    """Try the disks of chunk servers.

    In the data directory of SERVER..., or of all, a file is written, synced, read back and removed.  Status
    1 when one failed.  A server whose disk fails to sync, or to give back what was written, is read-only
    from then on, until it is started again.
    """
    found = find_servers(cluster_of(master), servers)
    answers = order(found, "check-disk", True, _check_work, patience_s=CHECK_S_MAX)
    answers = [_still_checking(answer) for answer in answers]
    columns: dict[str, Callable[[ChunkDetails], str]] = {
        "result": lambda details: details.disk.problem or "all is well",
        "write": lambda details: disk_text(details.disk.write_us, details.disk.bytes),
        "sync": lambda details: disk_text(details.disk.sync_us, details.disk.bytes),
        "read": lambda details: disk_text(details.disk.read_us, details.disk.bytes),
    }
    show_rows(answers, as_json, "Disks", columns)
    exit_unless(answers, lambda details: not details.disk.problem)


def _still_checking(answer: Answer) -> Answer:
    if answer.details is None or not answer.details.disk.running:
        return answer
    return Answer(answer.server, error=f"its disk has not finished the check within {CHECK_S_MAX:g} s")


def _scrub_work(details: ChunkDetails) -> tuple[float, int]:
    return scrub_progress(details), details.scrub.read_bytes


def _compaction_work(details: ChunkDetails) -> tuple[float, int]:
    return compaction_progress(details), details.compaction.freed_bytes


def _check_work(details: ChunkDetails) -> tuple[float, int]:
    return (0.0 if details.disk.running else 1.0), 0


def _quarantined(details: ChunkDetails) -> str:
    return str(details.quarantined)


# --- reads and writes ------------------------------------------------------------------------------


@click.command("io-status")
@_servers
@click.option("--watch", is_flag=True, help="Again and again, with rates, until Ctrl-C.")
@click.option(
    "--interval-s",
    type=click.FloatRange(0.1, 3600),
    default=2.0,
    show_default=True,
    help="Between two rounds.",
)
@click.option("--rounds", type=click.IntRange(min=1), help="With --watch, so many rounds.")
@shared
def io_status(
    master: str, as_json: bool, servers: tuple[str, ...], watch: bool, interval_s: float, rounds: int | None
) -> None:
    """Show what servers read and write, and what waits.

    On SERVER..., or on all chunk servers, since their start.  With --watch and --json one object a line and
    round.
    """
    if rounds is not None and not watch:
        raise click.UsageError("--rounds goes with --watch")
    found = find_servers(cluster_of(master), servers)
    before: dict[str, ChunkDetails] = {}
    asked_at = 0.0
    answers: list[Answer] = []
    with contextlib.suppress(KeyboardInterrupt):
        for number in _rounds(rounds if watch else 1, interval_s):
            passed_s, asked_at = time.monotonic() - asked_at, time.monotonic()
            answers = ask_servers(found, "status")
            if watch and not as_json and sys.stdout.isatty():
                click.clear()
            if as_json:
                shown = [answer.as_json() for answer in answers]
                print_json_line(shown) if watch else print_json(shown)
            elif number == 0:
                show_rows(answers, False, "Since their start", TOTALS | WAITING)
            else:
                show_rows(answers, False, "A second", _rates(before, passed_s) | WAITING)
            before = {answer.server: answer.details for answer in answers if answer.details is not None}
    exit_unless(answers)


def _rounds(count: int | None, interval_s: float) -> Iterator[int]:
    number = 0
    while count is None or number < count:
        if number:
            time.sleep(interval_s)
        yield number
        number += 1


TOTALS: dict[str, Callable[[ChunkDetails], str]] = {
    "reads": lambda details: str(details.reads),
    "read": lambda details: size_text(details.read_bytes),
    "writes": lambda details: str(details.writes),
    "written": lambda details: size_text(details.written_bytes),
}
WAITING: dict[str, Callable[[ChunkDetails], str]] = {
    "reads waiting": lambda details: str(details.pending_reads),
    "writes waiting": lambda details: str(details.pending_writes),
    "bytes waiting": lambda details: size_text(details.pending_bytes),
    "oldest write": lambda details: duration_text(details.oldest_write_ms) if details.pending_writes else "",
}


def _rates(before: dict[str, ChunkDetails], passed_s: float) -> dict[str, Callable[[ChunkDetails], str]]:
    """Counters since the last round, a second; those of a server that was restarted begin anew."""

    def rate(name: str) -> Callable[[ChunkDetails], float]:
        def of(details: ChunkDetails) -> float:
            old = before.get(details.server)
            if old is None or old.incarnation != details.incarnation:
                return 0.0
            return (getattr(details, name) - getattr(old, name)) / passed_s  # type: ignore[no-any-return]

        return of

    return {
        "reads": lambda details: f"{rate('reads')(details):.0f}",
        "read": lambda details: size_text(int(rate("read_bytes")(details))),
        "writes": lambda details: f"{rate('writes')(details):.0f}",
        "written": lambda details: size_text(int(rate("written_bytes")(details))),
    }


@click.command("kill-pending")
@click.argument("servers", metavar="SERVER...", nargs=-1, required=True)
@yes_option
@shared
def kill_pending(master: str, as_json: bool, servers: tuple[str, ...], yes: bool) -> None:
    """End the writes that wait on SERVER...

    Those that have not begun.  Proxies write the same bytes to another group then, or answer their clients
    that they may try again: nothing that was acknowledged is touched, and deletions are ordered again.  What
    the disk is at cannot be ended.  For a server whose disk hangs: `set-status ro` keeps further writes away.
    """
    found = find_servers(cluster_of(master), servers)
    if not yes:
        names = ", ".join(node.server for node in found)
        click.confirm(f"End all writes that wait on {names}?", abort=True, err=True)
    answers = ask_servers(found, "kill-pending")
    columns: dict[str, Callable[[ChunkDetails], str]] = {"ended": lambda details: str(details.killed)}
    show_rows(answers, as_json, "Writes", columns | WAITING)
    exit_unless(answers)


@click.command()
@click.argument("server")
@shared
def details(master: str, as_json: bool, server: str) -> None:
    """Show all that the chunk server SERVER tells."""
    (answer,) = ask_servers(find_servers(cluster_of(master), [server]), "status")
    if answer.details is None:
        raise click.ClickException(f"{server}: {answer.error}")
    show_details(answer.details, as_json)


COMMANDS = (scrub, compact, check_disk, io_status, kill_pending, details)
