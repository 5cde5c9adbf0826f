"""A header that rots between its writing by compaction and the switch of its entry ended the server for good.

It was taken for a bug of the server's own (an assertion), and the lane that writes died with it.  Now the
next start finds out from the data files what is where: both copies are there.
"""

from __future__ import annotations

import pytest

from fabric.chunk.compaction import SWITCH
from fabric.chunk.data_file import file_name
from fabric.chunk.jobs import CompactDone
from fabric.chunk.record import SUPERBLOCK_BYTES, record_bytes
from tests.unit.chunk.ledger import audit
from tests.unit.chunk.test_compaction import LENGTH, delete, filled, payload_of, until


@pytest.mark.parametrize("place", [0, 3])
def test_a_damaged_output_is_not_switched_to_and_nothing_is_lost(place: int) -> None:
    bench = filled(100)
    dead = range(2, 100, 3)
    bench.write(*map(delete, dead))
    follow = until(bench.engine, SWITCH)
    output = bench.engine._compaction._run.output  # type: ignore[union-attr]
    assert output is not None
    bench.disk.flip(file_name(output.number), SUPERBLOCK_BYTES + place * record_bytes(LENGTH) + 9)

    done = bench.engine.run(follow)

    assert isinstance(done, CompactDone)
    assert "damaged before its records were switched to" in done.status.restart_reason
    after = bench.killed()
    alive = set(range(1, 101)) - set(dead)
    assert after.live().keys() == alive
    assert all(after.content(fid, LENGTH) == payload_of(fid, LENGTH) for fid in alive)
    after.compact()
    assert all(after.content(fid, LENGTH) == payload_of(fid, LENGTH) for fid in alive)
    audit(after)
