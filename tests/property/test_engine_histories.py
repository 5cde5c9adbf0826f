"""The same many histories at every run; other ones: see ``engine_histories``."""

from __future__ import annotations

import pytest

from tests.property.engine_histories import run_many, statistics

COUNT = 2000

AT_LEAST = {
    "put: acknowledged": 10_000,
    "delete: acknowledged": 3000,
    "delete: NO_SPACE": 50,
    "put: NO_SPACE": 500,
    "put: DISK_FAILED": 300,
    "again: CONFLICT": 200,
    "again: acknowledged": 200,
    "get": 300,
    "ranged get": 200,
    "rolled to a new file": 2000,
    "compaction: copy": 2000,
    "compaction: switch": 2000,
    "compaction: forget": 1000,
    "data files removed by compaction": 2000,
    "scrub: tombstones dropped": 10,
    "scrub: damaged fragments found": 10,
    "tombstone rotted and written anew": 50,
    "bit flipped": 300,
    "repair": 100,
    "kill": 500,
    "clean end": 300,
    "power cut": 2000,
    "power cut during a start": 100,
    "start failed by the disk": 50,
    "index rebuilt": 2000,
    "index condemned": 300,
    "cut before write": 50,
    "cut before sync": 50,
    "cut before index put": 30,
    "cut before index checkpoint": 5,
    "cut before sync (of compaction)": 5,
    "cut before remove": 3,
    "beside background: delete": 20,
    "beside background: put": 8,
    "beside background: repair": 5,
    "beside write: compact": 20,
    "beside write: scrub": 20,
}
"""So often each must have happened, that the test means something."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_history_keeps_its_promises() -> None:
    happened = run_many(COUNT)
    print(statistics(happened))
    assert happened["histories"] >= COUNT
    rare = {what: happened[what] for what, count in AT_LEAST.items() if happened[what] < count}
    assert not rare
