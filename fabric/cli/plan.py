"""What ``fabric up`` will run: ports, directories, arguments of each role.  Decided here, done elsewhere.

A data directory remembers how it was laid out (``fabric.json``), above all the ports of its chunk
servers, so that the next start puts every replica where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from fabric.cli.ports import local
from fabric.cli.supervisor import Child

LAYOUT_FILE = "fabric.json"
LAYOUT_FORMAT = 1


class Layout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a data directory is divided; written at its first start."""

    format: int
    replicas: int
    groups: int
    chunk_endpoints: list[str]


class Ports(NamedTuple):
    """Where the roles other than chunk servers listen, as ``tcp://HOST:PORT``."""

    master: str
    publish: str
    proxy: str
    registry: str


class RoleEntry(NamedTuple):
    """One role of the plan, as ``run.json`` shows it, and the process that it is."""

    role: str
    name: str
    endpoint: str
    group: int | None
    data: str | None
    arguments: tuple[str, ...]

    def child(self) -> Child:
        """For the supervisor.  What depends on others stops before them."""
        stage = ("registry", "proxy", "chunk", "master").index(self.role)
        return Child(self.name, self.arguments, stage)


class LayoutMismatch(Exception):
    """The data directory was made otherwise than is asked for now."""


def read_layout(data: Path) -> Layout | None:
    """What an earlier start remembered; None for a new directory.

    Raises LayoutMismatch when the directory holds something that is not ours.
    """
    path = data / LAYOUT_FILE
    try:
        layout = msgspec.json.decode(path.read_bytes(), type=Layout)
    except FileNotFoundError:
        if data.is_dir() and any(entry.name != "up.lock" for entry in data.iterdir()):
            raise LayoutMismatch(
                f"{data} is not empty and has no {LAYOUT_FILE}: not a data directory of `fabric up`"
            ) from None
        return None
    except msgspec.DecodeError as error:
        raise LayoutMismatch(f"{path} is damaged: {error}") from error
    if layout.format != LAYOUT_FORMAT:
        raise LayoutMismatch(f"{path} has format {layout.format}, this version reads {LAYOUT_FORMAT}")
    return layout


def decide_layout(
    known: Layout | None,
    replicas: int | None,
    groups: int | None,
    new_endpoints: Callable[[int], Iterable[str]],
) -> Layout:
    """The layout to run with.  What was not asked for stays as it was, or gets its default.

    Groups can be added later, since that moves no data.  ``new_endpoints(count)`` gives so many
    addresses for further chunk servers.  Raises LayoutMismatch.
    """
    if known is None:
        replicas, groups = replicas or 3, groups or 1
        return Layout(LAYOUT_FORMAT, replicas, groups, list(new_endpoints(replicas * groups)))
    if replicas not in (None, known.replicas):
        raise LayoutMismatch(
            f"the data directory was made with --replicas {known.replicas}, not {replicas};"
            " the number of replicas of a group cannot be changed"
        )
    if groups is None or groups == known.groups:
        return known
    if groups < known.groups:
        raise LayoutMismatch(
            f"the data directory has {known.groups} groups, {groups} are asked for; groups cannot be dropped"
        )
    added = known.replicas * (groups - known.groups)
    endpoints = [*known.chunk_endpoints, *new_endpoints(added)]
    return Layout(LAYOUT_FORMAT, known.replicas, groups, endpoints)


class Front(NamedTuple):
    """What the registry has more than the others: its files, whether there is TLS, its protocols."""

    access: Path | None = None
    has_tls: bool = False
    v1: bool = False
    hooks: Path | None = None
    mirrors: Path | None = None
    registries: int = 1
    """Processes that share the registry's port."""

    def url(self, endpoint: str) -> str:
        """Where the registry that listens at ``tcp://HOST:PORT`` is reached on this machine."""
        return local(endpoint).replace("tcp://", "https://" if self.has_tls else "http://")


PLAIN = Front()
"""Everybody may do everything, over HTTP."""


def plan_roles(
    layout: Layout, ports: Ports, data: Path, config: Path | None, front: Front = PLAIN
) -> list[RoleEntry]:
    """Every role to run, in the order of starting."""
    common = ("--config", str(config)) if config is not None else ()
    master = local(ports.master)

    def flags(*pairs: str) -> tuple[str, ...]:
        return (*(pair.removeprefix("tcp://") for pair in pairs), *common)

    master_data = str(data / "master")
    roles = [
        RoleEntry(
            "master", "master", master, None, master_data,
            ("master", *flags("--listen", ports.master, "--publish", ports.publish, "--data", master_data,
                              "--replicas", str(layout.replicas))),
        )
    ]  # fmt: skip
    for number, endpoint in enumerate(layout.chunk_endpoints, start=1):
        name, group = f"chunk-{number}", (number - 1) // layout.replicas + 1
        directory = str(data / name)
        arguments = flags("--name", name, "--listen", endpoint, "--master", master, "--data", directory,
                          "--group", str(group))  # fmt: skip
        roles.append(RoleEntry("chunk", name, endpoint, group, directory, ("chunk", *arguments)))
    proxy = flags("--listen", ports.proxy, "--master", master, "--master-publish", local(ports.publish))
    roles.append(RoleEntry("proxy", "proxy", local(ports.proxy), None, None, ("proxy", *proxy)))
    registry = flags("--http", ports.registry, "--proxy", local(ports.proxy))
    if front.access is not None:
        registry += ("--access", str(front.access))
    if front.v1:
        registry += ("--v1",)
    if front.hooks is not None:
        registry += ("--hooks", str(front.hooks))
    if front.mirrors is not None:
        registry += ("--mirrors", str(front.mirrors))
    if front.registries > 1:
        registry += ("--share-port",)
    http = front.url(ports.registry)
    for number in range(1, front.registries + 1):
        name = "registry" if number == 1 else f"registry-{number}"
        roles.append(RoleEntry("registry", name, http, None, None, ("registry", *registry)))
    return roles


def run_description(roles: Iterable[RoleEntry], pids: dict[str, int]) -> dict[str, Any]:
    """The content of ``run.json``.  A role that is just being restarted has pid null."""
    roles = list(roles)
    by_role = {role.role: role.endpoint for role in roles}
    entries = [
        {
            "role": role.role,
            "name": role.name,
            "pid": pids.get(role.name),
            "endpoint": role.endpoint,
            "group": role.group,
            "data": role.data,
        }
        for role in roles
    ]
    return {**{key: by_role[key] for key in ("registry", "proxy", "master")}, "roles": entries}
