"""Webhooks in processes: a killed registry, a receiver that was away, a second registry, commands."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import FabricUp, wait_until
from tests.e2e.http_registry import HttpRegistry


class Receiver:
    """Answers 503 until it is well."""

    def __init__(self) -> None:
        self.is_well = True
        self.asked = 0
        self.accepted: list[dict[str, Any]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.asked += 1
                is_well = receiver.is_well
                if is_well:
                    receiver.accepted += json.loads(body)["events"]
                self.send_response(200 if is_well else 503)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/events"

    def told(self) -> list[tuple[str, str, str]]:
        return [
            (event["action"], event["target"].get("tag", ""), event["actor"].get("name", ""))
            for event in self.accepted
        ]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    with one.server:
        thread = threading.Thread(target=one.server.serve_forever)
        thread.start()
        yield one
        one.server.shutdown()
        thread.join()


def written(directory: Path, url: str, events: str = '["push", "pull", "delete"]') -> Path:
    path = directory / "hooks.toml"
    path.write_text(f'[[hook]]\nname = "ci"\nurl = "{url}"\nevents = {events}\ntimeout_s = 1\n')
    return path


def status(fabric: FabricUp) -> dict[str, Any]:
    result = fabric.fabric(
        "registry", "hooks", "status", "--json", "--proxy", fabric.proxy.removeprefix("tcp://")
    )
    assert result.returncode == 0, result.stderr.decode()
    (hook,) = json.loads(result.stdout)
    assert isinstance(hook, dict)
    return hook


def test_what_a_registry_committed_before_it_was_killed_is_told(
    start: Callable[..., FabricUp], tmp_path: Path, receiver: Receiver
) -> None:
    fabric = start("--hooks", str(written(tmp_path, receiver.url)), "--replicas", "1").wait_ready()
    registry = HttpRegistry(fabric.registry)
    registry.push_image("app", "v1", [b"one"])
    wait_until(lambda: receiver.told() == [("push", "v1", "anonymous")], "the first push to be told")

    receiver.is_well, receiver.asked = False, 0
    digest, manifest = registry.push_image("app", "v2", [b"two"])
    wait_until(lambda: receiver.asked > 0, "the receiver to be asked")
    fabric.wait_restarted("registry", fabric.kill("registry"))
    assert status(fabric)["waiting"] == 1
    receiver.is_well = True
    wait_until(lambda: len(receiver.accepted) == 2, "the second push to be told", fabric.story)
    assert receiver.accepted[1]["target"]["digest"] == digest

    # Commands tell too, though they deliver nothing; the registry finds it when it looks.
    proxy = fabric.proxy.removeprefix("tcp://")
    registry = HttpRegistry(fabric.registry)
    wait_until(lambda: _answers(registry), "the registry to be back", fabric.story)
    assert registry.ask("DELETE", f"/v2/app/manifests/{digest}").status == 202
    restored = fabric.fabric("registry", "restore", "--proxy", proxy, f"app@{digest}")
    assert restored.returncode == 0, restored.stderr.decode()
    wait_until(
        lambda: ("push", "v2", "operator") in receiver.told(), "the restoration to be told", fabric.story
    )
    assert ("delete", "v2", "anonymous") in receiver.told()

    # SIGHUP: from now on pulls are not told.
    registry.get_manifest("app", "v2")
    wait_until(lambda: ("pull", "v2", "anonymous") in receiver.told(), "the pull to be told", fabric.story)
    written(tmp_path, receiver.url, '["push"]')
    fabric.kill("registry", signal.SIGHUP)
    log = fabric.data / "logs" / "registry.log"
    wait_until(lambda: "was read again" in log.read_text(), "the file to be read again", fabric.story)
    registry.get_manifest("app", "v2")
    registry.put_manifest("app", "v3", manifest)
    wait_until(
        lambda: receiver.told()[-1] == ("push", "v3", "anonymous"), "the push to be told", fabric.story
    )
    assert [each for each in receiver.told() if each[0] == "pull"] == [("pull", "v2", "anonymous")]
    wait_until(lambda: status(fabric)["waiting"] == 0, "nothing to wait")
    assert fabric.stop() == 0


def _answers(registry: HttpRegistry) -> bool:
    try:
        return registry.ask("GET", "/v2/").status == 200
    except OSError:
        return False


def test_a_registry_with_the_file_delivers_for_one_without(
    start: Callable[..., FabricUp], tmp_path: Path, receiver: Receiver
) -> None:
    fabric = start("--hooks", str(written(tmp_path, receiver.url)), "--replicas", "1").wait_ready()
    proxy = fabric.proxy.removeprefix("tcp://")
    wait_until(
        lambda: b'"ci"' in fabric.fabric("get", "meta/hooks", "-", "--proxy", proxy).stdout,
        "the file to be known",
    )
    http = f"127.0.0.1:{_free_port()}"
    command = [sys.executable, "-m", "fabric", "registry", "--http", http, "--proxy", proxy]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as second:
        try:
            assert second.stderr is not None
            assert "listening on" in second.stderr.readline()
            registry = HttpRegistry(f"http://{http}")
            registry.push_image("app", "v1", [b"one"])
            wait_until(lambda: receiver.told() == [("push", "v1", "anonymous")], "the push to be told")
            assert receiver.accepted[0]["source"]["addr"].endswith(http.removeprefix("127.0.0.1"))
        finally:
            second.terminate()
            assert second.wait(timeout=15) == 0


def _free_port() -> int:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as probe:
        return int(probe.server_port)
