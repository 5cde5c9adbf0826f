"""What a chunk server tells its operator fits the protocol, whatever it is at."""

from __future__ import annotations

from fabric.chunk.details import FILES_MAX, chunk_details
from fabric.chunk.jobs import CompactionStatus, Status
from fabric.chunk.read_queue import ReadQueue
from fabric.chunk.standing import Standing
from fabric.chunk.upkeep import Upkeep
from fabric.chunk.write_queue import WriteQueue
from fabric.settings import Settings
from fabric.wire import codec
from fabric.wire.messages import ChunkDetails


def test_of_very_many_files_under_compaction_the_first_are_named() -> None:
    # Everything on a large server was deleted: all of its data files are compacted at once.
    upkeep = Upkeep(Settings())
    upkeep.compaction = CompactionStatus(running=True, files=list(range(1, 20_001)))
    details = chunk_details(
        "a",
        "test",
        1,
        standing=Standing("a"),
        status=Status(),
        upkeep=upkeep,
        reads=ReadQueue(1),
        writes=WriteQueue(),
        killed=0,
        now=0.0,
    )
    _, decoded = codec.decode(codec.encode(1, details))
    assert isinstance(decoded, ChunkDetails)
    assert decoded.compaction.files == list(range(1, FILES_MAX + 1))
