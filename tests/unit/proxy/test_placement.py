import random
from collections import Counter

import pytest

from fabric.proxy.placement import WARM_LEAD, choose_group, order_replicas
from fabric.wire.messages import GroupView, NodeView

MIB = 1024 * 1024


def group(number: int, free_bytes: int) -> GroupView:
    return GroupView(number, 1, True, free_bytes, ["a"])


def node(server: str, state: str) -> NodeView:
    return NodeView(server, f"tcp://{server}:1", 1, state)


def test_no_group_with_room_is_no_group():
    rng = random.Random(1)
    assert choose_group([], {}, 1, rng) is None
    assert choose_group([group(1, 100)], {}, 100, rng) is None


def test_the_only_group_with_room_is_taken():
    assert choose_group([group(1, 10), group(2, 1000)], {}, 100, random.Random(1)) == group(2, 1000)


def test_groups_are_taken_in_proportion_to_their_free_space():
    rng = random.Random(1)
    groups = [group(1, 1 * MIB), group(2, 3 * MIB)]
    taken = Counter(choose_group(groups, {}, 1, rng).group for _ in range(4000))
    assert 0.70 < taken[2] / 4000 < 0.80


def test_of_two_choices_the_less_busy_one_wins():
    rng = random.Random(1)
    groups = [group(1, MIB), group(2, MIB)]
    taken = Counter(choose_group(groups, {1: 5 * MIB, 2: MIB}, 1, rng).group for _ in range(4000))
    # Group 1 is left only when both picks hit it: a quarter of the time.
    assert 0.20 < taken[1] / 4000 < 0.30


def test_reads_prefer_healthy_replicas_and_ask_offline_ones_last():
    members = [node("off", "OFFLINE"), node("sync", "SYNCING"), node("init", "INIT"), node("rw", "RW")]
    for seed in range(20):
        order = order_replicas(members, {}, random.Random(seed))
        assert [one.server for one in order] == ["rw", "sync", "init", "off"]


def test_a_read_only_replica_reads_as_well_as_a_writable_one():
    members = [node("ro", "RO"), node("rw", "RW")]
    first = {order_replicas(members, {}, random.Random(seed))[0].server for seed in range(20)}
    assert first == {"ro", "rw"}


def test_reads_go_to_the_less_loaded_of_two_healthy_replicas():
    members = [node("a", "RW"), node("b", "RW")]
    for seed in range(20):
        assert order_replicas(members, {"a": 3, "b": 1}, random.Random(seed))[0].server == "b"


def test_the_replica_with_the_bytes_in_memory_is_asked_first():
    members = [node("a", "RW"), node("b", "RW"), node("c", "RW")]
    busy = {"a": 5, "b": 5, "c": 5 + WARM_LEAD}
    for seed in range(20):
        assert order_replicas(members, busy, random.Random(seed), warm="c")[0].server == "c"


def test_but_not_when_others_have_clearly_less_to_do():
    members = [node("a", "RW"), node("b", "RW"), node("c", "RW")]
    busy = {"a": 9, "b": 5, "c": 6 + WARM_LEAD}
    first = [order_replicas(members, busy, random.Random(seed), warm="c")[0].server for seed in range(60)]
    assert first.count("c") < 20  # by chance, if both picks are worse


@pytest.mark.parametrize("state", ["SYNCING", "OFFLINE"])
def test_nor_when_it_is_worse_than_others(state):
    members = [node("a", "RW"), node("b", state)]
    for seed in range(20):
        assert order_replicas(members, {"a": 50}, random.Random(seed), warm="b")[0].server == "a"
        sick = order_replicas([node("a", "RW"), node("b", "RW")], {}, random.Random(seed), "b".__eq__, "b")
        assert sick[0].server == "a"


def test_load_never_outweighs_health():
    members = [node("a", "RW"), node("b", "OFFLINE")]
    for seed in range(20):
        assert order_replicas(members, {"a": 50}, random.Random(seed))[0].server == "a"


def test_the_same_seed_gives_the_same_choices():
    groups = [group(number, MIB) for number in range(1, 9)]
    one, two = random.Random(7), random.Random(7)
    assert [choose_group(groups, {}, 1, one) for _ in range(50)] == [
        choose_group(groups, {}, 1, two) for _ in range(50)
    ]
