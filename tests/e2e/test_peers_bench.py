"""The benchmark beside other systems runs, measures, says what it lacks, and cleans up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_bench(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.peers", *options]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


@pytest.mark.slow
def test_a_row_of_the_fabric_alone_is_measured_and_leaves_nothing_behind(tmp_path: Path) -> None:
    work, result = tmp_path / "work", tmp_path / "results" / "peers.json"

    done = run_bench("--quick", "--only", "get-beside-puts", "--work", str(work), "--json", str(result))

    assert done.returncode == 0, done.stdout + done.stderr
    assert list(work.iterdir()) == []
    report = json.loads(result.read_text())
    (row,) = report["outcomes"]
    beside, idle = row["sides"]
    assert (beside["name"], idle["name"]) == ("beside puts", "idle")
    assert len(beside["runs"]) == len(idle["runs"]) == 1
    assert beside["medians"]["put_megabytes_per_s"] > 0
    (figure,) = row["figures"]
    assert figure["value"] == "p99_ms"
    assert figure["ratio"] == pytest.approx(beside["medians"]["p99_ms"] / idle["medians"]["p99_ms"], abs=1e-3)
    assert report["revision"]["commit"] and report["machine"]["cores"] > 0


def test_a_row_whose_program_is_missing_is_told_and_the_status_says_so(tmp_path: Path) -> None:
    result = tmp_path / "peers.json"
    options = ("--quick", "--only", "skopeo", "--work", str(tmp_path / "work"), "--json", str(result))

    done = run_bench(*options, PATH="/nowhere")

    assert done.returncode == 1
    assert "not measured: skopeo: skopeo is not installed: apt-get install skopeo" in done.stdout
    (row,) = json.loads(result.read_text())["outcomes"]
    assert row["figures"] == [] and "not installed" in row["failure"]
    assert list((tmp_path / "work").iterdir()) == []


def test_rows_are_listed_and_chosen_by_name(tmp_path: Path) -> None:
    listed = run_bench("--list", "--only", "pull-*", "--work", str(tmp_path))
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [
        "pull-256MiB-c1",
        "pull-256MiB-c4",
        "pull-256MiB-c16",
    ]

    unknown = run_bench("--only", "nothing", "--work", str(tmp_path))
    assert unknown.returncode == 2
    assert "no row matches nothing" in unknown.stderr
