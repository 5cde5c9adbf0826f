"""What ``fabric up`` decides, without starting anything."""

from __future__ import annotations

import socket
from pathlib import Path

import msgspec
import pytest

from fabric.cli.plan import (
    Front,
    Layout,
    LayoutMismatch,
    Ports,
    decide_layout,
    plan_roles,
    read_layout,
    run_description,
)
from fabric.cli.ports import NoFreePort, choose_port, free_ports_from, is_free, local, next_port
from fabric.cli.up import _choose_ports

PORTS = Ports("tcp://0.0.0.0:7400", "tcp://0.0.0.0:7401", "tcp://127.0.0.1:7420", "tcp://127.0.0.1:5000")
DATA = Path("/srv/fabric")
FOUR = [f"tcp://127.0.0.1:{port}" for port in (7410, 7411, 7412, 7413)]


def new_endpoints(count: int) -> list[str]:
    return [f"tcp://127.0.0.1:{7500 + number}" for number in range(count)]


def test_a_new_directory_gets_the_defaults() -> None:
    assert decide_layout(None, None, None, new_endpoints) == Layout(1, 3, 1, new_endpoints(3))


def test_a_known_directory_is_adopted_when_nothing_else_is_asked_for() -> None:
    known = Layout(1, 2, 2, FOUR)
    assert decide_layout(known, None, None, new_endpoints) == known
    assert decide_layout(known, 2, 2, new_endpoints) == known


def test_groups_are_added_behind_those_that_are_there() -> None:
    assert decide_layout(Layout(1, 2, 2, FOUR), None, 3, new_endpoints) == Layout(
        1, 2, 3, [*FOUR, *new_endpoints(2)]
    )


@pytest.mark.parametrize(("replicas", "groups", "word"), [(3, None, "--replicas 2"), (None, 1, "dropped")])
def test_what_would_lose_replicas_is_refused(replicas: int | None, groups: int | None, word: str) -> None:
    with pytest.raises(LayoutMismatch, match=word):
        decide_layout(Layout(1, 2, 2, FOUR), replicas, groups, new_endpoints)


def test_the_layout_file_is_read_back(tmp_path: Path) -> None:
    assert read_layout(tmp_path) is None
    layout = Layout(1, 2, 2, FOUR)
    (tmp_path / "fabric.json").write_bytes(msgspec.json.encode(layout))
    assert read_layout(tmp_path) == layout


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("fabric.json", '{"format": 1', "damaged"),
        ("fabric.json", '{"format": 1, "replicas": 3}', "damaged"),
        ("fabric.json", '{"format": 2, "replicas": 3, "groups": 1, "chunk_endpoints": []}', "format 2"),
        ("holiday.jpg", "", "not empty"),
    ],
)
def test_a_directory_that_is_not_ours_is_refused(tmp_path: Path, name: str, content: str, word: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(LayoutMismatch, match=word):
        read_layout(tmp_path)


def test_every_role_gets_its_place_and_its_flags() -> None:
    roles = plan_roles(Layout(1, 2, 2, FOUR), PORTS, DATA, Path("/etc/fabric.toml"))

    assert [role.name for role in roles] == [
        "master", "chunk-1", "chunk-2", "chunk-3", "chunk-4", "proxy", "registry",
    ]  # fmt: skip
    assert [role.group for role in roles] == [None, 1, 1, 2, 2, None, None]
    master, *chunks, proxy, registry = roles
    assert master.arguments == (
        "master", "--listen", "0.0.0.0:7400", "--publish", "0.0.0.0:7401", "--data", "/srv/fabric/master",
        "--replicas", "2", "--config", "/etc/fabric.toml",
    )  # fmt: skip
    assert chunks[2].arguments == (
        "chunk", "--name", "chunk-3", "--listen", "127.0.0.1:7412", "--master", "127.0.0.1:7400",
        "--data", "/srv/fabric/chunk-3", "--group", "2", "--config", "/etc/fabric.toml",
    )  # fmt: skip
    assert proxy.arguments == (
        "proxy", "--listen", "127.0.0.1:7420", "--master", "127.0.0.1:7400",
        "--master-publish", "127.0.0.1:7401", "--config", "/etc/fabric.toml",
    )  # fmt: skip
    assert registry.arguments == (
        "registry", "--http", "127.0.0.1:5000", "--proxy", "127.0.0.1:7420", "--config", "/etc/fabric.toml",
    )  # fmt: skip


def test_the_registry_alone_gets_the_access_file() -> None:
    roles = plan_roles(
        Layout(1, 3, 1, FOUR[:3]), PORTS, DATA, None, Front(Path("/etc/access.toml"), has_tls=True)
    )

    assert [role.name for role in roles if "--access" in role.arguments] == ["registry"]
    assert roles[-1].arguments[-2:] == ("--access", "/etc/access.toml")
    assert run_description(roles, {})["registry"] == "https://127.0.0.1:5000"


def test_the_registry_alone_gets_the_file_of_hooks() -> None:
    front = Front(hooks=Path("/etc/hooks.toml"))
    roles = plan_roles(Layout(1, 3, 1, FOUR[:3]), PORTS, DATA, None, front)
    assert [role.name for role in roles if "--hooks" in role.arguments] == ["registry"]
    assert roles[-1].arguments[-2:] == ("--hooks", "/etc/hooks.toml")


def test_registries_that_share_a_port_are_told_so() -> None:
    roles = plan_roles(Layout(1, 3, 1, FOUR[:3]), PORTS, DATA, None, Front(registries=2))
    shared = [role for role in roles if "--share-port" in role.arguments]
    assert [role.name for role in shared] == ["registry", "registry-2"]
    assert len({role.endpoint for role in shared}) == 1
    alone = plan_roles(Layout(1, 3, 1, FOUR[:3]), PORTS, DATA, None)
    assert not any("--share-port" in role.arguments for role in alone)


def test_those_that_need_others_stop_first() -> None:
    roles = plan_roles(Layout(1, 3, 1, FOUR[:3]), PORTS, DATA, None)
    stages = {role.role: role.child().stop_stage for role in roles}
    assert sorted(stages, key=lambda role: stages[role]) == ["registry", "proxy", "chunk", "master"]


def test_run_json_has_exactly_the_promised_fields() -> None:
    roles = plan_roles(Layout(1, 1, 1, FOUR[:1]), PORTS, DATA, None)

    assert run_description(roles, {"master": 11, "chunk-1": 12, "registry": 14}) == {
        "registry": "http://127.0.0.1:5000",
        "proxy": "tcp://127.0.0.1:7420",
        "master": "tcp://127.0.0.1:7400",
        "roles": [
            {
                "role": "master",
                "name": "master",
                "pid": 11,
                "endpoint": "tcp://127.0.0.1:7400",
                "group": None,
                "data": "/srv/fabric/master",
            },
            {
                "role": "chunk",
                "name": "chunk-1",
                "pid": 12,
                "endpoint": "tcp://127.0.0.1:7410",
                "group": 1,
                "data": "/srv/fabric/chunk-1",
            },
            {
                "role": "proxy",
                "name": "proxy",
                "pid": None,
                "endpoint": "tcp://127.0.0.1:7420",
                "group": None,
                "data": None,
            },
            {
                "role": "registry",
                "name": "registry",
                "pid": 14,
                "endpoint": "http://127.0.0.1:5000",
                "group": None,
                "data": None,
            },
        ],
    }


# --- ports ----------------------------------------------------------------------------------------


@pytest.fixture
def taken() -> object:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"


def test_a_port_that_is_listened_on_is_not_free(taken: str) -> None:
    assert not is_free(taken)


def test_a_port_is_free_again_when_its_listener_is_gone() -> None:
    endpoint = choose_port("tcp://127.0.0.1:0")
    assert not endpoint.endswith(":0")
    assert is_free(endpoint)


def test_a_chosen_port_is_none_that_outgoing_connections_are_given() -> None:
    lowest_given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    behind = lowest_given if lowest_given > 20_000 else 65_536
    for _ in range(50):
        port = int(choose_port("tcp://127.0.0.1:0", in_a_row=2).rpartition(":")[2])
        assert 10_000 <= port < behind


def test_taken_ports_are_skipped(taken: str) -> None:
    reserved = next_port(taken)
    first, second = free_ports_from(taken, 2, {reserved})

    numbers = [int(endpoint.rpartition(":")[2]) for endpoint in (taken, first, second)]
    assert numbers[0] + 1 < numbers[1] < numbers[2]


def test_no_two_roles_are_given_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is in use when the other is chosen."""
    first = int(choose_port("tcp://127.0.0.1:0", in_a_row=6).rpartition(":")[2])
    kept = f"tcp://127.0.0.1:{first}"
    draws = iter(
        [first, first + 1, first + 1, first + 2, first + 3, first + 2, first + 3, first + 4, first + 5]
    )
    monkeypatch.setattr("fabric.cli.ports.random.randrange", lambda *bounds: next(draws))
    free = "tcp://127.0.0.1:0"
    ports = _choose_ports(free, free, free, [kept])
    assert len({*ports, kept}) == 5


def test_ports_end_at_the_last_one() -> None:
    with pytest.raises(NoFreePort, match="not enough"):
        free_ports_from("tcp://127.0.0.1:65535", 2)


def test_an_address_of_another_machine_is_refused_in_words() -> None:
    with pytest.raises(NoFreePort, match=r"cannot listen on tcp://192\.0\.2\.1"):
        is_free("tcp://192.0.2.1:7400")


@pytest.mark.parametrize(
    ("endpoint", "reached"),
    [
        ("tcp://0.0.0.0:7400", "tcp://127.0.0.1:7400"),
        ("tcp://*:7400", "tcp://127.0.0.1:7400"),
        ("tcp://[::]:7400", "tcp://[::1]:7400"),
        ("tcp://10.0.0.7:7400", "tcp://10.0.0.7:7400"),
    ],
)
def test_how_this_machine_reaches_a_listener(endpoint: str, reached: str) -> None:
    assert local(endpoint) == reached
