"""The entrance: which Pythons, which commands, how fast, and who dies with whom."""

from __future__ import annotations

import ast
import importlib
import os
import signal
import subprocess
import sys
import time

import click
import pytest

from fabric.cli import main
from fabric.cli.root import COMMANDS


@pytest.mark.parametrize("version", [(3, 11), (3, 12)])
def test_supported_pythons(version: tuple[int, int]) -> None:
    assert main.unsupported_python(version) == ""


@pytest.mark.parametrize("version", [(2, 7), (3, 10), (3, 13), (4, 0)])
def test_other_pythons_get_a_sentence(version: tuple[int, int]) -> None:
    assert "{}.{}".format(*version) in main.unsupported_python(version)


def test_the_entrance_compiles_on_an_old_python_and_imports_nothing_heavy() -> None:
    with open(main.__file__) as file:
        tree = ast.parse(file.read(), feature_version=(3, 6))
    at_top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {alias.name for node in at_top for alias in node.names} == {"os", "sys"}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_each_command_is_what_its_own_file_says(name: str) -> None:
    entry = COMMANDS[name]
    command = getattr(importlib.import_module(entry.module), entry.attribute)

    assert isinstance(command, click.Command)
    assert command.help


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fabric", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_help_names_every_command() -> None:
    result = run("--help")
    assert result.returncode == 0
    for name, entry in COMMANDS.items():
        assert f"  {name} " in result.stdout
        assert entry.help in result.stdout


def test_an_unknown_command_is_wrong_usage() -> None:
    assert run("nonsense").returncode == 2


def test_help_loads_neither_zeromq_nor_http_nor_tables() -> None:
    code = (
        "import sys; sys.argv = ['fabric', '--help']\n"
        "from fabric.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'zmq', 'aiohttp', 'rich', 'plyvel', 'msgspec', 'asyncio'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.splitlines()[-1] == "[]"


def test_a_child_is_killed_with_its_supervisor() -> None:
    code = (
        "import os, subprocess, sys\n"
        "environment = {**os.environ, 'FABRIC_PARENT_PID': str(os.getpid())}\n"
        "inner = 'from fabric.cli import main; import os, time\\n'\n"
        "inner += 'main._die_with(int(os.environ[\"FABRIC_PARENT_PID\"]))\\n'\n"
        "inner += 'print(\"safe\", flush=True); time.sleep(60)'\n"
        "child = subprocess.Popen([sys.executable, '-c', inner], env=environment, stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdin is not None
    child = int(parent.stdout.readline())

    parent.kill()
    parent.wait()

    watched = os.pidfd_open(child) if alive(child) else None
    until = time.monotonic() + 10
    while watched is not None and alive(child):
        assert time.monotonic() < until, "the child outlived its parent"
        time.sleep(0.01)
    if watched is not None:
        os.close(watched)
    parent.stdin.close()
    parent.stdout.close()


def test_a_child_whose_supervisor_is_gone_already_does_not_start() -> None:
    environment = {**os.environ, main.PARENT_VARIABLE: "1" if os.getpid() != 1 else "2"}
    command = [sys.executable, "-m", "fabric", "--version"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    assert result.returncode == 1
    assert "supervisor has ended" in result.stderr


def alive(pid: int) -> bool:
    """Is it running?  A zombie is not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_alive_tells_a_dead_process_from_a_living_one() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    assert alive(process.pid)
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not alive(process.pid)
    process.wait()
    assert not alive(process.pid)
