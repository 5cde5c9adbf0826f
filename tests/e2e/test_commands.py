"""The object and admin commands, and the foreign client, against a running fabric."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import FabricUp
from tests.unit.wire.test_document import run_foreign_client


def test_a_large_file_comes_back_as_it_was(shared_fabric: FabricUp, tmp_path: Path) -> None:
    content = random.Random(1).randbytes(9 * 1024 * 1024 + 17)
    (tmp_path / "in").write_bytes(content)
    proxy = ("--proxy", shared_fabric.proxy)

    assert shared_fabric.fabric("put", "large/one", str(tmp_path / "in"), *proxy).returncode == 0
    assert shared_fabric.fabric("get", "large/one", str(tmp_path / "out"), *proxy).returncode == 0

    assert hashlib.sha256((tmp_path / "out").read_bytes()).digest() == hashlib.sha256(content).digest()
    shown = json.loads(shared_fabric.fabric("stat", "large/one", "--json", *proxy).stdout)
    assert (shown["path"], shown["size"]) == ("large/one", len(content))


def test_names_are_listed_moved_and_removed(shared_fabric: FabricUp) -> None:
    proxy = ("--proxy", shared_fabric.proxy)
    for name in ("names/b", "names/a", "names/ü"):
        assert shared_fabric.fabric("put", name, "-", *proxy, stdin=b"1").returncode == 0

    assert shared_fabric.fabric("mv", "names/a", "names/c", *proxy).returncode == 0
    listed = shared_fabric.fabric("ls", "names/", *proxy).stdout.decode().splitlines()
    assert listed == ["names/b", "names/c", "names/ü"]
    assert shared_fabric.fabric("rm", "-r", "names", *proxy).returncode == 0
    assert shared_fabric.fabric("ls", "names/", *proxy).stdout == b""
    missing = shared_fabric.fabric("get", "names/b", "-", *proxy)
    assert missing.returncode == 1
    assert missing.stderr.startswith(b"Error: ")
    assert b"Traceback" not in missing.stderr


def test_a_reader_that_goes_away_ends_get_quietly(shared_fabric: FabricUp) -> None:
    proxy = shared_fabric.proxy
    content = os.urandom(6 * 1024 * 1024)
    assert shared_fabric.fabric("put", "pipe", "-", "--proxy", proxy, stdin=content).returncode == 0

    command = [sys.executable, "-m", "fabric", "get", "pipe", "-", "--proxy", proxy]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(10) == content[:10]
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 1


def test_the_operator_sees_and_directs_the_servers(shared_fabric: FabricUp) -> None:
    status = shared_fabric.admin("status")
    assert [group["state"] for group in status["groups"]] == ["WRITABLE"]
    assert sorted(node["server"] for node in status["nodes"]) == ["chunk-1", "chunk-2", "chunk-3"]

    assert shared_fabric.admin("set-status", "chunk-2", "ro")["changed"] is True
    assert shared_fabric.admin("set-status", "chunk-2", "ro")["changed"] is False
    assert shared_fabric.admin("node", "show", "chunk-2")["wanted"] == "ro"
    (group,) = shared_fabric.admin("groups")
    assert group["state"] != "WRITABLE"
    assert "chunk-2" in group["reason"]
    assert shared_fabric.admin("set-status", "chunk-2", "rw")["changed"] is True
    shared_fabric.wait_writable()

    refused = shared_fabric.fabric("admin", "--master", shared_fabric.master, "set-status", "chunk-9", "ro")
    assert refused.returncode == 1
    assert b"chunk-1" in refused.stderr


def test_the_foreign_client_in_the_document_works(shared_fabric: FabricUp) -> None:
    stored = shared_fabric.fabric("put", "hello", "-", "--proxy", shared_fabric.proxy, stdin=b"world")
    assert stored.returncode == 0

    printed = run_foreign_client(shared_fabric.proxy)

    assert "[3, 'proxy'" in printed
    assert "['hello', 5," in printed
    assert "b'world'" in printed
