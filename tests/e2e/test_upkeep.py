"""Compaction and scrub, as an operator orders them from servers that run."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fabric.driver import Storage
from tests.e2e.conftest import FabricUp, wait_until

CONFIG = """
[settings]
delete_grace_s = 0.5
data_file_bytes_max = 8388608
scrub_bytes_per_s = 1000000000
compaction_bytes_per_s = 1000000000
# Unasked, only what is nothing but garbage is given back.
compaction_garbage_ratio = 1.0
"""
OBJECT_BYTES = 512 * 1024
KEPT, GONE = 10, 30


@pytest.fixture
def fabric(start: Callable[..., FabricUp], tmp_path: Path) -> FabricUp:
    config = tmp_path / "fabric.toml"
    config.write_text(CONFIG)
    return start("--config", str(config)).wait_ready()


def servers(fabric: FabricUp) -> dict[str, tuple[str, Path]]:
    """HOST:PORT and fragments directory of each chunk server, by name."""
    roles = [role for role in fabric.run_json["roles"] if role["role"] == "chunk"]
    return {
        role["name"]: (role["endpoint"].removeprefix("tcp://"), Path(role["data"]) / "fragments")
        for role in roles
    }


def chunk(fabric: FabricUp, action: str, address: str, *options: str) -> Any:
    """The JSON of a command that must succeed."""
    result = fabric.fabric("chunk", action, address, "--json", *options)
    assert result.returncode == 0, result.stderr.decode() + fabric.story()
    return json.loads(result.stdout)


def disk_bytes(directory: Path) -> int:
    """What the files take of the disk, as du counts it."""
    return sum(path.stat().st_blocks * 512 for path in directory.iterdir())


def content_of(name: str) -> bytes:
    return random.Random(name).randbytes(OBJECT_BYTES)


def fill(fabric: FabricUp) -> list[str]:
    """Store objects to keep among objects to remove, so that every data file has some of both."""
    names = [f"kept/{n}" if n % (1 + GONE // KEPT) == 0 else f"gone/{n}" for n in range(KEPT + GONE)]
    with Storage(proxy=fabric.proxy) as storage:
        for name in names:
            storage.put_content(name, content_of(name))
    return [name for name in names if name.startswith("kept/")]


def check_contents(fabric: FabricUp, names: list[str]) -> None:
    with Storage(proxy=fabric.proxy) as storage:
        for name in names:
            assert storage.get_content(name) == content_of(name)


def flip_a_byte(directory: Path, content: bytes) -> None:
    """In the stored copy of ``content``."""
    for path in directory.glob("*.data"):
        place = path.read_bytes().find(content[:64])
        if place >= 0:
            with path.open("r+b") as file:
                file.seek(place + 1000)
                file.write(bytes([content[1000] ^ 1]))
            return
    raise AssertionError(f"no file in {directory} has it")


def test_compaction_frees_the_disk_of_what_was_removed(fabric: FabricUp) -> None:
    kept = fill(fabric)
    assert fabric.fabric("rm", "-r", "gone", "--proxy", fabric.proxy).returncode == 0
    gone_bytes = GONE * OBJECT_BYTES

    for address, directory in servers(fabric).values():
        wait_until(
            lambda address=address: chunk(fabric, "status", address)["garbage_bytes"] >= gone_bytes,  # type: ignore[misc]
            "the deletions to arrive",
            fabric.story,
        )
        before = disk_bytes(directory)
        details = chunk(fabric, "compact", address, "--wait")
        assert (details["garbage_bytes"], details["compaction"]["problem"]) == (0, "")
        assert details["fragments"] == KEPT
        assert before - disk_bytes(directory) >= gone_bytes
        assert details["data_bytes"] < 2 * KEPT * OBJECT_BYTES

    check_contents(fabric, kept)
    fabric.wait_writable()


def test_a_scrub_finds_a_flipped_byte_and_a_peer_repairs_it(fabric: FabricUp) -> None:
    name = fill(fabric)[3]
    (address, directory), *others = (servers(fabric)[server] for server in ("chunk-2", "chunk-1", "chunk-3"))
    wait_until(
        lambda: chunk(fabric, "status", address)["scrub"]["passes"] == 1,
        "the pass that a new server begins with",
        fabric.story,
    )
    flip_a_byte(directory, content_of(name))
    assert chunk(fabric, "status", address)["quarantined"] == 0

    found = chunk(fabric, "scrub", address, "--wait")
    assert (found["scrub"]["passes"], found["scrub"]["damaged"], found["quarantined"]) == (2, 1, 0)
    assert found["fragments"] == KEPT + GONE
    again = chunk(fabric, "scrub", address, "--wait")
    assert (again["scrub"]["passes"], again["scrub"]["damaged"]) == (3, 0)

    # Only the repaired copy is left to read.
    for _, directory in others:
        flip_a_byte(directory, content_of(name))
    check_contents(fabric, [name])
