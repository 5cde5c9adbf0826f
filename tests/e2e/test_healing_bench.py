"""The benchmark of healing runs, measures every figure, and cleans up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_bench(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.healing", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
@pytest.mark.timeout(320)
def test_quick_measures_every_figure_and_leaves_nothing_behind(tmp_path: Path) -> None:
    work, result = tmp_path / "work", tmp_path / "results" / "healing.json"

    done = run_bench("--quick", "--work", str(work), "--json", str(result))

    assert done.returncode == 0, done.stdout + done.stderr
    assert list(work.iterdir()) == []
    report = json.loads(result.read_text())
    assert report["quick"] is True
    figures = {figure["name"]: figure for figure in report["figures"]}
    assert all(len(figure["runs"]) == 1 for figure in figures.values())
    for name in ("kill: longest put", "kill: longest get", "rebuild: of the limit"):
        assert figures[name]["value"] > 0
    # However slow the machine is:
    for name, figure in figures.items():
        if name.endswith("failed calls") or name == "return: copied beyond what it missed":
            assert figure["value"] == 0, figure


def test_cases_are_listed_and_chosen_by_name(tmp_path: Path) -> None:
    listed = run_bench("--list", "--only", "re*", "--work", str(tmp_path))
    assert listed.stdout.split()[:2] == ["return", "rebuild"]

    unknown = run_bench("--only", "nothing", "--work", str(tmp_path))
    assert unknown.returncode == 2
    assert "no case matches nothing" in unknown.stderr
