"""The catalog does what a dictionary would do, through any operations, listings and restarts.

The model keeps for each path the list of its fragments, and knows nothing of pages, keys or ids.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fabric.master import keys, references
from fabric.master.records import decode_page
from fabric.settings import FRAGMENTS_PER_PAGE_MAX
from fabric.wire.messages import (
    AnyOperation,
    AppendOperation,
    Committed,
    DeleteOperation,
    Failed,
    Found,
    FragmentRef,
    Fragments,
    JoinOperation,
    ListFragments,
    Listing,
    ListObjects,
    Message,
    MoveOperation,
    Open,
    Opened,
    PutOperation,
    Stat,
)
from tests.unit.master.bench import fragment, writable_bench

PATHS = st.sampled_from(
    ["a", "a/b", "a/b/c", "a/bc", "a/é", "ab", "b", "b/1", "b/2/3", "b/2/4", "c-d", "é/x"]
)
PREFIXES = st.sampled_from(["", "a", "a/", "a/b", "b/", "b/2/", "é", "zz"])
DELIMITERS = st.sampled_from(["", "/", "b", "/2"])
COUNTS = st.integers(0, FRAGMENTS_PER_PAGE_MAX)


class Model:
    """Path -> fragments."""

    def __init__(self) -> None:
        self.objects: dict[str, list[FragmentRef]] = {}

    def apply(self, operation: AnyOperation) -> bool:
        """Do it; False when the catalog has to refuse."""
        objects = self.objects
        if isinstance(operation, PutOperation):
            objects[operation.path] = list(operation.fragments)
        elif isinstance(operation, AppendOperation):
            if operation.path not in objects or size_of(objects[operation.path]) != operation.expected_size:
                return False
            objects[operation.path] = objects[operation.path] + list(operation.fragments)
        elif isinstance(operation, MoveOperation):
            if operation.source not in objects:
                return False
            objects[operation.target] = objects.pop(operation.source)
        elif isinstance(operation, DeleteOperation):
            return objects.pop(operation.path, None) is not None
        elif isinstance(operation, JoinOperation):
            path, source = operation.path, operation.source
            if path == source or path not in objects or source not in objects:
                return False
            if size_of(objects[path]) != operation.expected_size:
                return False
            objects[path] = objects[path] + objects.pop(source)
        return True

    def listing(self, prefix: str, delimiter: str, after: str) -> list[str]:
        """All names and folded prefixes after ``after``, in byte order."""
        names = set()
        for path in self.objects:
            if path.startswith(prefix) and path.encode() > after.encode():
                end = path.find(delimiter, len(prefix)) if delimiter else -1
                names.add(path if end < 0 else path[: end + len(delimiter)])
        return sorted(names, key=str.encode)


def size_of(fragments: list[FragmentRef]) -> int:
    return sum(fragment.length for fragment in fragments)


class CatalogMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.bench, _ = writable_bench(replicas=1)
        self.model = Model()
        self.next_fid, self.leased_to = 1, 1

    def fragments(self, count: int) -> list[FragmentRef]:
        if self.next_fid + count > self.leased_to:
            lease = self.bench.lease(1_000)
            self.next_fid, self.leased_to = lease.first, lease.first + lease.count
        first, self.next_fid = self.next_fid, self.next_fid + count
        return [fragment(fid, length=1 + fid % 5) for fid in range(first, first + count)]

    def commit(self, *operations: AnyOperation) -> None:
        trial = Model()
        trial.objects = dict(self.model.objects)
        expected = all(trial.apply(operation) for operation in operations)
        answer: Message = self.bench.ask(self.bench.commit_message(*operations), Message)
        assert isinstance(answer, Committed if expected else Failed), answer
        if expected:
            self.model = trial

    def operation(self, kind: int, path: str, other: str, count: int, right: bool) -> AnyOperation:
        if kind == 0:
            return PutOperation(path, self.fragments(count))
        if kind == 1:
            size = size_of(self.model.objects.get(path, []))
            return AppendOperation(path, self.fragments(count), size if right else size + 1)
        if kind == 2:
            return JoinOperation(path, other, size_of(self.model.objects.get(path, [])) + (not right))
        return MoveOperation(path, other) if kind == 3 else DeleteOperation(path)

    @rule(kind=st.integers(0, 4), path=PATHS, other=PATHS, count=COUNTS, right=st.booleans())
    def commit_one(self, kind: int, path: str, other: str, count: int, right: bool) -> None:
        self.commit(self.operation(kind, path, other, count, right))

    @rule(
        steps=st.lists(
            st.tuples(st.integers(0, 4), PATHS, PATHS, st.integers(0, 3), st.just(True)),
            min_size=2,
            max_size=5,
        )
    )
    def commit_several(self, steps: list[tuple[int, str, str, int, bool]]) -> None:
        self.commit(*[self.operation(*step) for step in steps])

    @invariant()
    def every_fragment_has_its_page_and_no_page_is_nobodys(self) -> None:
        store = self.bench.store
        for path, fragments in self.model.objects.items():
            for each in fragments:
                reference = references.find(store, each.group, each.fid)
                assert reference is not None, path
                assert references.fragment(store, each.group, reference) == each
        pairs = store.scan(keys.PAGES, keys.after_all(keys.PAGES), 100_000)
        doomed = {keys.last_number(key) for key, _ in store.scan(b"x/", keys.after_all(b"x/"), 100_000)}
        named = [
            each for key, value in pairs if keys.page_of(key)[0] not in doomed for each in decode_page(value)
        ]
        assert len(named) == sum(len(fragments) for fragments in self.model.objects.values())

    @rule()
    def restart(self) -> None:
        self.bench.restart()

    @rule(seconds=st.sampled_from([1.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.bench.tick(self.bench.now + seconds)

    @rule(path=PATHS, offset=st.integers(0, 800))
    def read(self, path: str, offset: int) -> None:
        expected = self.model.objects.get(path)
        if expected is None:
            assert self.bench.refused(Stat(1_000, path)).code == "NOT_FOUND"
            return
        info = self.bench.ask(Stat(1_000, path), Found).info
        assert info.size == size_of(expected)
        opened = self.bench.ask(Open(1_000, path, offset), Opened)
        if offset >= info.size:
            assert (opened.start, opened.fragments, opened.more) == (info.size, [], False)
            return
        assert opened.start <= offset < opened.start + size_of(opened.fragments)
        assert self.walk(info.object_id) == expected

    def walk(self, object_id: int) -> list[FragmentRef]:
        found: list[FragmentRef] = []
        while True:
            page = self.bench.ask(ListFragments(1_000, object_id, size_of(found)), Fragments)
            assert page.start == size_of(found)
            assert len(page.fragments) <= FRAGMENTS_PER_PAGE_MAX
            found += page.fragments
            if not page.more:
                return found

    @rule(prefix=PREFIXES, delimiter=DELIMITERS, limit=st.integers(1, 6))
    def list_all(self, prefix: str, delimiter: str, limit: int) -> None:
        names: list[str] = []
        after = ""
        while True:
            page = self.bench.ask(ListObjects(1_000, prefix, delimiter, after, limit), Listing)
            here = sorted([info.path for info in page.objects] + page.prefixes, key=str.encode)
            assert len(here) == limit or not page.next
            names += here
            after = page.next
            if not after:
                break
        assert names == self.model.listing(prefix, delimiter, "")

    @rule(prefix=PREFIXES, delimiter=st.sampled_from(["", "/"]), after=PATHS)
    def list_after(self, prefix: str, delimiter: str, after: str) -> None:
        page = self.bench.ask(ListObjects(1_000, prefix, delimiter, after, 1_000), Listing)
        names = sorted([info.path for info in page.objects] + page.prefixes, key=str.encode)
        assert names == self.model.listing(prefix, delimiter, after)


CatalogMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestCatalogModel = CatalogMachine.TestCase
