"""Random kills and stops under load, for as long as ``FABRIC_STORM_S`` says."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.e2e.episodes import Episode, Fault, unexcused
from tests.e2e.ledger import Ledger, Version
from tests.e2e.load import Call
from tests.e2e.storm import storm_of_fabric_up

STORM_S = float(os.environ.get("FABRIC_STORM_S", "40"))
SEED = int(os.environ.get("FABRIC_STORM_SEED", "1"))


@pytest.mark.slow
@pytest.mark.timeout(STORM_S + 240)
def test_a_storm_costs_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    outcome = storm_of_fabric_up(tmp_path / "data", SEED, STORM_S, groups=2)

    print(outcome.summary)
    assert outcome.problems == [], outcome.summary


# --- the judges themselves ------------------------------------------------------------------------

GROUPS_OF = {"chunk-1": 1, "chunk-2": 1, "chunk-4": 2}


@pytest.mark.parametrize(
    ("subjects", "kind", "begun", "excused"),
    [
        (["chunk-1"], "put", 11.0, False),
        (["chunk-1", "chunk-2"], "put", 11.0, False),
        (["chunk-1", "chunk-4"], "put", 11.0, True),
        (["chunk-1", "chunk-4"], "get", 11.0, False),
        (["proxy"], "get", 11.0, True),
        (["master"], "put", 11.0, True),
        (["master"], "put", 40.0, False),
        (["master"], "put", 5.0, False),
        (["registry"], "put", 11.0, False),
        (["registry"], "push", 11.0, True),
    ],
)
def test_which_failures_an_episode_excuses(
    subjects: list[str], kind: str, begun: float, excused: bool
) -> None:
    episode = Episode([Fault("kill", subject, 0.0) for subject in subjects], 10.0, 12.0, 14.0)
    failed = Call(kind, begun, begun + 1.0, "UNAVAILABLE: gone")
    succeeded = Call(kind, begun, begun + 1.0, "")

    found = unexcused([failed, succeeded], [episode], GROUPS_OF)

    assert len(found) == (0 if excused else 1)


def test_a_ledger_knows_what_a_read_may_show() -> None:
    ledger = Ledger(seed=1)
    _, first = ledger.begin("a", 100)
    ledger.acknowledged("a")
    _, second = ledger.begin("a", 50)

    assert ledger.problem("a", 0.0, first) == ""
    assert ledger.problem("a", 0.0, second) == ""
    assert ledger.problem("a", 0.0, second[10:], offset=10) == ""
    ledger.acknowledged("a")
    now = time.monotonic()
    assert "possible: 2 of 50 B" in ledger.problem("a", now, first)
    assert ledger.problem("a", now, second) == ""
    assert ledger.problem("a", now, second[:-1]) != ""
    assert ledger.problem("a", now, None) != ""


def test_an_unknown_write_is_whole_or_not_at_all() -> None:
    ledger = Ledger(seed=1)
    version, new = ledger.begin("a", 5_000_000)
    ledger.unknown("a")

    assert version == Version(1, 5_000_000)
    assert ledger.problem("a", 0.0, None) == ""
    assert ledger.problem("a", 0.0, new) == ""
    assert ledger.problem("a", 0.0, new[:-1]) != ""
    assert ledger.problem("a", 0.0, new[:4096] + new[:4096] + new[8192:]) != ""
    with pytest.raises(AssertionError):
        ledger.begin("a", 1)
