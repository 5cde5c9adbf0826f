"""Answers to commits wait for those who keep copies of the names; new names wait for nobody."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from fabric.errors import Busy
from fabric.master.watchers import (
    CHANGES_PER_TERM_MAX,
    PATHS_MAX,
    PREFIXES_MAX,
    WATCHERS_MAX,
    Watchers,
)
from fabric.node.effects import Effect, Reply, Sender
from fabric.wire.messages import (
    AnyOperation,
    AppendOperation,
    Changes,
    CheckOperation,
    Commit,
    Committed,
    DeleteOperation,
    Failed,
    JoinOperation,
    MoveOperation,
    PutOperation,
    Watch,
)
from tests.unit.master.bench import MasterBench

LEASE_S = 2.0
ONE, TWO = b"1" * 16, b"2" * 16
NEW = -1
BASE = CHANGES_PER_TERM_MAX
"""The number of the change before the first one of term 1."""


class Answers:
    """Watchers of ``r/``, and what they were told."""

    def __init__(self, prefixes: Sequence[str] = (), now: float = 0.0) -> None:
        self.watchers = Watchers(LEASE_S)
        self.watchers.start(prefixes, 1, now)
        self._asked = 0

    def watch(self, name: bytes, seen: int, now: float, deadline_ms: int = 2000) -> list[Changes]:
        """``seen`` counts from the begin of this life; ``NEW``: somebody who has seen nothing."""
        self._asked += 1
        message = Watch(deadline_ms, name, seen + BASE if seen != NEW else 0, ["r/"])
        self.watchers.add_prefixes(self.watchers.new_prefixes(message))
        return told(self.watchers.watch(message, Sender(name, self._asked), now))

    def change(self, number: int, *paths: str, now: float) -> list[Effect]:
        return self.watchers.after_change(paths, [answer(number)], now)


def answer(number: int) -> Effect:
    return Reply(Sender(b"client", number), Committed([]))


def changes(sequence: int, *paths: str, lost: bool = False) -> Changes:
    return Changes(BASE + sequence, list(paths), lost, 2000)


def told(effects: list[Effect]) -> list[Changes]:
    return [e.message for e in effects if isinstance(e, Reply) and isinstance(e.message, Changes)]


def test_a_first_watch_is_told_at_once_to_know_nothing() -> None:
    assert Answers().watch(ONE, NEW, 0.0) == [changes(0, lost=True)]


def test_a_change_of_a_watched_name_is_confirmed_when_its_watcher_has_seen_it() -> None:
    answers = Answers()
    answers.watch(ONE, NEW, 0.0)
    assert answers.watch(ONE, 0, 0.1) == []

    effects = answers.change(1, "r/a", now=0.2)
    assert effects == [Reply(Sender(ONE, 2), changes(1, "r/a"))]
    assert len(answers.watchers) == 1

    effects = answers.watchers.watch(Watch(2000, ONE, BASE + 1, ["r/"]), Sender(ONE, 3), 0.3)
    assert effects == [answer(1)]
    assert len(answers.watchers) == 0


def test_it_waits_for_all_watchers_but_not_longer_than_their_leases() -> None:
    answers = Answers()
    for name in (ONE, TWO):
        answers.watch(name, NEW, 0.0)
    answers.watch(TWO, 0, 1.0)
    assert answers.change(1, "r/a", now=1.1) == [Reply(Sender(TWO, 3), changes(1, "r/a"))]
    assert answers.watch(TWO, 1, 1.2) == []
    assert answers.watchers.next_deadline() == 1.7, "TWO is answered before ONE's lease ends"
    assert told(answers.watchers.on_tick(1.7)) == [changes(1)]
    assert answers.watchers.next_deadline() == 2.0
    assert answers.watchers.on_tick(1.999) == []
    assert answers.watchers.on_tick(2.0) == [answer(1)]


def test_other_names_and_commits_without_changes_wait_for_nobody() -> None:
    answers = Answers()
    answers.watch(ONE, NEW, 0.0)
    assert answers.change(1, "u/a", now=0.1) == [answer(1)]
    assert answers.change(2, now=0.1) == [answer(2)]


def test_answers_leave_in_the_order_of_the_changes() -> None:
    answers = Answers()
    answers.watch(ONE, NEW, 0.0)
    for number in (1, 2, 3):
        assert answers.change(number, f"r/{number}", now=0.1) == []
    assert answers.watch(ONE, 0, 0.2) == [changes(3, "r/1", "r/2", "r/3")]
    sender = Sender(ONE, 9)
    assert answers.watchers.watch(Watch(2000, ONE, BASE + 2, ["r/"]), sender, 0.3) == [
        Reply(sender, changes(3, "r/3")), answer(1), answer(2),
    ]  # fmt: skip


def test_who_missed_much_lets_go_of_everything() -> None:
    answers = Answers()
    answers.watch(ONE, NEW, 0.0)
    answers.change(1, *(f"r/{number}" for number in range(PATHS_MAX)), now=0.1)
    (first,) = answers.watch(ONE, 0, 0.2)
    assert (len(first.paths), first.lost) == (PATHS_MAX, False)
    answers.change(2, "r/more", now=0.3)
    assert answers.watch(ONE, 0, 0.4) == [changes(PATHS_MAX + 1, lost=True)]
    assert len(answers.watchers) == 2, "it has yet to let go"
    answers.watch(ONE, PATHS_MAX + 1, 0.5)
    assert len(answers.watchers) == 0


def test_a_question_is_answered_before_its_deadline_and_by_the_next_one() -> None:
    answers = Answers()
    answers.watch(ONE, NEW, 0.0)
    answers.watch(ONE, 0, 1.0, deadline_ms=200)
    assert answers.watchers.next_deadline() == pytest.approx(1.1)
    assert answers.watch(ONE, 0, 1.05) == [changes(0)], "the one before it"


def test_a_watcher_that_comes_back_late_is_told_what_it_missed() -> None:
    answers = Answers()
    answers.watch(ONE, NEW, 0.0)
    answers.change(1, "r/a", now=2.5)
    assert len(answers.watchers) == 0
    assert answers.watch(ONE, 0, 2.6) == [changes(1, "r/a")]


def test_a_question_that_comes_once_more_hides_nothing_from_its_watcher() -> None:
    answers = Answers()
    answers.watch(ONE, NEW, 0.0)
    answers.change(1, "r/a", now=2.5)
    assert answers.watch(ONE, NEW, 2.6) == [changes(1, lost=True)], "a copy, its answer goes nowhere"
    assert answers.watch(ONE, 0, 2.7) == [changes(1, "r/a")]


def test_a_number_of_an_earlier_life_means_nothing() -> None:
    answers = Answers()
    answers.watchers.start(["r/"], 2, 0.0)
    assert answers.watch(ONE, 0, 0.1) == [Changes(2 * BASE, [], True, 2000)]
    answers.watchers.start(["r/"], 1, 0.0)
    assert answers.watch(TWO, BASE, 0.1) == [changes(0, lost=True)]


def test_caches_of_an_earlier_life_are_waited_for_where_something_was_watched() -> None:
    answers = Answers(["r/"], now=10.0)
    assert answers.change(1, "u/a", now=10.1) == [answer(1)]
    assert answers.change(2, "r/a", now=10.2) == []
    assert answers.watchers.next_deadline() == 12.0
    assert answers.watchers.on_tick(11.9) == []
    assert answers.watchers.on_tick(12.0) == [answer(2)]
    assert answers.change(3, "r/a", now=12.1) == [answer(3)]

    answers = Answers(["r/"], now=10.0)
    answers.watch(ONE, NEW, 11.0)
    assert answers.change(4, "r/a", now=11.1) == []
    assert answers.watchers.on_tick(12.0) == []
    assert answers.watchers.next_deadline() == 13.0, "time goes on"

    assert Answers(now=10.0).change(1, "r/a", now=10.1) == [answer(1)]


@pytest.mark.parametrize(
    ("operation", "waits"),
    [
        (PutOperation("r/a", []), True),
        (PutOperation("u/a", []), False),
        (AppendOperation("r/a", [], 0), True),
        (DeleteOperation("r/a"), True),
        (MoveOperation("r/a", "u/a"), True),
        (MoveOperation("u/a", "r/a"), True),
        (MoveOperation("u/a", "u/b"), False),
        (JoinOperation("u/a", "r/a", 0), True),
        (JoinOperation("r/a", "u/a", 0), True),
        (CheckOperation("r/a", -1), False),
    ],
)
def test_a_repeated_commit_waits_as_its_first_did(operation: AnyOperation, waits: bool) -> None:
    answers = Answers()
    answers.watch(ONE, NEW, 0.0)
    assert answers.change(1, "r/a", now=0.1) == []
    effects = answers.watchers.after_repetition([operation], [answer(2)], 0.2)
    assert effects == ([] if waits else [answer(2)])


def test_there_are_not_too_many() -> None:
    answers = Answers()
    for number in range(WATCHERS_MAX):
        answers.watch(number.to_bytes(16, "big"), NEW, 0.0)
    with pytest.raises(Busy):
        answers.watch(b"x" * 16, NEW, 0.0)
    watchers = Watchers(LEASE_S)
    watchers.add_prefixes(f"{number}/" for number in range(PREFIXES_MAX))
    assert watchers.new_prefixes(Watch(0, ONE, 0, ["1/2"])) == []
    with pytest.raises(Busy):
        watchers.new_prefixes(Watch(0, ONE, 0, ["r/"]))


# --- in the master ----------------------------------------------------------------------------------


def put(bench: MasterBench, path: str, **attributes: str) -> list[Effect]:
    return commit(bench, [PutOperation(path, [], attributes=attributes)])


def commit(bench: MasterBench, operations: list[AnyOperation], operation_id: bytes = b"") -> list[Effect]:
    return bench.tell(Commit(5000, operation_id or random.randbytes(16), operations))


def is_answered(effects: list[Effect]) -> bool:
    return any(isinstance(e, Reply) and isinstance(e.message, Committed) for e in effects)


@pytest.fixture
def bench() -> MasterBench:
    """A master with ``r/a``, which somebody watches."""
    bench = MasterBench()
    put(bench, "r/a", digest="1")
    assert told(bench.tell(Watch(2000, ONE, 0, ["r/"]))) == [changes(0, lost=True)]
    return bench


@pytest.mark.parametrize(
    "operations",
    [
        [PutOperation("r/a", [], attributes={"digest": "2"})],
        [AppendOperation("r/a", [], 0, {"leaving": "1"})],
        [DeleteOperation("r/a")],
        [MoveOperation("r/a", "u/a")],
        [PutOperation("u/a", []), MoveOperation("u/a", "r/a")],
    ],
)
def test_replacing_and_removing_waits_for_the_watcher(
    bench: MasterBench, operations: list[AnyOperation]
) -> None:
    assert not is_answered(commit(bench, operations))
    effects = bench.tell(Watch(2000, ONE, BASE, ["r/"]))
    assert told(effects)[0].paths == ["r/a"] and not is_answered(effects)
    assert is_answered(bench.tell(Watch(2000, ONE, told(effects)[0].sequence, ["r/"])))


@pytest.mark.parametrize(
    "operations",
    [
        [PutOperation("r/b", [])],
        [PutOperation("r/a", [], attributes={"digest": "1"})],
        [AppendOperation("r/a", [], 0, {"leaving": ""})],
        [DeleteOperation("r/b", missing_ok=True)],
        [CheckOperation("r/a", -1)],
        [PutOperation("u/a", []), DeleteOperation("u/a")],
    ],
)
def test_what_no_reader_can_notice_waits_for_nobody(
    bench: MasterBench, operations: list[AnyOperation]
) -> None:
    assert is_answered(commit(bench, operations))


def test_a_repetition_is_not_answered_before_the_first_one_would_be(bench: MasterBench) -> None:
    operations: list[AnyOperation] = [DeleteOperation("r/a")]
    assert not is_answered(commit(bench, operations, b"x" * 16))
    assert not is_answered(commit(bench, operations, b"x" * 16))
    assert is_answered(bench.tick(LEASE_S))


def test_the_next_life_waits_for_the_watchers_of_this_one(bench: MasterBench) -> None:
    bench.restart()
    assert not is_answered(put(bench, "r/a", digest="2"))
    assert is_answered(put(bench, "r/new"))
    assert is_answered(bench.tick(LEASE_S))


def test_a_master_that_waits_for_too_much_is_busy(
    bench: MasterBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fabric.master.role.QUEUE_MAX", 3)
    for number in range(3):
        put(bench, "r/a", digest=f"new {number}")
    (effect,) = put(bench, "r/a", digest="more")
    assert isinstance(effect, Reply) and isinstance(effect.message, Failed)
    assert effect.message.code == "BUSY"
