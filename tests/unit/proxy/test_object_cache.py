from fabric.proxy.object_cache import ObjectCache
from fabric.wire.messages import FragmentRef, ObjectInfo, Opened


def an_object(path: str, *, immutable: bool = True, fragments: int = 1, more: bool = False) -> Opened:
    info = ObjectInfo(path, 10 * fragments, 1, 1, "", 0, {}, immutable)
    return Opened(info, 0, [FragmentRef(1, fid, 10, 0) for fid in range(fragments)], more)


def keep(cache: ObjectCache, entry: Opened) -> None:
    cache.answer(cache.ask(entry.info.path), entry)


def test_an_immutable_object_is_remembered_until_it_is_forgotten():
    cache = ObjectCache()
    keep(cache, an_object("blob"))
    assert cache.get("blob", 3) == an_object("blob")
    cache.forget("blob")
    assert cache.get("blob", 3) is None


def test_a_mutable_object_and_a_later_page_are_not_remembered():
    cache = ObjectCache()
    keep(cache, an_object("tag", immutable=False))
    late = an_object("blob")
    keep(cache, Opened(late.info, 10, late.fragments, False))
    assert len(cache) == 0


def test_only_bytes_on_the_remembered_page_are_found():
    cache = ObjectCache()
    keep(cache, an_object("blob", fragments=2, more=True))
    assert cache.get("blob", 19) is not None
    assert cache.get("blob", 20) is None


def test_an_answer_older_than_a_deletion_is_not_remembered():
    cache = ObjectCache()
    question = cache.ask("blob")
    cache.forget("blob")
    cache.answer(question, an_object("blob"))
    assert cache.get("blob", 0) is None


def test_an_answer_older_than_a_gap_is_not_remembered():
    cache = ObjectCache()
    question = cache.ask("blob")
    cache.clear()
    cache.answer(question, an_object("blob"))
    assert cache.get("blob", 0) is None


def test_a_question_asked_after_the_deletion_counts_though_an_older_one_is_open():
    cache = ObjectCache()
    older = cache.ask("blob")
    cache.forget("blob")
    newer = cache.ask("blob")
    cache.answer(older, an_object("blob"))
    assert cache.get("blob", 0) is None
    cache.answer(newer, an_object("blob"))
    assert cache.get("blob", 0) is not None


def test_forgetting_one_path_does_not_stop_others_from_being_remembered():
    cache = ObjectCache()
    question = cache.ask("blob")
    cache.forget("other")
    cache.answer(question, an_object("blob"))
    assert cache.get("blob", 0) is not None


def test_questions_leave_nothing_behind():
    cache = ObjectCache()
    first, second = cache.ask("blob"), cache.ask("blob")
    cache.answer(first, None)
    cache.answer(second, None)
    assert cache._questions == {}


def test_the_least_recently_used_go_when_the_bytes_are_used_up():
    cache = ObjectCache(bytes_max=5000)
    for path in ("one", "two", "three", "four"):
        keep(cache, an_object(path))
    cache.get("one", 0)
    keep(cache, an_object("five"))
    assert cache.get("one", 0) is not None
    assert cache.get("two", 0) is None


def test_an_entry_counts_for_its_fragments():
    cache = ObjectCache(bytes_max=30_000)
    for number in range(10):
        keep(cache, an_object(str(number), fragments=128))
    assert len(cache) == 1


def test_the_same_path_kept_again_is_counted_once():
    cache = ObjectCache(bytes_max=3000)
    keep(cache, an_object("other"))
    for _ in range(20):
        keep(cache, an_object("blob"))
    assert cache.get("other", 0) is not None
