"""Accounts: exact at each commit, whatever makes it; and what is refused."""

from __future__ import annotations

import pytest

from fabric.driver.registry.errors import RegistryError
from fabric.driver.registry.names import parse_digest
from fabric.driver.registry.quota.usage import usage_of_accounts
from tests.unit.driver.registry.accounts_world import TIB, Recount, set_quotas
from tests.unit.driver.registry.harness import sha256
from tests.unit.driver.registry.memory_store import MemoryStore
from tests.unit.driver.registry.world import (
    AT_ONCE,
    Clock,
    Process,
    config_of,
    manifest_of,
    run,
)

BASE, CODE = b"b" * 1000, b"c" * 300


def processes(count: int = 2) -> tuple[MemoryStore, list[Process]]:
    store, clock = MemoryStore(), Clock()
    return store, [Process(store, clock, AT_ONCE) for _ in range(count)]


def size_of_image(*layers: bytes) -> int:
    return sum(map(len, (*layers, config_of(layers), manifest_of(*layers))))


def used(store: MemoryStore, repositories: str = "team/**") -> int:
    recount = Recount(store)
    assert recount.wrong() == []
    return recount.used(repositories)


def refused(error: pytest.ExceptionInfo[RegistryError]) -> dict[str, object]:
    assert (error.value.status, error.value.code) == (403, "DENIED")
    assert isinstance(error.value.detail, dict)
    return error.value.detail


def test_a_digest_counts_once_however_many_repositories_and_processes_push_it() -> None:
    store, (one, other) = processes()
    run(set_quotas(one, ("team/**", TIB)))
    run(one.push_image("team/app", "v1", BASE, CODE))
    run(other.push_image("team/app", "v2", BASE, CODE))
    run(other.push_image("team/tool", "v1", BASE, CODE))
    run(other.blobs.mount("team/third", parse_digest(sha256(BASE)), "team/app"))
    run(other.push_image("elsewhere", "v1", BASE, b"not counted"))
    assert used(store) == size_of_image(BASE, CODE)


def test_what_is_in_the_trash_counts_until_it_is_purged() -> None:
    store, (one, other) = processes()
    run(set_quotas(one, ("team/**", TIB)))
    digest = run(one.push_image("team/app", "v1", BASE))
    run(other.push_image("team/tool", "v1", BASE, CODE))
    run(other.manifests.delete("team/app", digest))
    assert used(store) == len(BASE) + sum(
        map(len, (CODE, config_of([BASE, CODE]), manifest_of(BASE, CODE)))
    ) + len(config_of([BASE])) + len(manifest_of(BASE))
    run(one.collect(passes=4))
    assert used(store) == size_of_image(BASE, CODE)


def test_a_push_that_would_exceed_is_refused_and_changes_nothing() -> None:
    store, (one, other) = processes()
    run(set_quotas(one, ("team/**", 1200)))
    run(other.upload("team/app", BASE))
    before = {path: entry for path, entry in store.entries.items() if not path.startswith("uploads/")}
    with pytest.raises(RegistryError) as error:
        run(one.upload("team/tool", CODE))
    assert refused(error) == {
        "account": "team/**", "limit_bytes": 1200, "used_bytes": 1000, "wanted_bytes": 300,
    }  # fmt: skip
    assert "garbage collection" in error.value.message
    after = {path: entry for path, entry in store.entries.items() if not path.startswith("uploads/")}
    assert after == before


def test_a_push_that_just_fits_is_taken_and_what_is_held_costs_nothing_at_the_limit() -> None:
    store, (one, other) = processes()
    run(set_quotas(one, ("team/**", 1300)))
    run(one.upload("team/app", BASE))
    run(other.upload("team/app", CODE))
    run(one.upload("team/tool", CODE))
    assert used(store) == 1300
    with pytest.raises(RegistryError) as error:
        run(other.upload("team/tool", b"x"))
    assert refused(error)["wanted_bytes"] == 1
    run(other.upload("team/tool", b""))


def test_a_mount_and_a_manifest_are_refused_too() -> None:
    store, (one, other) = processes()
    run(one.upload("source", BASE))
    run(set_quotas(one, ("team/**", 999), ("small", len(config_of([])))))
    with pytest.raises(RegistryError) as error:
        run(other.blobs.mount("team/app", parse_digest(sha256(BASE)), "source"))
    assert refused(error)["wanted_bytes"] == 1000
    run(other.upload("small", config_of([])))
    with pytest.raises(RegistryError) as error:
        run(other.push("small", "v1", manifest_of()))
    assert refused(error)["account"] == "small"
    assert store.paths("repositories/small/_tags/") == []


def test_room_that_another_process_made_is_seen_before_anything_is_refused() -> None:
    store, (one, other) = processes()
    run(set_quotas(one, ("team/**", 1200)))
    run(one.upload("team/app", BASE))
    run(other.collect(passes=3))
    assert used(store) == 0
    run(one.upload("team/app", CODE * 4))
    assert used(store) == 1200


def test_a_limit_that_another_process_raised_holds_at_once_and_nothing_is_counted_anew() -> None:
    store, (one, other) = processes()
    run(set_quotas(one, ("team/**", 1000)))
    run(one.upload("team/app", BASE))
    (before,) = run(other.accounts.book()).accounts
    run(set_quotas(other, ("team/**", 2000)))
    (after,) = run(other.accounts.book()).accounts
    assert (after.id, after.limit_bytes, after.is_counted) == (before.id, 2000, True)
    run(one.upload("team/app", CODE))
    assert used(store) == 1300


def test_a_process_that_knew_of_no_quota_counts_from_the_commit_that_sets_one() -> None:
    store, (one, other) = processes()
    run(other.upload("team/app", BASE))
    run(set_quotas(one, ("team/**", 1200)))
    with pytest.raises(RegistryError) as error:
        run(other.upload("team/app", CODE))
    assert refused(error)["used_bytes"] == 1000
    assert used(store) == 1000


def test_a_quota_that_is_no_more_leaves_no_figures_and_begins_anew() -> None:
    store, (one, other) = processes()
    run(set_quotas(one, ("team/**", TIB), ("tools", TIB)))
    run(one.upload("team/app", BASE))
    (old, _) = run(one.accounts.book()).accounts
    run(set_quotas(other, ("tools", TIB)))
    assert store.paths(f"accounts/{old.id}/") == []
    run(one.upload("team/app", CODE))
    run(set_quotas(one, ("team/**", TIB), ("tools", TIB)))
    assert used(store) == 1300


def test_without_a_quota_a_commit_gets_one_step_more_and_others_none() -> None:
    store, (one, other) = processes()
    run(set_quotas(other, ("team/**", TIB)))
    run(one.upload("free", BASE))
    store.commits.clear()
    run(one.upload("free", CODE))
    starting, appending, finishing = store.commits
    assert (len(starting), len(appending)) == (1, 1)
    paths = [operation.path for operation in finishing if hasattr(operation, "path")]
    assert paths.count("meta/quotas") == 1
    assert not any(path.startswith("accounts/") for path in paths)


def test_a_manifest_pushed_and_purged_also_where_it_is_a_blob_counts_once() -> None:
    store, (one, _) = processes()
    run(set_quotas(one, ("team/**", TIB)))
    data = manifest_of(BASE)
    run(one.push_image("team/app", "v1", BASE))
    run(one.upload("team/app", data))
    assert used(store) == size_of_image(BASE)
    run(one.collect(passes=4))
    assert used(store) == size_of_image(BASE)


def test_a_pass_that_ends_many_ownerships_at_once_has_room_for_the_accounts() -> None:
    store, (one, _) = processes()
    run(set_quotas(one, ("team/**", TIB), ("tools", TIB)))
    for number in range(70):
        run(one.upload("tools" if number % 3 else "team/app", bytes([number])))
    report = run(one.collect(passes=2))
    assert report.unlinked_blobs == 70
    assert max(map(len, store.commits)) > 100, "in few commits"
    assert (used(store), used(store, "tools")) == (0, 0)


def test_a_manifest_of_any_length_has_room_for_its_account() -> None:
    store, (one, _) = processes()
    run(set_quotas(one, ("team/**", TIB)))
    layers = [bytes([number]) for number in range(90)]
    for data in layers:
        run(one.upload("team/app", data))
    for count in range(60, 91):
        run(one.upload("team/app", config_of(layers[:count])))
        run(one.push("team/app", f"v{count}", manifest_of(*layers[:count])))
    assert max(map(len, store.commits)) > 240, "as many as fit"
    assert used(store) > 90


def test_the_usage_tells_what_is_unique_and_what_is_shared() -> None:
    store, (one, _) = processes()
    run(set_quotas(one, ("team/**", 10_000), ("tools", 0)))
    for name in ("team/app", "team/tool", "elsewhere"):
        run(one.upload(name, BASE))
    run(one.upload("team/app", CODE))
    run(one.upload("team/tool", CODE))
    run(one.upload("team/tool", b"own"))

    team, tools = run(usage_of_accounts(store))

    assert (team.used_bytes, team.objects) == (1303, 3)
    assert (team.found.unique_bytes, team.found.shared_bytes, team.found.objects) == (303, 1000, 3)
    assert team.percent == pytest.approx(13.03)
    app, tool = team.repositories["team/app"], team.repositories["team/tool"]
    assert (app.bytes, app.unique_bytes, app.shared_bytes) == (1300, 0, 1300)
    assert (tool.bytes, tool.unique_bytes, tool.objects) == (1303, 3, 3)
    assert (tools.used_bytes, tools.repositories, tools.percent) == (0, {}, 100.0)
    assert store.paths("uploads/") == []
