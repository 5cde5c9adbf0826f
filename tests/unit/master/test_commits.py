"""Operations: each by itself, several in one commit, repeated, and across a restart."""

from __future__ import annotations

import pytest

from fabric.errors import FidExpired
from fabric.node.effects import Publish, Reply
from fabric.settings import FRAGMENTS_PER_PAGE_MAX
from fabric.wire.messages import (
    AnyOperation,
    AppendOperation,
    CatalogChanged,
    CheckOperation,
    Committed,
    DeleteOperation,
    Failed,
    Found,
    Fragments,
    ListFragments,
    MoveOperation,
    ObjectInfo,
    Open,
    Opened,
    PutOperation,
    Stat,
)
from tests.unit.master.bench import MasterBench, exits, fragment, writable_bench


@pytest.fixture
def bench() -> MasterBench:
    bench, _ = writable_bench(replicas=1)
    bench.lease(10_000)
    return bench


def put(path: str, *fids: int, **fields: object) -> PutOperation:
    return PutOperation(path, [fragment(fid) for fid in fids], **fields)  # type: ignore[arg-type]


def stat(bench: MasterBench, path: str) -> ObjectInfo:
    return bench.ask(Stat(1_000, path), Found).info


def test_put_makes_an_object_that_stat_and_open_show(bench: MasterBench) -> None:
    answer = bench.commit(put("a/b", 1, 2, digest="sha256:x", attributes={"k": "v"}, immutable=True))

    expected = ObjectInfo("a/b", 200, 1, 1, "sha256:x", 1_000_000_000, {"k": "v"}, True)
    assert answer == Committed([expected])
    assert stat(bench, "a/b") == expected
    assert bench.ask(Open(1_000, "a/b", 0), Opened) == Opened(expected, 0, [fragment(1), fragment(2)], False)


def test_an_object_may_be_empty(bench: MasterBench) -> None:
    info = bench.commit(put("empty")).results[0]

    assert bench.ask(Open(1_000, "empty", 0), Opened) == Opened(info, 0, [], False)


def test_every_change_has_a_new_and_higher_generation(bench: MasterBench) -> None:
    first = bench.commit(put("a"), put("b")).results
    second = bench.commit(AppendOperation("a", [fragment(1)], 0)).results
    third = bench.commit(MoveOperation("a", "c")).results
    bench.restart()
    fourth = bench.commit(put("d")).results

    generations = [info.generation for info in first + second + third + fourth if info]
    assert generations == sorted(set(generations))
    assert len(generations) == 5


def test_a_move_keeps_the_bytes_and_takes_new_attributes_only_when_asked(bench: MasterBench) -> None:
    old = bench.commit(put("upload", 1, digest="sha256:old", attributes={"k": "v"})).results[0]
    assert old is not None
    kept = bench.commit(MoveOperation("upload", "blob", attributes={"n": "1"}, immutable=True)).results[0]
    assert kept is not None
    assert (kept.object_id, kept.digest, kept.attributes, kept.immutable) == (
        old.object_id,
        "sha256:old",
        {"k": "v"},
        True,
    )
    changed = bench.commit(
        MoveOperation("blob", "blob", "sha256:new", {"n": "1"}, replace_attributes=True)
    ).results[0]
    assert changed is not None
    assert (changed.object_id, changed.digest, changed.attributes) == (
        old.object_id,
        "sha256:new",
        {"n": "1"},
    )
    assert bench.refused(Stat(1_000, "upload")).code == "NOT_FOUND"
    assert bench.ask(Open(1_000, "blob", 0), Opened).fragments == [fragment(1)]


def test_appends_fill_pages_and_open_finds_the_page_of_an_offset(bench: MasterBench) -> None:
    count = FRAGMENTS_PER_PAGE_MAX
    bench.commit(put("big", *range(1, 11)))
    size, fid = 1_000, 11
    for _ in range(3):
        refs = [fragment(n) for n in range(fid, fid + count)]
        bench.commit(AppendOperation("big", refs, size, {"part": str(fid)}))
        fid, size = fid + count, size + 100 * count

    opened = bench.ask(Open(1_000, "big", 0), Opened)
    assert (opened.start, len(opened.fragments), opened.more) == (0, count, True)
    assert opened.info.size == size
    for offset in (0, 99, 100 * count - 1, 100 * count, 100 * count * 2 + 5, size - 1):
        page = bench.ask(ListFragments(1_000, opened.info.object_id, offset), Fragments)
        end = page.start + 100 * len(page.fragments)
        assert page.start <= offset < end
        assert page.fragments == [fragment(1 + n) for n in range(page.start // 100, end // 100)]
        assert page.more == (end < size)
        reopened = bench.ask(Open(1_000, "big", offset), Opened)
        assert (reopened.start, reopened.fragments) == (page.start, page.fragments)
    assert bench.ask(ListFragments(1_000, opened.info.object_id, size), Fragments) == Fragments(
        size, [], False
    )


def test_an_append_writes_no_more_for_a_large_object_than_for_a_small_one(bench: MasterBench) -> None:
    bench.commit(put("big"))
    sizes = []
    for n in range(100):
        bench.hold = True
        refs = [fragment(n * 50 + 1 + i) for i in range(50)]
        bench.tell(bench.commit_message(AppendOperation("big", refs, n * 5_000)))
        changes = bench.held[0].job.changes  # type: ignore[attr-defined]
        sizes.append(sum(len(key) + len(value or b"") for key, value in changes.items()))
        bench.hold = False
        bench.write_held()

    assert max(sizes[50:]) <= max(sizes[:20]) * 1.2


@pytest.mark.parametrize(
    ("operation", "code", "path"),
    [
        (put("new", if_generation=3), "PRECONDITION", "new"),
        (put("old", if_generation=0), "PRECONDITION", "old"),
        (put("old", if_generation=999), "PRECONDITION", "old"),
        (put("old", if_generation=-2), "BAD_REQUEST", "old"),
        (AppendOperation("new", [], 0), "NOT_FOUND", "new"),
        (AppendOperation("old", [fragment(2)], 99), "PRECONDITION", "old"),
        (AppendOperation("fixed", [fragment(2)], 0), "BAD_REQUEST", "fixed"),
        (AppendOperation("old", [], 100, {str(n): "" for n in range(17)}), "BAD_REQUEST", "old"),
        (MoveOperation("new", "old"), "NOT_FOUND", "new"),
        (MoveOperation("old", "fixed", if_generation=0), "PRECONDITION", "fixed"),
        (MoveOperation("old", "new", if_generation=4), "PRECONDITION", "new"),
        (DeleteOperation("new"), "NOT_FOUND", "new"),
        (DeleteOperation("old", if_generation=999), "PRECONDITION", "old"),
        (CheckOperation("old", 0), "PRECONDITION", "old"),
        (CheckOperation("old", 999), "PRECONDITION", "old"),
        (CheckOperation("new", -1), "PRECONDITION", "new"),
        (CheckOperation("new", 1), "PRECONDITION", "new"),
        (put("zero", 0), "FID_EXPIRED", "fid 0"),
        (put("far", 99_999), "FID_EXPIRED", "fid 99999"),
        (put("twice", 5, 5), "BAD_REQUEST", "fid 5"),
        (put("again", 1), "BAD_REQUEST", "fid 1"),
        (PutOperation("hollow", [fragment(6, length=0)]), "BAD_REQUEST", "fragment 6"),
        (PutOperation("lost", [fragment(6, group=8)]), "BAD_REQUEST", "group 8"),
    ],
    ids=repr,
)
def test_a_refused_operation_undoes_the_whole_commit_and_names_what_was_wrong(
    bench: MasterBench, operation: AnyOperation, code: str, path: str
) -> None:
    bench.commit(put("old", 1), put("fixed", immutable=True))
    before = bench.store.scan(b"", b"\xff", 10_000)

    refusal = bench.commit_refused(put("first", 7), operation)

    assert (refusal.code, path in refusal.message) == (code, True), refusal
    assert bench.store.scan(b"", b"\xff", 10_000) == before
    assert bench.refused(Stat(1_000, "first")).code == "NOT_FOUND"
    bench.commit(put("first", 7))


@pytest.mark.parametrize(
    "path", ["/a", "a/", "a//b", "a/../b", "..", ".", "a/./b", "a\0b", "x" * 1_025, "ü" * 513]
)
def test_a_path_that_is_no_path_is_refused_everywhere(bench: MasterBench, path: str) -> None:
    operations: list[AnyOperation] = [
        put(path),
        AppendOperation(path, [], 0),
        MoveOperation(path, "ok"),
        MoveOperation("ok", path),
        DeleteOperation(path, missing_ok=True),
        CheckOperation(path, 0),
    ]
    bench.commit(put("ok"))
    for operation in operations:
        assert bench.commit_refused(operation).code == "BAD_REQUEST"
    assert bench.refused(Stat(1_000, path)).code == "BAD_REQUEST"
    assert bench.refused(Open(1_000, path, 0)).code == "BAD_REQUEST"


@pytest.mark.parametrize("path", ["x" * 1_024, "ü" * 512, "a b/…/c", "a.b/..c/d..", "名前"])
def test_any_other_text_is_a_path(bench: MasterBench, path: str) -> None:
    bench.commit(put(path))
    assert stat(bench, path).path == path


def test_conditions_that_hold_pass(bench: MasterBench) -> None:
    made = bench.commit(put("a", if_generation=0)).results[0]
    assert made is not None
    answer = bench.commit(
        CheckOperation("a", made.generation),
        CheckOperation("a", -1),
        CheckOperation("b", 0),
        put("a", if_generation=made.generation),
        DeleteOperation("gone", missing_ok=True),
        DeleteOperation("gone", if_generation=0),
        DeleteOperation("a"),
        CheckOperation("a", 0),
    )
    assert [info is not None for info in answer.results] == [False] * 3 + [True] + [False] * 4


def test_operations_see_those_before_them_in_the_same_commit(bench: MasterBench) -> None:
    answer = bench.commit(
        put("a", 1),
        AppendOperation("a", [fragment(2)], 100),
        MoveOperation("a", "b"),
        AppendOperation("b", [fragment(3)], 200),
        put("a"),
    )
    assert [info.size if info else None for info in answer.results] == [100, 200, 200, 300, 0]
    opened = bench.ask(Open(1_000, "b", 0), Opened)
    assert opened.fragments == [fragment(1), fragment(2), fragment(3)]


def test_commits_in_one_batch_see_one_another_and_share_one_write(bench: MasterBench) -> None:
    bench.commit(put("a"))
    bench.hold = True
    bench.tell(bench.commit_message(put("b")))
    assert len(bench.held) == 1
    for size in (0, 100, 100):
        bench.tell(bench.commit_message(AppendOperation("a", [fragment(size + len(bench.held))], size)))
    # fids 1, 101, 101: the third is refused for its size before its fid is looked at
    writes = bench.store.writes  # type: ignore[attr-defined]
    assert [type(e.message) for e in bench.write_held() if isinstance(e, Reply)] == [Committed]

    answers = [e.message for e in bench.write_held() if isinstance(e, Reply)]
    assert [type(answer) for answer in answers] == [Committed, Committed, Failed]
    assert bench.store.writes == writes + 2  # type: ignore[attr-defined]
    assert stat(bench, "a").size == 200


def test_nothing_is_answered_or_visible_before_it_is_durable(bench: MasterBench) -> None:
    bench.hold = True
    assert bench.tell(bench.commit_message(put("a"))) == []
    assert bench.refused(Stat(1_000, "a")).code == "NOT_FOUND"

    assert [type(e.message) for e in bench.write_held() if isinstance(e, Reply)] == [Committed]
    assert stat(bench, "a").path == "a"


def test_a_commit_whose_write_never_happened_is_absent_after_a_restart(bench: MasterBench) -> None:
    message = bench.commit_message(put("a", 1))
    bench.hold = True
    bench.tell(message)
    bench.hold = False
    bench.restart()

    assert bench.refused(Stat(1_000, "a")).code == "NOT_FOUND"
    bench.ask(message, Committed)
    assert stat(bench, "a").size == 100


@pytest.mark.parametrize("restarted", [False, True])
def test_a_repeated_operation_id_has_the_first_answer_and_changes_nothing(
    bench: MasterBench, restarted: bool
) -> None:
    first = bench.commit(put("a", 1), DeleteOperation("none", missing_ok=True), operation_id=b"I" * 16)
    bench.commit(DeleteOperation("a"))
    if restarted:
        bench.restart()

    repeated = bench.commit(put("a", 1), DeleteOperation("none", missing_ok=True), operation_id=b"I" * 16)
    assert repeated == first
    assert bench.refused(Stat(1_000, "a")).code == "NOT_FOUND"


def test_an_operation_id_repeated_while_the_first_waits_is_done_once(bench: MasterBench) -> None:
    message = bench.commit_message(put("a", 1))
    bench.hold = True
    bench.tell(bench.commit_message(put("other")))
    bench.tell(message)
    bench.tell(message)
    bench.write_held()
    answers = [e.message for e in bench.write_held() if isinstance(e, Reply)]

    assert len(answers) == 2
    assert answers[0] == answers[1]
    assert isinstance(answers[0], Committed)


def test_a_refused_operation_id_may_succeed_later(bench: MasterBench) -> None:
    message = bench.commit_message(AppendOperation("late", [fragment(1)], 0))
    assert bench.refused(message).code == "NOT_FOUND"
    bench.commit(put("late"))
    assert bench.ask(message, Committed).results[0] is not None


def test_operation_ids_are_forgotten_by_age_also_after_a_restart(bench: MasterBench) -> None:
    bench.commit(put("a"), operation_id=b"1" * 16)
    assert bench.store.get(b"i/" + b"1" * 16) is not None
    bench.tick(899.0)
    bench.commit(put("b"), operation_id=b"2" * 16)
    bench.tick(901.0)
    assert bench.store.get(b"i/" + b"1" * 16) is None
    assert bench.store.get(b"i/" + b"2" * 16) is not None
    bench.restart()
    bench.tick(901.0 + 899.0)
    assert bench.store.get(b"i/" + b"2" * 16) is not None
    bench.tick(901.0 + 901.0)
    assert bench.store.scan(b"i/", b"i0", 10) == []
    assert not bench.role._operation_ids._known  # nor does anything of them stay in memory


def test_removed_and_replaced_immutable_paths_are_published_before_the_answer(bench: MasterBench) -> None:
    bench.commit(*[put(name, immutable=True) for name in ("gone", "moved", "under", "kept")])
    bench.commit(put("mutable"), put("upload"))

    effects = bench.tell(
        bench.commit_message(
            DeleteOperation("gone"),
            MoveOperation("moved", "elsewhere"),
            MoveOperation("upload", "under", immutable=True),
            DeleteOperation("mutable"),
        )
    )
    assert isinstance(effects[0], Publish)
    changed = effects[0].message
    assert isinstance(changed, CatalogChanged)
    assert changed.paths == ["gone", "moved", "under"]
    assert isinstance(effects[1], Reply)
    again = bench.tell(bench.commit_message(put("kept")))[0]
    assert isinstance(again, Publish)
    assert again.message == CatalogChanged(1, changed.sequence + 1, ["kept"])


def test_a_commit_of_an_expired_fid_is_refused(bench: MasterBench) -> None:
    bench.tick(599.0)
    bench.commit(put("in time", 1))
    bench.now = 600.0

    refusal = bench.commit_refused(put("too late", 2))
    assert refusal.code == FidExpired.code
    assert "fid 2" in refusal.message


def test_after_a_restart_every_fid_given_before_lives_for_one_more_lease(bench: MasterBench) -> None:
    bench.tick(590.0)
    bench.restart()
    bench.now = 1_189.0
    bench.commit(put("still", 1))
    bench.now = 1_190.0
    assert bench.commit_refused(put("over", 2)).code == "FID_EXPIRED"


def test_a_commit_that_waited_beyond_its_deadline_is_not_done(bench: MasterBench) -> None:
    bench.hold = True
    bench.tell(bench.commit_message(put("slow")))
    bench.tell(bench.commit_message(put("late")))
    bench.now = 11.0
    answers = [e.message for e in bench.write_held() if isinstance(e, Reply)]

    assert isinstance(answers[0], Committed)
    assert isinstance(answers[1], Failed)
    assert answers[1].code == "DEADLINE"
    assert bench.refused(Stat(1_000, "late")).code == "NOT_FOUND"


def test_too_many_waiting_commits_are_busy(bench: MasterBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fabric.master.role.QUEUE_MAX", 3)
    bench.hold = True
    refused = [
        effect.message.code
        for n in range(6)
        for effect in bench.tell(bench.commit_message(put(f"n{n}")))
        if isinstance(effect, Reply) and isinstance(effect.message, Failed)
    ]
    assert refused == ["BUSY", "BUSY"]


def test_waiting_commits_are_limited_in_bytes_too(
    bench: MasterBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fabric.master.role.QUEUE_BYTES_MAX", 20_000)
    bench.hold = True
    big = {str(n): "x" * 1_000 for n in range(16)}
    refused = [bool(bench.tell(bench.commit_message(put(f"n{n}", attributes=big)))) for n in range(5)]
    assert refused == [False, False, False, True, True]
    bench.write_held()
    bench.write_held()
    assert bench.tell(bench.commit_message(put("later", attributes=big))) == []


def test_a_store_that_cannot_be_written_ends_the_master_with_the_reason(bench: MasterBench) -> None:
    bench.store.fail_with = "No space left on device"  # type: ignore[attr-defined]
    effects = bench.tell(bench.commit_message(put("a")))

    assert [effect.status for effect in exits(effects)] == [1]
    assert "No space left on device" in exits(effects)[0].reason
    assert not any(isinstance(effect, Reply) for effect in effects)
