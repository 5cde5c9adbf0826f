"""``fabric registry hooks check|status|test``, and commands that change something beside hooks."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fabric.cli.root import fabric
from fabric.driver.registry.hooks.envelope import signature
from fabric.driver.registry.hooks.service import wall_ms
from fabric.driver.registry.hooks.wishes import WISHES_PATH, Wish, publish_wishes
from tests.unit.cli.test_registry_content import Shop, shop
from tests.unit.driver.registry.hooks.hooks_world import CI, Carrier, Target, entries
from tests.unit.driver.registry.world import run

__all__ = ["shop"]


def call(*arguments: str) -> Result:
    return CliRunner().invoke(fabric, ["registry", "hooks", *arguments])


def written(directory: Path, url: str = "http://127.0.0.1:9/x") -> str:
    path = directory / "hooks.toml"
    (directory / "secret").write_text("key")
    path.write_text(f'[[hook]]\nname = "ci"\nurl = "{url}"\nsecret_file = "secret"\n')
    return str(path)


def published(shop: Shop, *wishes: Wish) -> None:
    run(publish_wishes(shop.store, wishes or (CI,), wall_ms()))


# --- check ----------------------------------------------------------------------------------------


def test_check_says_what_a_file_means(tmp_path: Path) -> None:
    result = call("check", written(tmp_path))
    assert result.exit_code == 0
    assert (
        "hooks.toml is good: 1 hook\n  ci: push and delete of ** to http://127.0.0.1:9/x, signed"
        in result.output
    )


def test_check_tells_a_mistake_in_one_line_with_status_2(tmp_path: Path) -> None:
    path = written(tmp_path, "ftp://x")
    result = call("check", path)
    assert (result.exit_code, result.output) == (
        2, f"Error: {path}: hook[1].url: not an http:// or https:// address\n"
    )  # fmt: skip


def test_a_registry_and_a_fabric_do_not_start_with_a_mistake(tmp_path: Path) -> None:
    path = written(tmp_path, "ftp://x")
    for role in (["registry"], ["up", "--data", str(tmp_path / "data")]):
        result = CliRunner().invoke(fabric, [*role, "--hooks", path])
        assert (result.exit_code, "hook[1].url" in result.output) == (2, True), result.output


# --- status ---------------------------------------------------------------------------------------


def test_status_without_hooks(shop: Shop) -> None:
    assert shop.json("hooks", "status") == []
    assert "There are no hooks" in shop.call("hooks", "status").output


def test_status_of_a_hook_that_has_it_all_and_of_one_that_fails(shop: Shop) -> None:
    published(shop, CI, Wish("team", ("push",), ("team/*",), 60.0))
    shop.json("restore", "app:v1")
    (known,) = [each for each in shop.json("hooks", "status") if each["name"] == "ci"]
    assert (known["waiting"], known["waiting_is_least"], known["failures"]) == (1, False, 0)
    assert abs(known["oldest_ms"] - wall_ms()) < 60_000

    target = Target()
    target.errors = ["the receiver answered 500 Oops"]
    carrier = Carrier(shop.store, shop.process.clock, target)
    run(carrier.step())
    (failing, team) = shop.json("hooks", "status")
    assert (failing["last_error"], failing["failures"]) == ("the receiver answered 500 Oops", 1)
    assert (team["name"], team["waiting"], team["oldest_ms"]) == ("team", 0, 0)
    text = shop.call("hooks", "status").output
    assert "1 tries failed" in text and "answered 500 Oops" in text

    shop.process.clock.advance(2)
    run(carrier.step())
    after = shop.json("hooks", "status")[0]
    assert (after["waiting"], after["delivered"], after["last_error"], after["is_known"]) == (0, 1, "", True)
    assert "last at" in shop.call("hooks", "status").output


def test_status_shows_what_waits_for_nobody(shop: Shop) -> None:
    published(shop)
    shop.json("restore", "app:v1")
    del shop.store.entries[WISHES_PATH]
    (orphan,) = shop.json("hooks", "status")
    assert (orphan["is_known"], orphan["waiting"]) == (False, 1)
    assert "no registry delivers" in shop.call("hooks", "status").output


# --- commands that change something ---------------------------------------------------------------


def test_commands_tell_the_hooks_that_the_store_knows(shop: Shop, tmp_path: Path) -> None:
    published(shop)
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nrepositories = ["app"]\nkeep_last = 0\n')
    settings = tmp_path / "now.toml"
    settings.write_text(
        "[settings]\ngc_untagged_after_s = 0\nundelete_s = 0\ngc_grace_s = 0\ngc_pause_s = 0\n"
    )

    shop.json("restore", "app:v1")
    shop.json("retention", "--rules", str(rules))
    for _ in range(4):
        shop.json("gc", "run", "--config", str(settings))

    changes = [change for entry in entries(shop.store) for change in entry.changes]
    told = [(change.action, change.tags, change.who) for change in changes]
    assert told[:2] == [("push", ("v1",), "operator"), ("delete", ("v1",), "retention")]
    assert told[2:] == [("delete", (), "garbage collection")] * 3, "two manifests, and the repository"
    assert {change.digest for change in changes[2:]} == {str(shop.first), str(shop.second), ""}


def test_hooks_that_no_registry_has_confirmed_for_long_are_told_nothing(shop: Shop) -> None:
    run(publish_wishes(shop.store, [CI], wall_ms() - int((CI.retry_for_s + 601) * 1000)))
    shop.json("restore", "app:v1")
    assert entries(shop.store) == []


# --- test -----------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    status = 200
    requests: list[tuple[Any, bytes]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.requests.append((self.headers, body))
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(b"thank you")

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    Handler.status, Handler.requests = 200, []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/hook"
        server.shutdown()
        thread.join()


def test_test_sends_a_signed_ping_and_prints_the_answer(tmp_path: Path, server: str) -> None:
    result = call("test", "ci", "--hooks", written(tmp_path, server))
    assert (result.exit_code, result.output) == (0, f"{server}: 200 OK\nthank you\n")
    ((headers, body),) = Handler.requests
    assert headers["X-Fabric-Signature"] == signature(b"key", body)
    (event,) = json.loads(body)["events"]
    assert (event["action"], event["actor"]["name"]) == ("ping", "operator")


def test_test_fails_when_the_receiver_refuses_or_is_not_there(tmp_path: Path, server: str) -> None:
    Handler.status = 403
    result = call("test", "ci", "--hooks", written(tmp_path, server))
    assert (result.exit_code, result.output) == (1, f"{server}: 403 Forbidden\nthank you\n")
    result = call("test", "ci", "--hooks", written(tmp_path, "http://127.0.0.1:9/x"))
    assert result.exit_code == 1
    assert result.output.startswith("Error: http://127.0.0.1:9/x: ")
    result = call("test", "no", "--hooks", written(tmp_path, server))
    assert (result.exit_code, "has no hook 'no'; it has ci" in result.output) == (2, True)
