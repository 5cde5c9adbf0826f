from fabric.proxy.cluster_view import ClusterView
from fabric.wire.messages import GroupView, Topology
from tests.unit.proxy.world import ONE_GROUP, TWO_GROUPS, topology


def test_a_new_view_knows_nothing():
    view = ClusterView()
    assert not view.known
    assert view.writable_groups() == []
    assert view.members(1) == []


def test_an_older_topology_never_replaces_a_newer_one():
    view = ClusterView()
    assert view.adopt(topology(TWO_GROUPS, sequence=5))
    assert not view.adopt(topology(ONE_GROUP, sequence=4))
    assert set(view.groups) == {1, 2}
    assert view.adopt(topology(ONE_GROUP, sequence=1, term=2))
    assert set(view.groups) == {1}


def test_a_view_follows_the_next_number_of_its_term_only():
    view = ClusterView()
    view.adopt(topology(ONE_GROUP, sequence=5))
    assert view.follows(1, 6)
    assert not view.follows(1, 7)
    assert not view.follows(2, 6)


def test_only_writable_groups_take_writes():
    view = ClusterView()
    view.adopt(topology(TWO_GROUPS, writable=frozenset({2})))
    assert [group.group for group in view.writable_groups()] == [2]


def test_a_group_with_a_member_of_unknown_address_or_without_members_takes_no_writes():
    view = ClusterView()
    full = topology(ONE_GROUP)
    view.adopt(Topology(1, 1, full.nodes[:2], [*full.groups, GroupView(9, 1, True, 10**9, [])]))
    assert view.writable_groups() == []
    assert [node.server for node in view.members(1)] == ["a", "b"]
