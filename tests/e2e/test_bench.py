"""The benchmark runs, measures every kind of case without errors, and cleans up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.e2e
@pytest.mark.timeout(180)
def test_quick_measures_everything_and_leaves_nothing_behind(tmp_path: Path) -> None:
    work, result = tmp_path / "work", tmp_path / "results" / "result.json"
    command = [sys.executable, "-m", "bench", "--quick", "--work", str(work), "--json", str(result)]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(result.read_text())
    assert report["quick"] is True
    figures = {figure["name"]: figure for figure in report["figures"]}
    assert {figure["operation"] for figure in figures.values()} == {
        "put", "get", "get-mutable", "push-patch", "push-put", "pull",
    }  # fmt: skip
    for figure in figures.values():
        assert figure["errors"] == 0
        assert figure["rate_per_s"] > 0 and figure["p99_ms"] >= figure["p50_ms"] > 0
        assert all(reached > 0 for reached in figure["ratios"].values())
    assert set(figures["put-1KiB-c16"]["limits"]) == {"disk", "wire"}
    assert figures["get-1KiB-c16"]["target"] == "≥ 4000 objects/s"
    assert {role["name"] for role in report["memory"]} >= {
        "master",
        "chunk-1",
        "chunk-3",
        "proxy",
        "registry",
    }
    assert all(role["peak_bytes"] > 10 * 2**20 for role in report["memory"])
    assert report["restarted"] == []
    assert list(work.iterdir()) == []


def test_a_name_that_matches_nothing_is_a_usage_error() -> None:
    command = [sys.executable, "-m", "bench", "--only", "no-such-case"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 2
    assert "--list" in done.stderr


@pytest.mark.e2e
@pytest.mark.timeout(180)
def test_the_engine_bench_measures_everything_and_leaves_nothing_behind(tmp_path: Path) -> None:
    work, result = tmp_path / "work", tmp_path / "results" / "engine.json"
    command = [sys.executable, "-m", "bench.engine", "--quick", "--runs", "1"]
    command += ["--work", str(work), "--json", str(result)]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    figures = {figure["name"]: figure for figure in json.loads(result.read_text())["figures"]}
    assert len(figures) == 9
    assert all(figure["value"] > 0 for figure in figures.values())
    assert figures["20,000 fragments: data reads a get"]["value"] == 1.0
    assert figures["put 1 KiB, 64 in flight"]["value"] > 1
    assert list(work.iterdir()) == []
