"""From a deleted object to fragments that are gone from every replica.

    object loses its path      -> doomed            (same transaction as the delete)
    grace for readers is over  -> its pages become to-delete entries, one for each member and fid
    member's tombstone durable -> that member's entry goes

Everything is in the store, so nothing is forgotten; what is in memory are counts and the grace, which
a restart begins anew.  A large object is taken apart a few pages at a time.

A member that is away keeps its entries until it is back.  A member that comes back with an empty disk
gets the entries of its peers too: it will copy from them, and must not copy what they have yet to
delete.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence

from fabric.master import keys, pages, references
from fabric.master.delta import DeltaStore
from fabric.master.store import Reader

PAGES_PER_STEP = 16
STEP_S = 0.05
DELETES_PER_ASSIGNMENT = 5_000
_SCAN = 10_000

MembersOf = Callable[[int], Sequence[str]]


class Deletion:
    """Doomed objects, and the fragments that each server has yet to delete."""

    def __init__(self, store: Reader, members_of: MembersOf, grace_s: float) -> None:
        self._store = store
        self._members_of = members_of
        self._grace_s = grace_s
        self._doomed: deque[tuple[float, int]] = deque()
        self._counts: Counter[str] = Counter()
        self._confirming: dict[str, set[int]] = {}
        """Confirmed by the server, but that is not durable yet."""

    def load(self, now: float) -> None:
        """Take up what an earlier life of the master left to be done."""
        self._doomed = deque(
            (now + self._grace_s, keys.last_number(key)) for key in _keys(self._store, keys.DOOMED)
        )
        self._counts = Counter(
            key[len(keys.DELETES) : -9].decode() for key in _keys(self._store, keys.DELETES)
        )

    # --- doomed objects ---------------------------------------------------------------------------

    def on_doomed(self, object_ids: Iterable[int], now: float) -> None:
        """These became doomed, durably."""
        self._doomed += [(now + self._grace_s, object_id) for object_id in object_ids]

    def due_at(self) -> float | None:
        """When ``expand`` next has something to do."""
        return self._doomed[0][0] if self._doomed else None

    def expand(self, delta: DeltaStore, now: float) -> Callable[[], None]:
        """Turn some pages of the oldest doomed objects into to-delete entries.

        Call what is returned once the delta is durable.
        """
        added: Counter[str] = Counter()
        budget, done = PAGES_PER_STEP, 0
        for due, object_id in self._doomed:
            if due > now or budget <= 0:
                break
            found = pages.pages_of(delta, object_id, budget)
            for key, fragments in found:
                delta.delete(key)
                references.remove(delta, fragments)
                for fragment in fragments:
                    for server in self._members_of(fragment.group):
                        added[server] += _add(delta, server, fragment.fid)
            if len(found) < budget:
                delta.delete(keys.doomed_key(object_id))
                done += 1
            budget -= max(1, len(found))

        def on_durable() -> None:
            for _ in range(done):
                self._doomed.popleft()
            self._counts += added

        return on_durable

    def is_doomed(self, object_id: int) -> bool:
        """Is this object, durably, about to be taken apart?"""
        return self._store.get(keys.doomed_key(object_id)) is not None

    def doomed_count(self) -> int:
        """Objects that wait to be taken apart."""
        return len(self._doomed)

    def order(self, delta: DeltaStore, group: int, fids: Iterable[int]) -> Callable[[], None]:
        """Have every member of a group delete these.  Call what is returned once the delta is durable."""
        added: Counter[str] = Counter()
        for fid in fids:
            for server in self._members_of(group):
                added[server] += _add(delta, server, fid)

        def on_durable() -> None:
            self._counts += added

        return on_durable

    # --- what servers have to delete --------------------------------------------------------------

    def count(self, server: str) -> int:
        """Fragments that this server has yet to delete."""
        return self._counts[server]

    def total(self) -> int:
        """Over all servers."""
        return self._counts.total()

    def fids_for(self, server: str) -> list[int]:
        """The next fids for this server to delete."""
        if not self._counts[server]:
            return []
        prefix = keys.deletes_prefix(server)
        confirming = self._confirming.get(server, ())
        pairs = self._store.scan(prefix, keys.after_all(prefix), DELETES_PER_ASSIGNMENT + len(confirming))
        fids = [keys.last_number(key) for key, _ in pairs]
        return [fid for fid in fids if fid not in confirming][:DELETES_PER_ASSIGNMENT]

    def start_confirm(self, server: str, fids: Sequence[int]) -> list[int]:
        """Which of ``fids``, whose tombstones a server reports, are news; not told again meanwhile."""
        confirming = self._confirming.setdefault(server, set())
        news = [fid for fid in fids if fid not in confirming] if self._counts[server] else []
        confirming.update(news)
        if not confirming:
            del self._confirming[server]
        return news

    def confirm(self, delta: DeltaStore, server: str, fids: Sequence[int]) -> Callable[[], None]:
        """Remove entries of a server.  Call what is returned once the delta is durable."""
        prefix, removed = keys.deletes_prefix(server), 0
        for fid in fids:
            key = prefix + keys.number(fid)
            if delta.get(key) is not None:
                delta.delete(key)
                removed += 1

        def on_durable() -> None:
            self._counts[server] -= removed
            confirming = self._confirming.get(server, set())
            confirming.difference_update(fids)
            if not confirming:
                self._confirming.pop(server, None)

        return on_durable

    def inherit(self, delta: DeltaStore, server: str, peers: Iterable[str]) -> Callable[[], None]:
        """A server begins anew with an empty disk: give it the entries of its peers.

        Call what is returned once the delta is durable.
        """
        added = 0
        for peer in peers:
            for key in list(_keys(delta, keys.deletes_prefix(peer))):
                added += _add(delta, server, keys.last_number(key))

        def on_durable() -> None:
            self._counts[server] += added

        return on_durable

    def forget(self, delta: DeltaStore, server: str) -> Callable[[], None]:
        """A server has left its group: what it has yet to delete is nobody's any more.

        Call what is returned once the delta is durable.
        """
        entries = list(_keys(delta, keys.deletes_prefix(server)))
        for key in entries:
            delta.delete(key)

        def on_durable() -> None:
            self._counts[server] -= len(entries)
            self._confirming.pop(server, None)

        return on_durable


def _add(delta: DeltaStore, server: str, fid: int) -> int:
    key = keys.deletes_prefix(server) + keys.number(fid)
    if delta.get(key) is not None:
        return 0
    delta.put(key, b"")
    return 1


def _keys(store: Reader, prefix: bytes) -> Iterable[bytes]:
    start, stop = prefix, keys.after_all(prefix)
    while pairs := store.scan(start, stop, _SCAN):
        for key, _ in pairs:
            yield key
        start = pairs[-1][0] + b"\0"
