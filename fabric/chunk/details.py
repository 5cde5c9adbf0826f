"""What a chunk server tells its operator of itself."""

from __future__ import annotations

from fabric.chunk.jobs import Status
from fabric.chunk.read_queue import ReadQueue
from fabric.chunk.standing import Standing
from fabric.chunk.upkeep import Upkeep
from fabric.chunk.write_queue import WriteQueue
from fabric.wire.messages import ChunkDetails, CompactionDetails, ScrubDetails

FILES_MAX = 1000
"""Of the files under compaction, so many are named: where all was deleted there are any number."""


def chunk_details(
    server: str,
    version: str,
    incarnation: int,
    *,
    standing: Standing,
    status: Status,
    upkeep: Upkeep,
    reads: ReadQueue,
    writes: WriteQueue,
    killed: int,
    now: float,
) -> ChunkDetails:
    """Everything in one message, as of the engine's last word; ``killed`` as in ``ChunkDetails``."""
    scrub, compaction = upkeep.scrub, upkeep.compaction
    return ChunkDetails(
        server=server,
        version=version,
        incarnation=incarnation,
        group=standing.group,
        epoch=standing.epoch,
        mode=standing.mode,
        read_only_reason=status.read_only_reason,
        fragments=status.fragments,
        live_bytes=status.live_bytes,
        files=status.files,
        data_bytes=status.data_bytes,
        garbage_bytes=status.garbage_bytes,
        free_bytes=status.free_bytes,
        capacity_bytes=status.capacity_bytes,
        pending_bytes=writes.pending_bytes,
        quarantined=status.quarantined,
        scrub=ScrubDetails(
            running=scrub.running,
            ordered=upkeep.is_scrub_ordered,
            progress=scrub.progress,
            passes=scrub.passes,
            started_at_ms=scrub.started_at_ms,
            finished_at_ms=scrub.finished_at_ms,
            records=scrub.records,
            read_bytes=scrub.read_bytes,
            damaged=scrub.damaged,
        ),
        compaction=CompactionDetails(
            running=compaction.running,
            ordered=upkeep.is_compaction_ordered,
            progress=compaction.progress,
            files=compaction.files[:FILES_MAX],
            finished=compaction.finished,
            freed_bytes=compaction.freed_bytes,
            problem=compaction.problem,
        ),
        reads=reads.done_count,
        read_bytes=reads.done_bytes,
        writes=writes.stored_count,
        written_bytes=writes.stored_bytes,
        pending_reads=reads.pending,
        pending_writes=writes.pending,
        oldest_write_ms=int(writes.oldest_s(now) * 1000),
        killed=killed,
        disk=upkeep.disk,
    )
