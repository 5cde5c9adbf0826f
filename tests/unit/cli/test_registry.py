"""``fabric registry``: starts without a proxy, stops on a signal, and says what is wrong with its port."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import urllib.request

from click.testing import CliRunner

from fabric.cli.registry import command


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_port_in_use_is_a_sentence_and_status_1() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        result = CliRunner().invoke(command, ["--http", f"127.0.0.1:{port}", "--proxy", "127.0.0.1:1"])

    assert result.exit_code == 1
    assert result.output == f"Error: cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_a_wrong_address_is_a_usage_error() -> None:
    assert CliRunner().invoke(command, ["--http", "nonsense"]).exit_code == 2


def test_it_serves_and_ends_with_status_0_on_sigterm() -> None:
    port = free_port()
    arguments = ["registry", "--http", f"127.0.0.1:{port}", "--proxy", f"127.0.0.1:{free_port()}"]
    with subprocess.Popen(
        [sys.executable, "-m", "fabric", *arguments], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            assert "listening on" in process.stderr.readline()
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=5) as answer:
                assert answer.status == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=10) == 0
        finally:
            process.kill()
