"""Orders to many chunk servers at once: given, waited for, and shown as one row a server."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

import msgspec

from fabric.cli.admin_common import LOOK_S, PATIENCE_S, Answer, ask_servers
from fabric.cli.output import duration_text, print_json, print_table, share_bar, size_text
from fabric.wire.messages import ChunkDetails, NodeStatus

Work = Callable[[ChunkDetails], tuple[float, int]]
"""How much of it a server has done (1.0: all), and a count of bytes that grows with it."""


class _Server(msgspec.Struct):
    """One that was given an order."""

    node: NodeStatus
    answer: Answer
    heard_at: float
    incarnation: int = 0
    share: float = 0.0
    bytes_before: int = 0
    bytes_now: int = 0

    @property
    def is_done(self) -> bool:
        """Nothing more is to be learned of it."""
        return self.answer.details is None or self.share >= 1.0

    def hear(self, answer: Answer, now: float, work: Work) -> None:
        """Take over what it says; that it is silent only when that has lasted too long."""
        if answer.details is None:
            if now - self.heard_at >= PATIENCE_S:
                self.answer = answer
            return
        if answer.details.incarnation != self.incarnation:
            self.answer = Answer(answer.server, error="it was restarted meanwhile: ask it again")
            return
        self.answer, self.heard_at = answer, now
        self.share, self.bytes_now = work(answer.details)


def order(
    nodes: Sequence[NodeStatus], action: str, wait: bool, work: Work, patience_s: float | None = None
) -> list[Answer]:
    """Ask for it; with ``wait`` the answers are those at its end, or after ``patience_s``."""
    began = time.monotonic()
    servers = [
        _Server(node, answer, began) for node, answer in zip(nodes, ask_servers(nodes, action), strict=True)
    ]
    for server in servers:
        if (details := server.answer.details) is not None:
            server.incarnation = details.incarnation
            server.share, server.bytes_before = work(details)
            server.bytes_now = server.bytes_before
    if wait:
        _wait_for(servers, f"{action}, {len(nodes)} servers", work, patience_s)
    return [server.answer for server in servers]


def _wait_for(servers: Sequence[_Server], title: str, work: Work, patience_s: float | None) -> None:
    began = now = time.monotonic()
    with share_bar(title) as show:
        while waiting := [server for server in servers if not server.is_done]:
            if patience_s is not None and now - began > patience_s:
                return
            show(*_progress(servers, now - began))
            time.sleep(LOOK_S)
            answers = ask_servers([server.node for server in waiting], "status")
            now = time.monotonic()
            for server, answer in zip(waiting, answers, strict=True):
                server.hear(answer, now, work)
        show(1.0)


def _progress(servers: Sequence[_Server], passed_s: float) -> tuple[float, str]:
    """The share that is done over all of them; and the rate, and the time left at this pace."""
    share = sum(1.0 if server.is_done else server.share for server in servers) / len(servers)
    moved = sum(max(0, server.bytes_now - server.bytes_before) for server in servers)
    parts = []
    if passed_s > 0 and moved:
        parts.append(f"{size_text(int(moved / passed_s))}/s")
    if passed_s > 0 and share > 0:
        parts.append(f"{duration_text(int(1000 * passed_s * (1.0 - share) / share))} left")
    return share, ", ".join(parts)


def show_rows(
    answers: Sequence[Answer], as_json: bool, title: str, columns: dict[str, Callable[[ChunkDetails], str]]
) -> None:
    """A row a server, with these columns of what it said; a column for why it said nothing when one did."""
    if as_json:
        print_json([answer.as_json() for answer in answers])
        return
    names = ["server", *columns]
    is_any_silent = any(answer.details is None for answer in answers)
    if is_any_silent:
        names.insert(1, "problem")
    rows = []
    for answer in answers:
        told = answer.details
        cells = [text(told) if told is not None else "" for text in columns.values()]
        problem = [answer.error] if is_any_silent else []
        rows.append([answer.server, *problem, *cells])
    print_table(title, names, rows)


def exit_unless(
    answers: Sequence[Answer], is_well: Callable[[ChunkDetails], bool] = lambda details: True
) -> None:
    """End with status 1 when a server did not answer, or is not well."""
    if not all(answer.details is not None and is_well(answer.details) for answer in answers):
        sys.exit(1)
