"""What the model test of the catalog cannot see of listings: what they cost, and what they refuse."""

from __future__ import annotations

from fabric.master import keys
from fabric.master.listing import list_objects
from fabric.master.records import ObjectRecord, encode
from fabric.master.store import Pair
from fabric.wire.messages import ListObjects
from sim.store import MemoryStore
from tests.unit.master.bench import MasterBench

RECORD = encode(ObjectRecord(1, 0, 1, 0, "", {}, False))


class CountingStore(MemoryStore):
    """Counts the pairs that scans return."""

    scanned = 0

    def scan(self, start: bytes, stop: bytes, limit: int, reverse: bool = False) -> list[Pair]:
        found = super().scan(start, stop, limit, reverse)
        self.scanned += len(found)
        return found


def store_of(*paths: str) -> CountingStore:
    store = CountingStore()
    store.write({keys.object_key(path): RECORD for path in paths})
    return store


def test_a_folded_prefix_costs_the_same_whatever_is_behind_it() -> None:
    store = store_of(*[f"repo-{r}/{n:05d}" for r in range(3) for n in range(3_000)], "top")

    page = list_objects(store, ListObjects(1_000, "", "/", "", 100))
    assert page.prefixes == ["repo-0/", "repo-1/", "repo-2/"]
    assert [info.path for info in page.objects] == ["top"]
    assert store.scanned < 300


def test_going_on_after_a_folded_prefix_does_not_list_it_again() -> None:
    store = store_of("a/1", "a/2", "b/1", "c")

    first = list_objects(store, ListObjects(1_000, "", "/", "", 1))
    assert (first.prefixes, first.next) == (["a/"], "a/")
    second = list_objects(store, ListObjects(1_000, "", "/", first.next, 1))
    assert (second.prefixes, second.next) == (["b/"], "b/")
    third = list_objects(store, ListObjects(1_000, "", "/", second.next, 1))
    assert ([info.path for info in third.objects], third.next) == (["c"], "")


def test_a_name_that_is_also_a_prefix_is_listed_beside_it() -> None:
    page = list_objects(store_of("a", "a/1", "a-1"), ListObjects(1_000, "", "/", "", 10))
    assert ([info.path for info in page.objects], page.prefixes) == (["a", "a-1"], ["a/"])


def test_an_exact_last_page_says_that_nothing_follows() -> None:
    page = list_objects(store_of("a", "b"), ListObjects(1_000, "", "", "", 2))
    assert (len(page.objects), page.next) == (2, "")


def test_an_after_outside_the_prefix_neither_adds_nor_hides_names() -> None:
    store = store_of("a", "m/1", "m/2", "z")
    below = list_objects(store, ListObjects(1_000, "m/", "", "a", 10))
    above = list_objects(store, ListObjects(1_000, "m/", "", "n", 10))
    assert [info.path for info in below.objects] == ["m/1", "m/2"]
    assert above.objects == []


def test_a_prefix_that_is_too_long_in_bytes_is_refused() -> None:
    bench = MasterBench()
    assert bench.refused(ListObjects(1_000, "ü" * 1_000, "", "", 10)).code == "BAD_REQUEST"
    assert bench.refused(ListObjects(1_000, "", "", "ü" * 1_000, 10)).code == "BAD_REQUEST"
