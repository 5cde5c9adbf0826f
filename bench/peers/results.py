"""The result file: the machine, the commit, every run, every figure."""

from __future__ import annotations

import datetime
from pathlib import Path

import msgspec

from bench.machine import Machine, Revision
from bench.peers.figures import Outcome
from bench.peers.stage import Effort

FORMAT = 1
PREFIX = "peers-"


class Report(msgspec.Struct):
    """Everything."""

    format: int
    started_at: str
    elapsed_s: float
    quick: bool
    effort: Effort
    machine: Machine
    revision: Revision
    versions: dict[str, str]
    """Of the programs of other people."""
    outcomes: list[Outcome]


def file_name(report: Report) -> str:
    """``peers-DATE-COMMIT.json``, with the commit marked when files differ from it."""
    at = datetime.datetime.fromisoformat(report.started_at)
    mark = "-changed" if report.revision.changed else ""
    return f"{PREFIX}{at:%Y%m%dT%H%M%S}-{report.revision.commit[:10] or 'no-commit'}{mark}.json"


def save(report: Report, path: Path) -> None:
    """Write the file, making its folder.  Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")


def load(path: Path) -> Report:
    """Read a result file.  Raises OSError, msgspec.DecodeError (also for another format)."""
    report = msgspec.json.decode(path.read_bytes(), type=Report)
    if report.format != FORMAT:
        raise msgspec.ValidationError(f"{path} has format {report.format}, not {FORMAT}")
    return report


def newest(directory: Path) -> Path | None:
    """The result file that was written last; None when there is none."""
    return max(directory.glob(f"{PREFIX}*.json"), key=lambda path: path.stat().st_mtime, default=None)
