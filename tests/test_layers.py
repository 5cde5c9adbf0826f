"""Which part of the fabric may know which: the rules as data, held against every import.

Logic (what a role decides) must run under a simulator: no clock, no socket, no thread, no file, no
randomness but what it is given.  So nothing that can do I/O may be imported there, not even in a
function or for typing.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# --- the rules ------------------------------------------------------------------------------------

LANGUAGE = ("fabric.wire", "fabric.warmth", "fabric.places", "fabric.settings", "fabric.ids", "fabric.errors")
"""Each may import what stands to its right."""

CONTRACTS = {
    "fabric.node.effects",
    "fabric.node.role",
    "fabric.node.disk",
    "fabric.node.calls",
    "fabric.chunk.index",
    "fabric.master.store",
    "fabric.driver.object_store",
}

FORMATS = {"fabric.chunk.record"}
"""Bytes on a disk: they know the language only, and anyone in their package may know them."""

SHELLS = {
    # One thread, its sockets, its clock, its lanes.
    "fabric.node.zmq_loop",
    "fabric.node.lanes",
    "fabric.node.process",
    "fabric.node.signals",
    "fabric.node.peer",
    "fabric.node.bundles",
    "fabric.node.frames",
    "fabric.node.sockets",
    "fabric.node.ask",
    "fabric.node.host",
    "fabric.node.shared_memory",
    "fabric.node.pieces",
    "fabric.node.os_disk",
    "fabric.node.read_only_disk",
    # LevelDB.
    "fabric.chunk.leveldb_index",
    "fabric.master.leveldb_store",
    # The driver: asyncio and ZeroMQ.
    "fabric.driver",
    "fabric.driver.client",
    "fabric.driver.fabric_store",
    "fabric.driver.reader",
    "fabric.driver.near",
    "fabric.driver.near_writes",
    "fabric.driver.registry.http_outlet",
    "fabric.driver.watching",
    "fabric.driver.writer",
    "fabric.driver.budget",
    "fabric.driver.storage",
    # The registry: threads for hashing, and HTTP.
    "fabric.driver.registry.hashing",
    "fabric.driver.registry.background",
    "fabric.driver.registry.service",
    "fabric.driver.registry.http",
    "fabric.driver.registry.http_actor",
    "fabric.driver.registry.http_blobs",
    "fabric.driver.registry.http_body",
    "fabric.driver.registry.http_conditions",
    "fabric.driver.registry.http_lists",
    "fabric.driver.registry.http_manifests",
    "fabric.driver.registry.http_stream",
    "fabric.driver.registry.http_parts",
    "fabric.driver.registry.http_uploads",
    "fabric.driver.registry.followers",
    # Mirrors: HTTP to upstreams, tasks, clocks, files.
    "fabric.driver.registry.mirror.download",
    "fabric.driver.registry.mirror.flights",
    "fabric.driver.registry.mirror.http",
    "fabric.driver.registry.mirror.lists",
    "fabric.driver.registry.mirror.load",
    "fabric.driver.registry.mirror.manifests",
    "fabric.driver.registry.mirror.mirrors",
    "fabric.driver.registry.mirror.transfer",
    "fabric.driver.registry.mirror.transfers",
    "fabric.driver.registry.mirror.upstream",
    # The first protocol: HTTP, clocks, threads that read layers.
    "fabric.driver.registry.v1.http",
    "fabric.driver.registry.v1.http_images",
    "fabric.driver.registry.v1.http_repositories",
    "fabric.driver.registry.v1.reading",
    "fabric.driver.registry.v1.service",
    # Webhooks: files, HTTP, clocks.
    "fabric.driver.registry.hooks.http_origin",
    "fabric.driver.registry.hooks.load",
    "fabric.driver.registry.hooks.sender",
    "fabric.driver.registry.hooks.service",
    # Quotas: locks, and a task that counts.
    "fabric.driver.registry.quota.keeping",
    # Access: files, threads for passwords, clocks.
    "fabric.driver.registry.access.load",
    "fabric.driver.registry.access.logins",
    "fabric.driver.registry.access.gate",
}

ASSEMBLY = {"fabric.__main__", "fabric.cli"}
ROLES = {"fabric.master", "fabric.proxy", "fabric.chunk", "fabric.driver"}
OUTSIDE = {"sim", "bench", "tests"}
"""They use the fabric; it does not know them."""

IMPURE = {
    "aiohttp",
    "asyncio",
    "concurrent",
    "multiprocessing",
    "os",
    "plyvel",
    "secrets",
    "select",
    "selectors",
    "shutil",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "uuid",
    "uvloop",
    "zmq",
}

PURE = {"logic", "contract", "format", "language"}
"""Layers where nothing of ``IMPURE`` may be imported."""


def layer_of(module: str) -> str:
    """The layer of a module; fails for one that nobody has placed."""
    package = ".".join(module.split(".")[:2])
    if module == "fabric" or package in LANGUAGE:
        return "language"
    if package in ASSEMBLY:
        return "assembly"
    if module in CONTRACTS:
        return "contract"
    if module in FORMATS:
        return "format"
    if module in SHELLS:
        return "shell"
    if package in ROLES or module == "fabric.node":
        return "logic"
    raise AssertionError(f"{module} belongs to no layer: place it in tests/test_layers.py")


def may_import(importer: str, imported: str) -> bool:
    """Does the table of layers allow it?  Both are modules of the fabric."""
    if imported == "fabric":
        return True  # the version
    source, target = layer_of(importer), layer_of(imported)
    own = importer.split(".")[1] == imported.split(".")[1]
    if source == "assembly":
        return True
    if source == "language":
        return own or _right_of(imported, importer)
    if source == "format":
        return target == "language"
    if target in ("language", "contract"):
        # Contracts meet anyone, but those in a role's package are that role's own.
        return target == "language" or own or imported.startswith("fabric.node.")
    if target == "format":
        return own
    if source == "contract":
        return False
    if source == "logic":
        return own and target == "logic"
    assert source == "shell"
    if importer.startswith("fabric.driver."):
        return own or (target == "shell" and imported.startswith("fabric.node."))
    return own and target == "shell"


def _right_of(imported: str, importer: str) -> bool:
    order = [".".join(module.split(".")[:2]) for module in (importer, imported)]
    return order[1] in LANGUAGE and LANGUAGE.index(order[1]) > LANGUAGE.index(order[0])


# --- the checker ----------------------------------------------------------------------------------


def violations(module: str, source: str, known: set[str]) -> list[str]:
    """What in this file breaks the rules, as ``module:line: sentence``."""
    tree = ast.parse(source)
    found = []
    layer = layer_of(module)
    for line, name in _imports(tree, module, known):
        top = name.split(".")[0]
        if top in OUTSIDE:
            found.append(f"{module}:{line}: imports {name}, which is outside of the fabric")
        elif top == "fabric" and not may_import(module, name):
            found.append(f"{module}:{line}: {layer} may not import {name} ({layer_of(name)})")
        elif top in IMPURE and layer in PURE:
            found.append(f"{module}:{line}: {layer} may not import {name}")
    if layer in PURE:
        found += [f"{module}:{line}: {text}" for line, text in _impure_uses(tree)]
    return found


def _imports(tree: ast.AST, module: str, known: set[str]) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: relative import"
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield node.lineno, full if full in known else node.module


def _impure_uses(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Global randomness, and files."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "random":
            for alias in node.names:
                if alias.name != "Random":
                    yield node.lineno, f"random.{alias.name}: only random.Random, passed in"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "random" and node.attr != "Random":
                yield node.lineno, f"random.{node.attr}: only random.Random, passed in"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
            yield node.lineno, "open(): files are for shells"


def _modules() -> dict[str, Path]:
    modules = {}
    for path in sorted((ROOT / "fabric").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


MODULES = _modules()


# --- tests ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_layer_may(module: str) -> None:
    assert violations(module, MODULES[module].read_text(), set(MODULES)) == []


PLANTED = [
    ("fabric.master.catalog", "import zmq"),
    ("fabric.master.catalog", "import os.path"),
    ("fabric.master.catalog", "from time import monotonic"),
    ("fabric.proxy.upload", "def late():\n    import asyncio"),
    ("fabric.chunk.engine", "import threading"),
    ("fabric.chunk.engine", "import plyvel"),
    ("fabric.chunk.engine", "from socket import socket"),
    ("fabric.chunk.engine", "from fabric.chunk.leveldb_index import LevelIndex"),
    ("fabric.chunk.engine", "from fabric.chunk import leveldb_index"),
    ("fabric.chunk.engine", "data = open('/etc/passwd')"),
    ("fabric.proxy.role", "from fabric.master import catalog"),
    ("fabric.proxy.role", "import fabric.chunk.engine"),
    ("fabric.proxy.role", "from fabric.node.zmq_loop import ZmqLoop"),
    ("fabric.proxy.role", "from fabric.cli import options"),
    ("fabric.proxy.role", "from sim.world import World"),
    ("fabric.proxy.role", "import random\nnumber = random.random()"),
    ("fabric.proxy.role", "import random\nrandom.shuffle([])"),
    ("fabric.proxy.role", "from random import choice"),
    ("fabric.driver.client", "from fabric.proxy.role import ProxyRole"),
    ("fabric.driver.client", "from fabric.chunk.index import Index"),
    ("fabric.node.zmq_loop", "from fabric.master.role import MasterRole"),
    ("fabric.node.effects", "from fabric.node.zmq_loop import ZmqLoop"),
    ("fabric.master.leveldb_store", "from fabric.master.catalog import Catalog"),
    ("fabric.node.calls", "import time"),
    ("fabric.chunk.record", "from fabric.chunk.index import Index"),
    ("fabric.chunk.record", "import os"),
    ("fabric.driver.client", "from fabric.chunk.record import Record"),
    ("fabric.errors", "from fabric.wire import codec"),
    ("fabric.settings", "from fabric.wire.messages import Message"),
    ("fabric.wire.codec", "from fabric.node.effects import Send"),
    ("fabric.cli.up", "import bench.streams"),
]


@pytest.mark.parametrize(("module", "source"), PLANTED)
def test_a_planted_violation_is_found(module: str, source: str) -> None:
    assert violations(module, source, {*MODULES, "fabric.chunk.leveldb_index", "fabric.master.catalog"})


ALLOWED = [
    ("fabric.master.catalog", "import heapq\nimport msgspec\nfrom fabric.wire.messages import Commit"),
    ("fabric.master.catalog", "from fabric.master.store import Store\nfrom fabric.node.effects import Send"),
    ("fabric.proxy.role", "import random\ndef make(rng: random.Random) -> None: ..."),
    ("fabric.proxy.role", "from fabric.proxy.upload import Upload\nfrom fabric.node.calls import Calls"),
    ("fabric.node.zmq_loop", "import zmq, time\nfrom fabric.node.lanes import Lane"),
    ("fabric.driver.client", "import asyncio\nfrom fabric.node.sockets import make_socket"),
    ("fabric.wire.codec", "from fabric.errors import BadMessage\nfrom fabric.settings import FRAMES_MAX"),
    ("fabric.cli.master", "from fabric.master.role import MasterRole\nimport os"),
]


@pytest.mark.parametrize(("module", "source"), ALLOWED)
def test_what_the_layers_allow_is_not_reported(module: str, source: str) -> None:
    assert violations(module, source, set(MODULES)) == []


def test_a_module_that_nobody_placed_is_refused() -> None:
    with pytest.raises(AssertionError, match="belongs to no layer"):
        layer_of("fabric.node.surprise")
