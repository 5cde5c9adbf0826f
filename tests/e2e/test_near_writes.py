"""Fragments read in the memory of those who store them, by real processes that die meanwhile."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fabric.driver import Storage
from fabric.errors import NotFound
from fabric.node.shared_memory import NAME
from tests.e2e.conftest import FabricUp, wait_until
from tests.e2e.http_registry import HttpRegistry, digest_of

BLOB = random.Random(1).randbytes(20_000_000)

WRITER = """
import os, sys
from fabric.driver import Storage

class Endless:
    piece = os.urandom(1 << 20)

    def read(self, size):
        return self.piece[:size]

with Storage(sys.argv[1]) as storage:
    print("begun", flush=True)
    storage.stream_write("never/whole", Endless())
"""


def memory_files(pid: int) -> int:
    links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
    return sum(link.startswith(f"/memfd:{NAME}") for link in links)


def stored_fragments(fabric: FabricUp) -> int:
    """Over all replicas, as of their last heartbeats."""
    return sum(int(node["fragments"]) for node in fabric.admin("nodes"))


def wait_for_more_fragments(fabric: FabricUp, count: int) -> None:
    before = stored_fragments(fabric)
    wait_until(lambda: stored_fragments(fabric) >= before + count, "more fragments", fabric.story)


def push_and_pull(fabric: FabricUp, data: bytes) -> None:
    registry = HttpRegistry(fabric.registry)
    assert registry.put_blob("near/test", data).status == 201
    assert registry.get_blob("near/test", digest_of(data)).body == data


def test_pushes_stay_in_memory_and_come_back_whole(fabric_up: FabricUp) -> None:
    push_and_pull(fabric_up, BLOB)
    push_and_pull(fabric_up, BLOB[1:])
    assert memory_files(fabric_up.pid("registry")) >= 2  # what it asks with, and what it stores with


def test_a_writer_that_dies_takes_its_memory_with_it_and_nothing_else(fabric_up: FabricUp) -> None:
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, fabric_up.proxy], stdout=subprocess.PIPE)
        with writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"begun\n"
            wait_for_more_fragments(fabric_up, 24)
            writer.kill()
    assert {node["state"] for node in fabric_up.admin("nodes")} == {"RW"}
    with Storage(fabric_up.proxy) as storage:
        with pytest.raises(NotFound):
            storage.get_content("never/whole")
        storage.put_content("whole", BLOB)
        assert storage.get_content("whole") == BLOB


def test_turned_off_nothing_is_in_memory(tmp_path: Path, start: Callable[..., FabricUp]) -> None:
    config = tmp_path / "fabric.toml"
    config.write_text("[settings]\nnear_writes = false\n")
    fabric = start("--config", str(config)).wait_ready()
    push_and_pull(fabric, BLOB)
    assert all(memory_files(pid) == 0 for pid in fabric.pids().values())
