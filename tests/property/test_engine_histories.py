"""The same many histories at every run; other ones: see ``engine_histories``."""

from __future__ import annotations

import pytest

from tests.property.engine_histories import run_many, statistics

COUNT = 2000
SEED = 20260

AT_LEAST = {
    "put: acknowledged": 5000,
    "delete: acknowledged": 1500,
    "delete: NO_SPACE": 25,
    "put: NO_SPACE": 250,
    "put: DISK_FAILED": 150,
    "again: CONFLICT": 100,
    "again: acknowledged": 100,
    "get": 150,
    "ranged get": 100,
    "rolled to a new file": 1000,
    "compaction: copy": 1000,
    "compaction: switch": 1000,
    "compaction: forget": 500,
    "data files removed by compaction": 1000,
    "scrub: tombstones dropped": 3,
    "scrub: damaged fragments found": 5,
    "tombstone rotted and written anew": 20,
    "bit flipped": 150,
    "repair": 50,
    "kill": 250,
    "clean end": 150,
    "power cut": 1000,
    "power cut during a start": 50,
    "start failed by the disk": 30,
    "index rebuilt": 1000,
    "index condemned": 150,
    "cut before write": 25,
    "cut before sync": 25,
    "cut before index put": 10,
    "cut before index checkpoint": 1,
    "beside background: delete": 2,
    "beside background: put": 2,
    "beside background: repair": 1,
    "beside write: compact": 8,
    "beside write: scrub": 8,
}
"""So often each must have happened, that the test means something.

What happens less than ten times as often is left out: versions of hypothesis differ.  ``test_crash_points``
cuts before every single step.
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_history_keeps_its_promises() -> None:
    print(f"seed {SEED}")
    happened = run_many(COUNT, seed=SEED)
    print(statistics(happened))
    assert happened["histories"] >= COUNT
    rare = {what: happened[what] for what, count in AT_LEAST.items() if happened[what] < count}
    assert not rare
