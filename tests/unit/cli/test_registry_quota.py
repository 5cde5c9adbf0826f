"""``fabric registry quota`` over a store in memory; and that operators' commands keep the accounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.test_registry_content import NOW, Shop
from tests.unit.driver.registry.accounts_world import Recount
from tests.unit.driver.registry.world import run

QUOTAS = """
[[quota]]
repositories = "app"
bytes = "2 kB"

[[quota]]
repositories = "team/**"
bytes = 1048576
"""


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shop:
    config = tmp_path / "fabric.toml"
    config.write_text(NOW)
    shop = Shop(config)
    monkeypatch.setattr("fabric.driver.fabric_store.FabricStore", shop.store)
    return shop


@pytest.fixture
def access(tmp_path: Path) -> Path:
    path = tmp_path / "access.toml"
    path.write_text(QUOTAS)
    return path


def test_without_quotas_it_says_where_they_come_from(shop: Shop) -> None:
    assert "docs/quota.md" in shop.call("quota").output
    assert shop.json("quota") == []


def test_it_lets_a_file_hold_and_shows_what_accounts_hold(shop: Shop, access: Path) -> None:
    run(shop.process.upload("team/a", b"x" * 1000))
    run(shop.process.upload("team/b", b"x" * 1000))
    run(shop.process.upload("elsewhere", b"y" * 500))
    run(shop.process.upload("team/b", b"y" * 500))

    app, team = shop.json("quota", "--access", str(access), "--repositories")

    assert (app["account"], app["limit_bytes"], app["objects"]) == ("app", 2000, 6)
    assert app["used_bytes"] == Recount(shop.store).used("app")
    assert team == {
        "account": "team/**", "limit_bytes": 1048576, "used_bytes": 1500, "percent": 0.143, "objects": 2,
        "unique_bytes": 1000, "shared_bytes": 500, "counting": False,
        "repositories": {
            "team/a": {"bytes": 1000, "objects": 1, "unique_bytes": 0, "shared_bytes": 1000},
            "team/b": {"bytes": 1500, "objects": 2, "unique_bytes": 0, "shared_bytes": 1500},
        },
    }  # fmt: skip
    text = shop.call("quota", "--repositories").output
    assert "1.0 MiB" in text
    assert "0.1 %" in text
    assert "team/b" in text
    assert "team/b" not in shop.call("quota").output


def test_a_quota_that_nobody_has_counted_yet_is_shown_as_counting(shop: Shop, access: Path) -> None:
    shop.json("quota", "--access", str(access))
    (info, data) = run(shop.store.read("meta/quotas", 10_000))
    run(shop.store.put("meta/quotas", data.replace(b"true", b"false"), if_generation=info.generation))
    assert "counting" in shop.call("quota").output
    assert shop.json("quota")[0]["counting"] is True


def test_all_quotas_are_ended_by_a_file_that_says_so(shop: Shop, access: Path) -> None:
    shop.json("quota", "--access", str(access))
    access.write_text("quota = []\n")
    assert shop.json("quota", "--access", str(access)) == []
    assert shop.store.paths("accounts/") == []


def test_a_file_that_says_nothing_of_quotas_is_wrong_usage(shop: Shop, access: Path) -> None:
    access.write_text("read_only = false\n")
    result = shop.call("quota", "--access", str(access))
    assert result.exit_code == 2
    assert "quota = []" in result.output


def test_collection_retention_and_restoring_by_command_keep_the_accounts(
    shop: Shop, access: Path, tmp_path: Path
) -> None:
    shop.json("quota", "--access", str(access))
    before = Recount(shop.store).used("app")
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nrepositories = ["app"]\nkeep_tags = ["none"]\n')
    run(shop.process.manifests.delete("app", shop.second, "tester"))
    shop.call("restore", "app")
    assert Recount(shop.store).wrong() == []
    shop.call("retention", "--rules", str(rules))
    run(shop.process.manifests.delete("app", shop.first, "tester"))
    for _ in range(4):
        shop.process.clock.advance(1)
        result = shop.call("gc", "run", "--config", str(shop.config))
        assert result.exit_code == 0, result.output
        assert Recount(shop.store).wrong() == []
    assert shop.json("quota")[0]["used_bytes"] == Recount(shop.store).used("app") < before
