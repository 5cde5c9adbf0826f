"""The first protocol behind an access file: the same rules, logins and names as the later one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fabric.driver.registry.access.load import load_access
from fabric.driver.registry.errors import RegistryError
from fabric.driver.registry.v1.sessions import SESSION_S, Session, Sessions, read_token, token_text
from tests.unit.driver.registry.access.access_world import basic, htpasswd, write
from tests.unit.driver.registry.harness import asynchronous
from tests.unit.driver.registry.memory_store import MemoryStore
from tests.unit.driver.registry.v1.docker import Docker, Image, chain, layer_of, legacy
from tests.unit.driver.registry.v1.test_push_http import refused

BASE, APP = chain(2)

RULES = """
[users]
htpasswd = "users"

[[immutable]]
repositories = ["team/app"]
tags = ["v*"]

[[rules]]
repositories = ["public/*"]
who = ["@everybody"]
may = ["pull"]

[[rules]]
repositories = ["team/*"]
who = ["alice"]
may = ["pull", "push", "delete"]

[[rules]]
repositories = ["team/*"]
who = ["bob"]
may = ["pull"]

[[rules]]
repositories = ["bob/*"]
who = ["bob"]
may = ["pull", "push"]
"""


@asynccontextmanager
async def guarded(directory: Path) -> AsyncIterator[tuple[Docker, Docker, Docker, Docker]]:
    """A registry, and alice, bob, mallory and somebody without a login."""
    users = htpasswd(alice="a", bob="b", mallory="m")
    async with legacy(write(directory, RULES, users=users)) as docker:
        one = docker.registry
        people = [Docker(one, basic(user, user[0])) for user in ("alice", "bob", "mallory")]
        yield people[0], people[1], people[2], Docker(one)


def test_who_may_push_pushes_and_who_may_pull_pulls(tmp_path: Path) -> None:
    @asynchronous
    async def run() -> None:
        async with guarded(tmp_path) as (alice, bob, mallory, stranger):
            await alice.push("team/app", "1", [BASE, APP])
            assert list(await bob.pull("team/app", "1")) == [APP.id, BASE.id]
            assert (await bob.announce("team/app", [])).status == 403
            assert (await mallory.open("GET", "repositories/team/app/images")).status == 403
            answer = await stranger.open("GET", "repositories/team/app/images")
            assert (answer.status, answer.headers["WWW-Authenticate"][:5]) == (401, "Basic")
            assert mallory.token == stranger.token == ""

    run()


def test_images_are_for_those_who_have_a_session_of_a_repository_with_them(tmp_path: Path) -> None:
    @asynchronous
    async def run() -> None:
        async with guarded(tmp_path) as (alice, bob, mallory, stranger):
            await alice.push("team/app", "1", [BASE, APP])
            for noun in ("json", "layer", "ancestry", "checksum", "files"):
                path = f"images/{BASE.id}/{noun}"
                answer = await stranger.ask("GET", path)
                assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Token")
                assert (await mallory.ask("GET", path, headers=mallory.login)).status == 401
                await bob.announce("bob/mine", [])
                refused(404, "Image not found", await bob.ask("GET", path))
                await bob.open("GET", "repositories/team/app/images")
                assert (await bob.ask("GET", path)).status == 200

    run()


def test_a_token_is_for_its_repository_its_right_and_its_time(tmp_path: Path) -> None:
    @asynchronous
    async def run() -> None:
        async with guarded(tmp_path) as (alice, _, _, stranger):
            await alice.push("team/app", "1", [BASE])
            await alice.open("GET", "repositories/team/app/images")
            refused(403, "for reading", await alice.put_json(APP))
            refused(403, "for reading", await alice.put_tag("team/app", "2", BASE))
            refused(401, "another repository", await alice.ask("GET", "repositories/team/tool/tags"))
            forged = alice.token.replace("access=read", "access=write")
            for token in (forged, "x", "", 'signature=x,repository="team/app",access=read,user=,expires=1'):
                stranger.token = token or "nothing"
                assert (await stranger.ask("GET", f"images/{BASE.id}/json")).status == 401
            stranger.token = "Token " + alice.token  # as some clients repeat the scheme
            assert (await stranger.ask("GET", f"images/{BASE.id}/json")).status == 200

    run()


def test_a_rule_that_changes_holds_at_once(tmp_path: Path) -> None:
    """A session says who asks, not what they may."""

    @asynchronous
    async def run() -> None:
        users = htpasswd(alice="a")
        path = write(tmp_path, RULES, users=users)
        async with legacy(path) as docker:
            alice = Docker(docker.registry, basic("alice", "a"))
            await alice.push("team/app", "1", [BASE])
            assert (await alice.ask("GET", f"images/{BASE.id}/json")).status == 200
            path.write_text(RULES.replace('who = ["alice"]', 'who = ["carol"]'))
            docker.gate.replace(load_access(path))
            assert (await alice.ask("GET", f"images/{BASE.id}/json")).status == 403

    run()


def test_a_stranger_to_an_image_cannot_tag_it_or_build_upon_it(tmp_path: Path) -> None:
    rules = RULES.replace('who = ["bob"]\nmay = ["pull"]\n', 'who = ["carol"]\nmay = ["pull"]\n')

    @asynchronous
    async def run() -> None:
        users = htpasswd(alice="a", bob="b")
        async with legacy(write(tmp_path, rules, users=users)) as docker:
            alice = Docker(docker.registry, basic("alice", "a"))
            bob = Docker(docker.registry, basic("bob", "b"))
            await alice.push("team/secret", "1", [BASE])
            await bob.announce("bob/mine", [BASE])
            refused(404, "Image not found", await bob.put_tag("bob/mine", "1", BASE))
            refused(404, "Image not found", await bob.put_json(APP))
            refused(409, "already exists", await bob.put_json(BASE))
            refused(404, "Image not found", await bob.ask("GET", f"images/{BASE.id}/layer"))
            assert (await bob.ask("GET", "repositories/bob/mine/tags")).json == {}

    run()


def test_a_push_belongs_to_its_user(tmp_path: Path) -> None:
    @asynchronous
    async def run() -> None:
        async with guarded(tmp_path) as (alice, bob, _, _):
            await alice.announce("team/app", [BASE])
            await alice.put_json(BASE)
            await bob.announce("bob/mine", [BASE])
            refused(409, "somebody else", await bob.put_json(BASE))
            refused(404, "Image not found", await bob.put_layer(BASE))
            refused(404, "Image not found", await bob.put_checksum(BASE))
            assert (await alice.put_layer(BASE)).status == 200
            assert (await alice.put_checksum(BASE)).status == 200

    run()


def test_immutable_tags_stay_and_deletion_needs_its_right(tmp_path: Path) -> None:
    @asynchronous
    async def run() -> None:
        async with guarded(tmp_path) as (alice, bob, _, _):
            await alice.push("team/app", "v1", [BASE, APP])
            assert (await alice.put_tag("team/app", "v1", APP)).status == 200, "it is so already"
            refused(409, "immutable", await alice.put_tag("team/app", "v1", BASE))
            refused(409, "immutable", await alice.ask("DELETE", "repositories/team/app/tags/v1"))
            refused(409, "immutable", await alice.ask("DELETE", "repositories/team/app/"))
            await bob.push("bob/mine", "1", [Image("mine", layer=layer_of({}))])
            assert (await bob.ask("DELETE", "repositories/bob/mine/tags/1")).status == 403
            assert (await bob.ask("GET", "repositories/bob/mine/tags/1")).status == 200

    run()


def test_logging_in_searching_and_properties(tmp_path: Path) -> None:
    @asynchronous
    async def run() -> None:
        async with guarded(tmp_path) as (alice, bob, mallory, stranger):
            ping = await stranger.ask("GET", "_ping")
            assert (ping.status, ping.headers["X-Docker-Registry-Standalone"]) == (200, "false")
            assert (await stranger.ask("POST", "users/", data=b"{}")).status == 400
            assert (await alice.open("GET", "users/")).status == 200
            wrong = Docker(alice.registry, basic("alice", "wrong"))
            assert (await wrong.open("GET", "users/")).status == 401
            await alice.push("team/app", "1", [BASE])
            found = [(await one.open("GET", "search?q=app")).json["num_results"] for one in (bob, mallory)]
            assert found == [1, 0]
            path = "repositories/team/app/properties"
            assert (await alice.ask("GET", path)).json == {"access": "private"}

    run()


# --- tokens by themselves -------------------------------------------------------------------------

KEY = b"k" * 32
SESSION = Session("team/app", 'älice,\n"x"', may_write=True, expires_s=1000)


def test_a_token_says_what_was_signed() -> None:
    assert read_token(KEY, token_text(KEY, SESSION), 999.9) == SESSION


@pytest.mark.parametrize(
    "changed",
    [
        lambda text: text.replace("team/app", "team/other"),
        lambda text: text.replace("access=write", "access=read"),
        lambda text: text.replace("expires=1000", "expires=9999"),
        lambda text: text.replace("user=", "user=00"),
        lambda text: text.replace("signature=", "signature=0"),
        lambda text: text.replace("user=", "user=zz"),
        lambda text: text.replace("repository=", "x="),
        lambda text: text.replace("team/app", "../x"),
        lambda text: "",
    ],
)
def test_a_token_that_was_changed_is_refused(changed) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RegistryError) as caught:
        read_token(KEY, changed(token_text(KEY, SESSION)), 0)
    assert caught.value.status == 401


def test_a_token_of_another_key_or_of_the_past_is_refused() -> None:
    for key, now_s in ((b"x" * 32, 0), (KEY, 1000.0)):
        with pytest.raises(RegistryError) as caught:
            read_token(key, token_text(KEY, SESSION), now_s)
        assert caught.value.status == 401


@asynchronous
async def test_all_processes_sign_with_one_key_also_when_they_start_together() -> None:
    store = MemoryStore()
    first = Sessions(store, lambda: b"1" * 32, lambda: 0.0)
    second = Sessions(store, lambda: b"2" * 32, lambda: 0.0)
    token = await first.open("app", "", may_write=False)
    assert await second.find(token) == Session("app", "", may_write=False, expires_s=SESSION_S)
    assert store.content("v1/key") == b"1" * 32
