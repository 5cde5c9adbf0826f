"""``fabric registry gc|history|trash|restore|retention`` over a store in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fabric.cli.root import fabric
from fabric.errors import Unavailable
from tests.unit.driver.registry.harness import sha256
from tests.unit.driver.registry.memory_store import MemoryStore
from tests.unit.driver.registry.world import Clock, Process, config_of, manifest_of, run

NOW = """
[settings]
gc_grace_s = 0
undelete_s = 0
gc_pause_s = 0
"""


class Connected(MemoryStore):
    """What the commands take for a connection to a fabric."""

    def __call__(self, proxy: str, settings: Any) -> Connected:
        assert proxy == "tcp://127.0.0.1:7420"
        return self

    async def start(self) -> None: ...

    async def close(self) -> None:
        self.calls["close"] += 1


class Shop:
    """A store with two states of a tag, and the commands."""

    def __init__(self, config: Path) -> None:
        self.store = Connected()
        self.config = config
        clock = Clock()
        clock.advance(1000)
        self.process = Process(self.store, clock)
        self.first = run(self.process.push_image("app", "v1", b"one"))
        clock.advance(1)
        self.second = run(self.process.push_image("app", "v1", b"two"))

    def call(self, *arguments: str) -> Result:
        result = CliRunner().invoke(fabric, ["registry", *arguments])
        assert self.store.calls["close"] or result.exit_code == 2, "the connection is closed"
        self.store.calls["close"] = 0
        return result

    def json(self, *arguments: str) -> Any:
        result = self.call(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shop:
    config = tmp_path / "fabric.toml"
    config.write_text(NOW)
    shop = Shop(config)
    monkeypatch.setattr("fabric.driver.fabric_store.FabricStore", shop.store)
    return shop


def test_history_shows_changes_in_order(shop: Shop) -> None:
    entries = shop.json("history", "app")
    assert [(each["tag"], each["what"], each["digest"], each["who"]) for each in entries] == [
        ("v1", "pushed", str(shop.first), "tester"),
        ("v1", "pushed", str(shop.second), "tester"),
    ]
    assert entries[1]["at_ms"] - entries[0]["at_ms"] == 1000
    text = shop.call("history", "app:v1").output
    assert text.index(str(shop.first)) < text.index(str(shop.second))


def test_history_of_nothing_is_an_error(shop: Shop) -> None:
    result = shop.call("history", "app:v9")
    assert (result.exit_code, "nothing is known of app:v9" in result.output) == (1, True)


def test_restore_brings_back_a_tag_a_manifest_and_a_repository(shop: Shop) -> None:
    assert shop.json("restore", "app:v1") == [{"repository": "app", "tag": "v1", "digest": str(shop.first)}]
    run(shop.process.manifests.delete("app", shop.first))
    back = [{"repository": "app", "tag": tag, "digest": str(shop.first)} for tag in ("", "v1")]
    assert shop.json("restore", f"app@{shop.first}") == back
    run(shop.process.manifests.delete("app", shop.first))
    assert shop.json("restore", "app") == back
    assert "it is all there" in shop.call("restore", "app").output
    assert run(shop.process.history.of("app", "v1"))[-1].who == "operator"


def test_restore_to_a_time(shop: Shop) -> None:
    digests = [
        shop.json("restore", "app:v1", "--at", at)[0]["digest"] for at in ("2023-11-14T22:30:00.500+00:00",)
    ]
    assert digests == [str(shop.first)]
    assert shop.json("restore", "app:v1", "--at", "2024-01-01")[0]["digest"] == str(shop.second)


@pytest.mark.parametrize(
    "arguments",
    [
        ["restore", "app:v1", "--at", "yesterday"],
        ["restore", "UPPER"],
        ["restore", "app@sha256:12"],
        ["restore", "app:a b"],
        ["restore", f"app@{sha256(b'')}", "--at", "2h"],
        ["history", f"app@{sha256(b'')}"],
        ["gc", "why", "sha256:../x"],
        ["retention"],
        ["retention", "--rules", "/nonexistent"],
    ],
)
def test_wrong_usage_is_status_2(shop: Shop, arguments: list[str]) -> None:
    assert shop.call(*arguments).exit_code == 2


def test_what_cannot_be_restored_says_so(shop: Shop) -> None:
    result = shop.call("restore", f"app@{sha256(b'never')}")
    assert result.exit_code == 1
    assert sha256(b"never") in result.output
    assert "Traceback" not in result.output


def test_trash_lists_what_was_deleted(shop: Shop) -> None:
    run(shop.process.manifests.delete("app", shop.second, "somebody"))
    (entry,) = shop.json("trash", "--config", str(shop.config))
    assert (entry["repository"], entry["kind"], entry["digest"]) == ("app", "manifest", str(shop.second))
    assert (entry["who"], entry["until_ms"]) == ("somebody", entry["at_ms"])
    assert str(shop.second) in shop.call("trash", "app").output
    assert shop.json("trash", "other") == []


def test_gc_frees_what_nothing_needs_and_says_so(shop: Shop) -> None:
    run(shop.process.manifests.delete("app", shop.second))
    config = ["--config", str(shop.config)]
    assert "books of this store are not complete" in shop.call("gc", "run", "--dry-run", *config).output
    freed = sum(shop.json("gc", "run", *config)["freed"] for _ in range(3))
    assert freed == 3
    text = shop.call("gc", "status").output
    assert "Last pass" in text
    status = shop.json("gc", "status")
    assert status["indexed"]
    assert status["waiting"]["blobs without a manifest"] == {"count": 0, "oldest_ms": 0}
    assert sha256(b"two") not in {path.rsplit("/", 1)[1] for path in shop.store.paths("blobs/")}


def test_gc_why_names_the_manifests_and_tags_that_need_a_blob(shop: Shop) -> None:
    found = shop.json("gc", "why", sha256(b"one"))
    (keeper,) = found["keepers"]
    assert (keeper["repository"], keeper["kind"], keeper["state"]) == ("app", "blob", "linked")
    assert keeper["used_by"] == [str(shop.first)]
    text = shop.call("gc", "why", sha256(b"one")).output
    assert f"needed by {shop.first} (v1 (before))" in text
    assert "(v1)" in shop.call("gc", "why", sha256(config_of([b"two"]))).output
    text = shop.call("gc", "why", sha256(manifest_of(b"two"))).output
    assert "manifest of app: linked" in text
    assert "named by v1" in text
    assert "is not stored" in shop.call("gc", "why", sha256(b"nothing")).output


def test_retention_deletes_by_rules(shop: Shop, tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nrepositories = ["app"]\nkeep_last = 1\n')
    run(shop.process.push_image("app", "v2", b"one"))
    arguments = ["retention", "--rules", str(rules)]

    (told,) = shop.json(*arguments, "--dry-run")
    assert (told["tag"], told["keep"]) == ("v1", False)
    assert [each["tag"] for each in shop.json(*arguments, "--dry-run", "--all")] == ["v2", "v1"]
    assert "1 would go, 1 kept" in shop.call(*arguments, "--dry-run").output
    assert "1 deleted, 1 kept" in shop.call(*arguments).output
    assert shop.store.paths("repositories/app/_tags/") == ["repositories/app/_tags/v2"]

    rules.write_text("rule = 1")
    result = shop.call(*arguments)
    assert (result.exit_code, "rules.toml" in result.output) == (2, True)


def test_a_fabric_that_does_not_answer_is_one_line(shop: Shop) -> None:
    shop.store.fail("list", Unavailable("nobody answers"))
    result = shop.call("history", "app")
    assert result.exit_code == 1
    assert result.output.strip() == "Error: nobody answers (it may work if tried again)"
