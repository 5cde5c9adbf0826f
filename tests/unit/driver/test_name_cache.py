"""Copies of names are used only while they are certain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from fabric.driver.name_cache import CLOCKS_DIFFER, NameCache
from fabric.driver.registry.lookups import Lookups
from fabric.driver.watching import keep_watching
from fabric.errors import NotFound, Unavailable
from fabric.wire.messages import Changes, ObjectInfo, Watch

LEASE_MS = 2000
USABLE_S = LEASE_MS / 1000 * CLOCKS_DIFFER


def info(path: str = "r/a", size: int = 0, **attributes: str) -> ObjectInfo:
    return ObjectInfo(path, size, 1, 1, "", 0, attributes, False)


def cache_at(now: float, bytes_max: int = 100_000) -> NameCache:
    cache = NameCache(bytes_max)
    cache.on_changes(Changes(0, [], True, LEASE_MS), now)
    return cache


def test_what_was_found_is_used_for_a_lease_from_the_question_on() -> None:
    cache = cache_at(10.0)
    cache.keep(info(), cache.told)
    assert cache.find("r/a", 10.0 + USABLE_S - 0.001) == info()
    assert cache.find("r/a", 10.0 + USABLE_S) is None
    cache.on_changes(Changes(0, [], False, LEASE_MS), 11.0)
    assert cache.find("r/a", 10.0 + USABLE_S) == info()


def test_without_a_lease_nothing_is_used() -> None:
    cache = NameCache(100_000)
    cache.keep(info(), cache.told)
    assert cache.find("r/a", 0.0) is None


def test_what_changed_is_let_go_of_and_nothing_else() -> None:
    cache = cache_at(0.0)
    for path in ("r/a", "r/b"):
        cache.keep(info(path), cache.told)
    cache.on_changes(Changes(1, ["r/a", "r/unknown"], False, LEASE_MS), 0.1)
    assert (cache.find("r/a", 0.2), cache.find("r/b", 0.2)) == (None, info("r/b"))
    cache.on_changes(Changes(2, [], True, LEASE_MS), 0.2)
    assert cache.find("r/b", 0.3) is None


@pytest.mark.parametrize("changes", [Changes(1, ["r/b"], False, LEASE_MS), Changes(1, [], True, LEASE_MS)])
def test_what_was_looked_up_before_something_was_told_is_not_kept(changes: Changes) -> None:
    cache = cache_at(0.0)
    told = cache.told
    cache.on_changes(changes, 0.1)
    cache.keep(info(), told)
    assert cache.find("r/a", 0.2) is None


def test_its_size_is_bounded_and_the_least_recently_used_go() -> None:
    cache = cache_at(0.0, bytes_max=10_000)
    for number in range(5):
        cache.keep(info(f"r/{number}"), cache.told)
    assert cache.find("r/0", 0.0) is not None
    cache.keep_content("blobs/x", b"x" * 1000)
    cache.keep_content("blobs/large", b"x" * 1300)
    assert cache.content("blobs/x") == b"x" * 1000
    assert cache.content("blobs/large") is None, "an eighth of the room is the most that one may take"
    cache.keep(info("r/5", why="x" * 1200), cache.told)
    assert (cache.find("r/1", 0.0), cache.find("r/2", 0.0)) == (None, None)
    assert cache.find("r/0", 0.0) is not None
    for number in range(1000):
        cache.keep(info(f"r/{number}"), cache.told)
        cache.keep(info(f"r/{number}"), cache.told)
    assert len(cache) == 6


class Store:
    """Names by path; ``before_answer`` happens between the look-up and its answer."""

    def __init__(self) -> None:
        self.names = {"r/a": info(size=1)}
        self.contents = {"blobs/x": b"bytes"}
        self.looked = 0
        self.before_answer: Callable[[], None] = lambda: None

    async def stat(self, path: str) -> ObjectInfo:
        self.looked += 1
        found = self.names.get(path)
        self.before_answer()
        await asyncio.sleep(0)
        if found is None:
            raise NotFound(path)
        return found

    async def read(self, path: str, bytes_max: int) -> tuple[ObjectInfo, bytes]:
        self.looked += 1
        if path not in self.contents:
            raise NotFound(path)
        return info(path), self.contents[path]


def test_lookups_ask_once_and_again_after_a_change() -> None:
    store, cache, now = Store(), cache_at(0.0), 0.0
    lookups = Lookups(store, cache, lambda: now)  # type: ignore[arg-type]

    async def look() -> list[int]:
        return [(await lookups.stat("r/a")).size for _ in range(3)]

    assert asyncio.run(look()) == [1, 1, 1]
    assert store.looked == 1
    store.names["r/a"] = info(size=2)
    cache.on_changes(Changes(1, ["r/a"], False, LEASE_MS), 0.0)
    store.before_answer = lambda: cache.on_changes(Changes(2, ["r/b"], False, LEASE_MS), 0.0)
    assert asyncio.run(look()) == [2, 2, 2]
    assert store.looked == 4, "each answer was in doubt"
    now = USABLE_S
    store.before_answer = lambda: None
    assert asyncio.run(look()) == [2, 2, 2]
    assert store.looked == 7


def test_lookups_do_not_remember_what_is_not_there() -> None:
    store = Store()
    lookups = Lookups(store, cache_at(0.0), lambda: 0.0)  # type: ignore[arg-type]
    with pytest.raises(NotFound):
        asyncio.run(lookups.stat("r/b"))
    store.names["r/b"] = info("r/b")
    assert asyncio.run(lookups.stat("r/b")) == info("r/b")


@pytest.mark.parametrize("cache", [None, cache_at(0.0)])
def test_bytes_are_read_once_where_there_is_a_cache(cache: NameCache | None) -> None:
    store = Store()
    lookups = Lookups(store, cache, lambda: 1e9)  # type: ignore[arg-type]
    for _ in range(3):
        assert asyncio.run(lookups.read("blobs/x", 10)) == b"bytes"
    assert store.looked == (3 if cache is None else 1)


def test_watching_tells_the_cache_and_goes_on_after_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fabric.driver.watching.PAUSE_S", 0.0)
    cache = NameCache(100_000)
    asked: list[Watch] = []
    times = iter([1.0, 2.0, 3.0, 4.0])
    script = [
        Changes(3, [], True, LEASE_MS),
        Unavailable("away"),
        Changes(5, ["r/a"], False, LEASE_MS),
    ]

    async def run() -> None:
        ended = asyncio.Event()

        async def ask(watch: Watch) -> Changes:
            asked.append(watch)
            if not script:
                ended.set()
                await asyncio.Event().wait()
            answer = script.pop(0)
            if isinstance(answer, Unavailable):
                raise answer
            cache.keep(info(), cache.told)
            return answer

        task = asyncio.create_task(keep_watching(ask, cache, ["r/"], lambda: next(times)))
        await ended.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert [watch.seen for watch in asked] == [0, 3, 3, 5]
    assert {watch.watcher for watch in asked} == {asked[0].watcher}
    assert cache.find("r/a", 3.0) is None
    cache.keep(info("r/b"), cache.told)
    assert cache.find("r/b", 3.0 + USABLE_S - 0.01) is not None, "counted from the third question"
    assert cache.find("r/b", 3.0 + USABLE_S) is None
