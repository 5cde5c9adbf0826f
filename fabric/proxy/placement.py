"""Where a new fragment goes, and which replica serves a read.  Pure functions of the view."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from fabric.wire.messages import GroupView, NodeView

WARM_LEAD = 4
"""So many reads more than another may the server with the bytes in memory have to do, and still be asked."""

_READ_ORDER = {"RW": 0, "RO": 0, "SYNCING": 1, "INIT": 2, "OFFLINE": 3}


def choose_group(
    groups: Sequence[GroupView],
    pending_bytes: Mapping[int, int],
    payload_bytes: int,
    rng: random.Random,
) -> GroupView | None:
    """Two groups at random, weighted by free space; of these the one with fewer pending bytes.

    Weighting keeps groups filling up together; the second choice keeps a slow group from collecting
    a queue (Mitzenmacher, "The Power of Two Choices", 2001).  None when no group has room.
    """
    candidates = [group for group in groups if group.free_bytes > payload_bytes]
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    weights = [group.free_bytes for group in candidates]
    first, second = rng.choices(candidates, weights, k=2)
    return min(first, second, key=lambda group: pending_bytes.get(group.group, 0))


def order_replicas(
    members: Sequence[NodeView],
    outstanding: Mapping[str, int],
    rng: random.Random,
    is_sick: Callable[[str], bool] = lambda server: False,
    warm: str = "",
) -> list[NodeView]:
    """Replicas in the order in which a read should try them.

    Healthy ones first; those that have failed lately (``is_sick``) behind the others that are up.  Of two
    healthy ones picked at random, the one with fewer reads outstanding leads; servers whose lease ran out
    come last, since the master may be the one that lost touch.  ``warm``, the server that has the bytes in
    memory, leads unless it is worse than others or has clearly more to do.
    """
    shuffled = list(members)
    rng.shuffle(shuffled)

    def rank(node: NodeView) -> int:
        return max(_READ_ORDER.get(node.state, 2), 2 if is_sick(node.server) else 0)

    shuffled.sort(key=rank)
    if len(shuffled) > 1:
        first, second = shuffled[0], shuffled[1]
        same_health = rank(first) == rank(second)
        if same_health and outstanding.get(second.server, 0) < outstanding.get(first.server, 0):
            shuffled[0], shuffled[1] = second, first
    for position, node in enumerate(shuffled):
        if node.server == warm and rank(node) == rank(shuffled[0]):
            least = min(outstanding.get(other.server, 0) for other in shuffled)
            if outstanding.get(warm, 0) <= least + WARM_LEAD:
                shuffled.insert(0, shuffled.pop(position))
            break
    return shuffled
