"""What waits for the lanes: how much, for how long, how much is done, and how waiting ends early."""

from __future__ import annotations

from fabric.chunk.jobs import (
    BATCH_ITEMS_MAX,
    DeleteItem,
    Outcome,
    ReadDone,
    ReadItem,
    ReadResult,
    Status,
    StoreItem,
    StoreSeveral,
    WriteBatch,
    WriteDone,
    count,
)
from fabric.chunk.read_queue import ReadQueue
from fabric.chunk.read_queue import Ticket as ReadTicket
from fabric.chunk.write_queue import ITEM_BYTES, Ticket, WriteQueue
from fabric.errors import FabricError, NoFragment, NoSpace, Unavailable
from fabric.node.effects import Effect, Reply, Run, Sender
from fabric.wire.messages import FragmentRef, Noted

NEVER = float("inf")


class Told:
    """Remembers what each item was told."""

    def __init__(self) -> None:
        self.answers: dict[int, str] = {}

    def ticket(self, fid: int, expires_at: float = NEVER) -> Ticket:
        def done(outcome: Outcome, now: float) -> list[Effect]:
            assert fid not in self.answers, "told twice"
            self.answers[fid] = outcome.error.code if outcome.error else ""
            return [Reply(Sender(b"client", fid), Noted())]

        return Ticket(done, expires_at)

    def store(self, fid: int, size: int = 100) -> StoreItem:
        return StoreItem(self.ticket(fid), fid, 1, 1, 0, bytes(size))

    def delete(self, fid: int) -> DeleteItem:
        return DeleteItem(self.ticket(fid), fid, 1, 1)


def batch_of(effects: list[Effect]) -> WriteBatch:
    (effect,) = effects
    assert isinstance(effect, Run) and isinstance(effect.job, WriteBatch)
    return effect.job


def finished(batch: WriteBatch, *errors: FabricError | None) -> WriteDone:
    errors = errors or (None,) * len(batch.items)
    outcomes = [Outcome(item.token, error) for item, error in zip(batch.items, errors, strict=True)]
    return WriteDone(outcomes, Status())


def test_waiting_writes_are_ended_and_the_batch_on_the_lane_goes_on() -> None:
    told, queue = Told(), WriteQueue()
    queue.add(told.store(1))
    batch = batch_of(queue.take(0.0))
    for item in (told.store(2), told.delete(3), told.store(4)):
        queue.add(item)
    assert queue.take(1.0) == []

    killed, effects = queue.refuse_waiting(Unavailable("ended"), 2.0)
    assert (killed, len(effects)) == (3, 3)
    assert told.answers == {2: "UNAVAILABLE", 3: "UNAVAILABLE", 4: "UNAVAILABLE"}
    assert (queue.pending, queue.pending_bytes) == (1, ITEM_BYTES + 100)

    queue.finish(finished(batch), 3.0)
    assert told.answers[1] == ""
    assert (queue.pending, queue.pending_bytes, queue.is_idle) == (0, 0, True)
    assert queue.refuse_waiting(Unavailable("ended"), 4.0) == (0, [])
    queue.add(told.store(5))
    assert [item.fid for item in batch_of(queue.take(5.0)).items] == [5]


def test_the_oldest_write_counts_from_when_it_came_also_in_the_lane() -> None:
    told, queue = Told(), WriteQueue()
    assert queue.oldest_s(5.0) == 0.0
    queue.add(told.store(1))
    first = batch_of(queue.take(10.0))
    for fid, now in ((2, 11.0), (3, 12.0)):
        queue.add(told.store(fid))
        queue.take(now)
    assert queue.oldest_s(13.0) == 3.0
    queue.finish(finished(first), 14.0)
    assert queue.oldest_s(14.0) == 3.0
    second = batch_of(queue.take(14.0))
    assert queue.oldest_s(16.0) == 5.0, "fid 2 came at 11"
    queue.finish(finished(second), 17.0)
    assert queue.oldest_s(17.0) == 0.0


def test_an_item_that_is_late_passes_its_age_to_nobody() -> None:
    told, queue = Told(), WriteQueue()
    queue.add(told.store(1))
    first = batch_of(queue.take(0.0))
    queue.add(StoreItem(told.ticket(2, expires_at=5.0), 2, 1, 1, 0, b"x"))
    queue.take(1.0)
    queue.add(told.store(3))
    queue.take(8.0)
    queue.finish(finished(first), 9.0)
    effects = queue.take(9.0)
    assert told.answers[2] == "DEADLINE"
    assert isinstance(effects[-1], Run)
    assert queue.oldest_s(10.0) == 2.0


def test_stored_fragments_are_counted_and_what_failed_or_deleted_is_not() -> None:
    told, queue = Told(), WriteQueue()
    for item in (told.store(1, 100), told.delete(2), told.store(3, 50), told.store(4, 7)):
        queue.add(item)
    batch = batch_of(queue.take(0.0))
    assert queue.pending == 4
    queue.finish(finished(batch, None, None, NoSpace("full"), None), 1.0)
    assert (queue.stored_count, queue.stored_bytes) == (2, 107)


def test_fragments_that_came_together_are_counted_one_by_one() -> None:
    told, queue = Told(), WriteQueue()
    fragments = [FragmentRef(1, fid, length, 0) for fid, length in ((5, 10), (6, 20), (7, 40))]
    together = StoreSeveral(told.ticket(5), 1, 1, fragments, memoryview(bytes(70)))
    queue.add(told.delete(1))
    queue.add(together)
    assert (queue.pending, queue.pending_bytes) == (4, 4 * ITEM_BYTES + 70)
    batch = batch_of(queue.take(0.0))
    queue.add(together)
    assert queue.pending == 7
    outcomes = [Outcome(batch.items[0].token), Outcome(together.token, None, {1: NoSpace("full")})]
    queue.finish(WriteDone(outcomes, Status()), 1.0)
    assert (queue.stored_count, queue.stored_bytes) == (2, 50)
    assert (queue.pending, queue.pending_bytes) == (3, 3 * ITEM_BYTES + 70)
    told.answers.clear()
    assert queue.refuse_waiting(Unavailable("ended"), 2.0)[0] == 3
    assert told.answers == {5: "UNAVAILABLE"}
    assert (queue.pending, queue.pending_bytes, queue.is_idle) == (0, 0, True)


def test_a_batch_is_full_by_its_fragments() -> None:
    told, queue = Told(), WriteQueue()
    for first in range(0, 1000, 100):
        fragments = [FragmentRef(1, fid, 1, 0) for fid in range(first, first + 100)]
        queue.add(StoreSeveral(told.ticket(first), 1, 1, fragments, memoryview(bytes(100))))
    assert sum(map(count, batch_of(queue.take(0.0)).items)) == -(-BATCH_ITEMS_MAX // 100) * 100


def test_reads_are_counted_while_they_wait_while_they_run_and_when_they_gave_bytes() -> None:
    queue = ReadQueue(threads=1)
    items = [ReadItem(ReadTicket(lambda result, now: [], NEVER), fid, 0, 300_000) for fid in (1, 2, 3)]
    for item in items:
        queue.add(item)
    assert queue.pending == 3
    queue.take(0.0)
    assert queue.pending == 3, "one runs, two wait"
    queue.finish(ReadDone([ReadResult(items[0].token, b"x" * 300_000, 1)]), 1.0)
    assert (queue.pending, queue.done_count, queue.done_bytes) == (2, 1, 300_000)
    queue.take(1.0)
    queue.finish(ReadDone([ReadResult(items[1].token, error=NoFragment("gone"))]), 2.0)
    assert (queue.pending, queue.done_count, queue.done_bytes) == (1, 1, 300_000)
