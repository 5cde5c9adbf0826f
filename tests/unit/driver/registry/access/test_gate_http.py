"""Through HTTP: who is let in, what is answered to the others.  Security cases 4 and 5, 6 end to end."""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fabric.driver.registry.access.htpasswd import PasswordFile
from fabric.driver.registry.access.load import load_access
from fabric.driver.registry.names import name_path
from fabric.driver.registry.repositories import Repositories
from fabric.wire.messages import PutOperation
from tests.unit.driver.registry.access.access_world import (
    REALM,
    SERVICE,
    STRANGER,
    TOKENS,
    Guarded,
    basic,
    bearer,
    claims,
    guarded,
    htpasswd,
    jwks,
    sign,
    write,
)
from tests.unit.driver.registry.access.certificates import make_certificate
from tests.unit.driver.registry.harness import OCI_MANIFEST, Answer, asynchronous, image, refused, sha256
from tests.unit.driver.registry.memory_store import MemoryStore

PEOPLE = htpasswd(alice="wonder", bob="build", root="tree")
ALICE, BOB, ROOT = basic("alice", "wonder"), basic("bob", "build"), basic("root", "tree")
CHALLENGE = 'Basic realm="fabric", charset="UTF-8"'

RULES = """
[users]
htpasswd = "people"

[[rules]]
repositories = ["**"]
who = ["root"]
may = ["*"]

[[rules]]
repositories = ["alices/**"]
who = ["alice"]
may = ["pull", "push"]

[[rules]]
repositories = ["shared"]
who = ["@users"]
may = ["pull", "push"]

[[rules]]
repositories = ["public"]
who = ["@everybody"]
may = ["pull"]
"""


async def push(
    registry: Guarded, name: str, tag: str, headers: dict[str, str], text: str = "layer"
) -> Answer:
    """An image of a config and a layer."""
    config, layer = b'{"of": "%s"}' % text.encode(), text.encode()
    for data in (config, layer):
        begun = await registry.call("POST", f"/v2/{name}/blobs/uploads/", headers=headers)
        if begun.status != 202:
            return begun
        url = f"{begun.headers['Location']}?digest={sha256(data)}"
        assert (await registry.call("PUT", url, data=data, headers=headers)).status == 201
    return await put_manifest(registry, name, tag, image(config, [layer]), headers)


async def put_manifest(
    registry: Guarded, name: str, reference: str, manifest: bytes, headers: dict[str, str]
) -> Answer:
    typed = {"Content-Type": OCI_MANIFEST, **headers}
    return await registry.call("PUT", f"/v2/{name}/manifests/{reference}", data=manifest, headers=typed)


# --- passwords ------------------------------------------------------------------------------------


@asynchronous
async def test_the_front_door_asks_for_a_login(tmp_path: Path) -> None:
    async with guarded(tmp_path, RULES, people=PEOPLE) as registry:
        answer = await registry.call("GET", "/v2/")
        refused(401, "UNAUTHORIZED", answer)
        assert answer.headers["WWW-Authenticate"] == CHALLENGE
        assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
        assert (await registry.call("GET", "/v2/", headers=ALICE)).status == 200
        assert (await registry.call("GET", "/healthz")).status == 200


@asynchronous
async def test_where_strangers_may_something_the_front_door_can_be_open(tmp_path: Path) -> None:
    text = RULES.replace("[users]", "[users]\nask_first = false")
    async with guarded(tmp_path, text, people=PEOPLE) as registry:
        assert (await registry.call("GET", "/v2/")).status == 200
        refused(401, "UNAUTHORIZED", await registry.call("GET", "/v2/", headers=basic("alice", "x")))
    text = "[users]\nask_first = false\nhtpasswd = 'people'"
    async with guarded(tmp_path, text, people=PEOPLE) as registry:
        refused(401, "UNAUTHORIZED", await registry.call("GET", "/v2/"))


@pytest.mark.parametrize(
    "headers",
    [
        basic("alice", "wrong"),
        basic("nobody", "wonder"),
        basic("alice", ""),
        basic("alice", "wonder" + "x" * 100),
        {"Authorization": "Basic !"},
        {"Authorization": "Negotiate abc"},
        bearer("a.b.c"),
    ],
    ids=lambda headers: headers["Authorization"][:20],
)
@asynchronous
async def test_a_wrong_login_is_asked_again_also_where_none_is_needed(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    async with guarded(tmp_path, RULES, people=PEOPLE) as registry:
        for path in ("/v2/", "/v2/public/tags/list", "/v2/_catalog"):
            answer = await registry.call("GET", path, headers=headers)
            refused(401, "UNAUTHORIZED", answer)
            assert answer.headers["WWW-Authenticate"] == CHALLENGE


@asynchronous
async def test_each_does_what_the_rules_say(tmp_path: Path) -> None:
    async with guarded(tmp_path, RULES, people=PEOPLE) as registry:
        assert (await push(registry, "alices/app", "v1", ALICE)).status == 201
        assert (await push(registry, "shared", "v1", BOB)).status == 201
        assert (await push(registry, "public", "v1", ROOT)).status == 201

        refused(403, "DENIED", await push(registry, "alices/app", "v2", BOB))
        refused(403, "DENIED", await push(registry, "public", "v2", ALICE))
        refused(401, "UNAUTHORIZED", await push(registry, "shared", "v2", {}))

        async def read(name: str, headers: dict[str, str]) -> int:
            return (await registry.call("GET", f"/v2/{name}/manifests/v1", headers=headers)).status

        names = ("alices/app", "shared", "public")
        assert [await read(name, ALICE) for name in names] == [200, 200, 200]
        assert [await read(name, BOB) for name in names] == [403, 200, 200]
        assert [await read(name, {}) for name in names] == [401, 401, 200]
        # An empty login is what some clients send when they have none.
        empty = {"Authorization": "Basic " + base64.b64encode(b":").decode()}
        assert [await read(name, empty) for name in names] == [401, 401, 200]


@asynchronous
async def test_a_refusal_does_not_tell_what_exists(tmp_path: Path) -> None:
    async with guarded(tmp_path, RULES, people=PEOPLE) as registry:
        await push(registry, "alices/app", "v1", ALICE)
        for headers in (BOB, {}):
            there, absent = [
                await registry.call("GET", f"/v2/{name}/manifests/v1", headers=headers)
                for name in ("alices/app", "alices/ppa")
            ]
            assert there.status == absent.status
            assert there.body.replace(b"alices/app", b"alices/ppa") == absent.body


@asynchronous
async def test_every_request_of_a_repository_needs_a_right(tmp_path: Path) -> None:
    digest = sha256(b"x")
    paths = {
        "/v2/app/tags/list": ["GET"],
        f"/v2/app/referrers/{digest}": ["GET"],
        "/v2/app/manifests/v1": ["GET", "HEAD", "PUT", "DELETE"],
        f"/v2/app/blobs/{digest}": ["GET", "HEAD", "DELETE"],
        "/v2/app/blobs/uploads/": ["POST"],
        f"/v2/app/blobs/uploads/{'0' * 32}": ["GET", "PATCH", "PUT", "DELETE"],
    }
    async with guarded(tmp_path, RULES, people=PEOPLE) as registry:
        for path, methods in paths.items():
            for method in methods:
                assert (await registry.call(method, path)).status == 401, (method, path)
                assert (await registry.call(method, path, headers=BOB)).status == 403, (method, path)
                assert (await registry.call(method, path, headers=ROOT)).status not in (401, 403)


@asynchronous
async def test_the_catalog_shows_what_may_be_pulled_page_by_page(tmp_path: Path) -> None:
    async with guarded(tmp_path, RULES, people=PEOPLE) as registry:
        for name in ("alices/a", "alices/b", "private", "public", "shared"):
            await push(registry, name, "v1", ROOT)

        async def catalog(headers: dict[str, str], query: str = "") -> tuple[list[str], str]:
            answer = await registry.call("GET", f"/v2/_catalog{query}", headers=headers)
            return answer.json["repositories"], answer.headers.get("Link", "")

        assert await catalog({}) == (["public"], "")
        assert await catalog(BOB) == (["public", "shared"], "")
        assert (await catalog(ROOT))[0] == ["alices/a", "alices/b", "private", "public", "shared"]
        assert await catalog(BOB, "?n=1") == (["public"], '</v2/_catalog?n=1&last=public>; rel="next"')
        assert await catalog(BOB, "?n=1&last=public") == (["shared"], "")
        assert await catalog(BOB, "?n=2") == (["public", "shared"], "")
        assert await catalog(BOB, "?n=0") == ([], "")


@asynchronous
async def test_the_catalog_looks_on_until_a_page_is_full() -> None:
    store = MemoryStore()
    for start in range(0, 2600, 200):
        names = [f"hidden/{number:04}" for number in range(start, start + 200)]
        store.run([PutOperation(name_path(name), []) for name in names])
    store.run([PutOperation(name_path(name), []) for name in ("a", "hidden/1500x", "z1", "z2")])
    seen = Repositories(store)

    async def page(count: int, last: str) -> tuple[list[str], bool]:
        found = await seen.catalog(
            count, last, lambda name: not name.startswith("hidden/") or name[-1] == "x"
        )
        return list(found.names), found.more

    assert await page(2, "") == (["a", "hidden/1500x"], True)
    assert await page(2, "hidden/1500x") == (["z1", "z2"], False)
    assert await page(1, "hidden/1500x") == (["z1"], True)
    assert await page(4, "") == (["a", "hidden/1500x", "z1", "z2"], False)


@asynchronous
async def test_security_case_03_an_upload_belongs_to_the_user_who_began_it(tmp_path: Path) -> None:
    async with guarded(tmp_path, RULES, people=PEOPLE) as registry:
        begun = await registry.call("POST", "/v2/shared/blobs/uploads/", headers=ALICE)
        location = begun.headers["Location"]
        for method in ("GET", "PATCH", "DELETE"):
            answer = await registry.call(method, location, headers=BOB)
            assert answer.status == 404, method
        finish = f"{location}?digest={sha256(b'x')}"
        refused(404, "BLOB_UPLOAD_UNKNOWN", await registry.call("PUT", finish, data=b"x", headers=BOB))
        assert (await registry.call("PATCH", location, data=b"x", headers=ALICE)).status == 202
        assert (await registry.call("PUT", finish, headers=ALICE)).status == 201


@asynchronous
async def test_so_does_an_upload_in_parts(tmp_path: Path) -> None:
    part = {"Content-Range": "0-0"}
    async with guarded(tmp_path, RULES, people=PEOPLE) as registry:
        stranger = await registry.call("POST", "/v2/shared/_fabric/uploads/parts")
        assert stranger.status == 401
        begun = await registry.call("POST", "/v2/shared/_fabric/uploads/parts", headers=ALICE)
        location = begun.headers["Location"]
        finish = f"{location}?digest={sha256(b'x')}&size=1"
        for method, path in (("GET", location), ("PATCH", location), ("PUT", finish), ("DELETE", location)):
            answer = await registry.call(method, path, data=b"x", headers={**BOB, **part})
            refused(404, "BLOB_UPLOAD_UNKNOWN", answer)
        sent = await registry.call("PATCH", location, data=b"x", headers={**ALICE, **part})
        assert sent.status == 202
        assert (await registry.call("PUT", finish, headers=ALICE)).status == 201
        assert (await registry.call("GET", "/v2/_oci/ext/discover")).status == 200


@asynchronous
async def test_security_case_04_a_mount_without_pull_at_its_source_is_like_an_absent_one(
    tmp_path: Path,
) -> None:
    layer, absent = sha256(b"layer"), sha256(b"absent")
    async with guarded(tmp_path, RULES, people=PEOPLE) as registry:
        await push(registry, "alices/app", "v1", ALICE)

        async def mount(digest: str, source: str, headers: dict[str, str]) -> Answer:
            path = f"/v2/shared/blobs/uploads/?mount={digest}&from={source}"
            return await registry.call("POST", path, headers=headers)

        hidden = await mount(layer, "alices/app", BOB)
        nothing = await mount(absent, "alices/app", BOB)
        nowhere = await mount(layer, "alices/ppa", BOB)
        anywhere = await mount(layer, "", BOB)
        answers = [hidden, nothing, nowhere, anywhere]
        assert [each.status for each in answers] == [202] * 4
        assert all(set(each.headers) == set(hidden.headers) for each in answers)
        # What is not linked here is not here, though its bytes are.
        refused(404, "BLOB_UNKNOWN", await registry.call("GET", f"/v2/shared/blobs/{layer}", headers=BOB))

        for source in ("", "alices/app"):
            assert (await mount(layer, source, ALICE)).status == 201
        assert (await registry.call("GET", f"/v2/shared/blobs/{layer}", headers=BOB)).body == b"layer"


@asynchronous
async def test_security_case_05_a_delete_needs_delete_and_a_tag_needs_push(tmp_path: Path) -> None:
    text = (
        RULES
        + """
    [[rules]]
    repositories = ["cleaned"]
    who = ["bob"]
    may = ["delete"]
    """
    )
    async with guarded(tmp_path, text, people=PEOPLE) as registry:
        for name in ("shared", "cleaned"):
            assert (await push(registry, name, "v1", ROOT)).status == 201
        manifest = image(b'{"of": "layer"}', [b"layer"])
        paths = [f"manifests/{sha256(manifest)}", "manifests/v1", f"blobs/{sha256(b'layer')}"]
        for path in paths:
            refused(403, "DENIED", await registry.call("DELETE", f"/v2/shared/{path}", headers=ALICE))
            assert (await registry.call("GET", f"/v2/shared/{path}", headers=ALICE)).status == 200

        # To delete is neither to read nor to overwrite.
        refused(403, "DENIED", await put_manifest(registry, "cleaned", "v1", manifest, BOB))
        refused(403, "DENIED", await registry.call("GET", "/v2/cleaned/manifests/v1", headers=BOB))
        for path in reversed(paths):
            assert (await registry.call("DELETE", f"/v2/cleaned/{path}", headers=BOB)).status == 202
            # No cache brings it back.
            assert (await registry.call("GET", f"/v2/cleaned/{path}", headers=ROOT)).status == 404

        # Somebody who may pull only overwrites nothing.
        refused(403, "DENIED", await put_manifest(registry, "public", "v1", manifest, ALICE))


@asynchronous
async def test_passwords_are_compared_once_in_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real = PasswordFile.verify

    def verify(file: PasswordFile, user: str, password: bytes) -> bool:
        calls.append(user)
        time.sleep(0.05)  # as long as a real hash takes
        return real(file, user, password)

    monkeypatch.setattr(PasswordFile, "verify", verify)
    async with guarded(tmp_path, RULES, people=PEOPLE) as registry:
        answers = await asyncio.gather(*(registry.call("GET", "/v2/", headers=ALICE) for _ in range(8)))
        assert {answer.status for answer in answers} == {200}
        assert calls == ["alice"], "those who ask at the same time share one comparison"
        await registry.call("GET", "/v2/", headers=ALICE)
        assert calls == ["alice"], "and the next ones are remembered"
        await registry.call("GET", "/v2/", headers=basic("alice", "wrong"))
        await registry.call("GET", "/v2/", headers=basic("alice", "wrong"))
        assert len(calls) == 3, "what is wrong is compared every time"


@asynchronous
async def test_the_loop_goes_on_while_passwords_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparing, finish = threading.Event(), threading.Event()

    def verify(file: PasswordFile, user: str, password: bytes) -> bool:
        comparing.set()
        return finish.wait(timeout=10)

    monkeypatch.setattr(PasswordFile, "verify", verify)
    async with guarded(tmp_path, RULES, people=PEOPLE) as registry:
        waiting = asyncio.create_task(registry.call("GET", "/v2/", headers=ALICE))
        assert await asyncio.to_thread(comparing.wait, 10)
        assert (await registry.call("GET", "/healthz")).status == 200
        assert not waiting.done()
        finish.set()
        assert (await waiting).status == 200


@asynchronous
async def test_a_changed_file_is_taken_when_it_is_read_again(tmp_path: Path) -> None:
    async with guarded(tmp_path, RULES, people=PEOPLE) as registry:
        assert (await registry.call("GET", "/v2/", headers=ALICE)).status == 200
        write(tmp_path, RULES, people=htpasswd(alice="changed"))
        registry.gate.replace(load_access(registry.path))
        assert (await registry.call("GET", "/v2/", headers=ALICE)).status == 401
        assert (await registry.call("GET", "/v2/", headers=basic("alice", "changed"))).status == 200
        assert (await registry.call("GET", "/v2/", headers=BOB)).status == 401


# --- limits, modes --------------------------------------------------------------------------------


@asynchronous
async def test_who_guesses_passwords_is_told_to_wait_and_others_are_not(tmp_path: Path) -> None:
    text = RULES + "\n[limits]\nwrong_passwords_per_min = 3"
    async with guarded(tmp_path, text, people=PEOPLE) as registry:
        assert (await registry.call("GET", "/v2/", headers=ALICE)).status == 200
        guesses = [await registry.call("GET", "/v2/", headers=basic("bob", f"{n}")) for n in range(5)]
        assert [guess.status for guess in guesses] == [401, 401, 401, 429, 429]
        refused(429, "TOOMANYREQUESTS", guesses[-1])
        assert 1 <= int(guesses[-1].headers["Retry-After"]) <= 20
        assert (await registry.call("GET", "/v2/", headers=BOB)).status == 429, "not even the right one"
        assert (await registry.call("GET", "/v2/", headers=ALICE)).status == 200, (
            "who was right before goes on"
        )


@asynchronous
async def test_a_rate_is_counted_by_user(tmp_path: Path) -> None:
    text = RULES + "\n[limits]\nrequests_per_s = 0.01\nburst = 2"
    async with guarded(tmp_path, text, people=PEOPLE) as registry:
        answers = [await registry.call("GET", "/v2/shared/tags/list", headers=ALICE) for _ in range(3)]
        assert [answer.status for answer in answers] == [404, 404, 429]
        assert int(answers[-1].headers["Retry-After"]) > 90
        assert (await registry.call("GET", "/v2/shared/tags/list", headers=BOB)).status == 404
        assert (await registry.call("GET", "/healthz")).status == 200


@asynchronous
async def test_who_shows_nothing_or_something_bad_is_counted_by_address(tmp_path: Path) -> None:
    text = TOKENS + "\n[limits]\nrequests_per_s = 0.01\nburst = 3"
    async with guarded(tmp_path, text, keys=jwks()) as registry:
        bad = bearer(sign(claims(time.time()), key=STRANGER))
        answers = [await registry.call("GET", "/v2/", headers=headers) for headers in ({}, bad, bad, bad, {})]
        assert [answer.status for answer in answers] == [401, 401, 401, 429, 429]
        good = bearer(sign(claims(time.time())))
        assert (await registry.call("GET", "/v2/", headers=good)).status == 200


@asynchronous
async def test_so_many_requests_at_once(tmp_path: Path) -> None:
    text = "[limits]\nconcurrent_max = 2"
    async with guarded(tmp_path, text) as registry:
        location = await registry.start_upload()
        release = asyncio.Event()

        async def body() -> Any:
            yield b"x"
            await release.wait()

        async def held() -> int:
            return (await registry.call("PATCH", await registry.start_upload(), data=body())).status

        running = [asyncio.create_task(held()) for _ in range(2)]
        async with asyncio.timeout(10):
            while (answer := await registry.call("GET", location)).status != 429:
                await asyncio.sleep(0.01)
        refused(429, "TOOMANYREQUESTS", answer)
        assert answer.headers["Retry-After"] == "1"
        release.set()
        assert await asyncio.gather(*running) == [202, 202]
        assert (await registry.call("GET", location)).status == 204


@asynchronous
async def test_read_only_reads(tmp_path: Path) -> None:
    store = MemoryStore()
    async with guarded(tmp_path, "", store) as registry:
        manifest = await registry.push_image()
        location = await registry.start_upload()
    async with guarded(tmp_path, "read_only = true", store) as registry:
        assert (await registry.call("GET", "/v2/")).status == 200
        assert (await registry.call("GET", "/v2/app/manifests/latest")).body == manifest
        before = dict(store.entries)
        for method, path in [
            ("POST", "/v2/app/blobs/uploads/"),
            ("PATCH", location),
            ("PUT", f"{location}?digest={sha256(b'x')}"),
            ("DELETE", location),
            ("PUT", "/v2/app/manifests/latest"),
            ("DELETE", "/v2/app/manifests/latest"),
            ("DELETE", f"/v2/app/blobs/{sha256(b'layer')}"),
        ]:
            answer = await registry.call(method, path, data=b"x")
            refused(405, "UNSUPPORTED", answer)
            assert answer.headers["Allow"] == "GET, HEAD"
        assert store.entries == before


@asynchronous
async def test_immutable_tags(tmp_path: Path) -> None:
    text = 'immutable = [{repositories = ["app"], tags = ["v*"]}]'
    async with guarded(tmp_path, text) as registry:
        first = await registry.push_image("one", "v1")
        assert (await registry.push_manifest(first, "v1")).status == 201, "the same again"
        second = await registry.push_image("two", "latest")
        await registry.push_image("three", "latest")

        refused(409, "DENIED", await registry.push_manifest(second, "v1"))
        both = await registry.push_manifest(second, f"{sha256(second)}?tag=v2&tag=v1")
        refused(409, "DENIED", both)
        assert (await registry.call("GET", "/v2/app/manifests/v2")).status == 404, "all tags or none"
        refused(405, "DENIED", await registry.call("DELETE", "/v2/app/manifests/v1"))
        refused(405, "DENIED", await registry.call("DELETE", f"/v2/app/manifests/{sha256(first)}"))
        assert (await registry.call("GET", "/v2/app/manifests/v1")).body == first
        assert (await registry.call("DELETE", "/v2/app/manifests/latest")).status == 202
        assert (await registry.call("DELETE", "/v2/app/manifests/v9")).status == 404

        for data in (b"one", b'{"of": "one"}'):
            await registry.push_blob(data, "other")
        assert (await registry.push_manifest(first, "v1", "other")).status == 201
        assert (await registry.call("DELETE", "/v2/other/manifests/v1")).status == 202


@asynchronous
async def test_twenty_first_pushes_of_an_immutable_tag_leave_one(tmp_path: Path) -> None:
    text = 'immutable = [{repositories = ["app"], tags = ["v*"]}]'
    async with guarded(tmp_path, text) as registry:
        manifests = [await registry.push_image(f"{number}", "latest") for number in range(20)]
        answers = await asyncio.gather(*(registry.push_manifest(each, "v1") for each in manifests))
        assert sorted(answer.status for answer in answers) == [201] + [409] * 19
        (winner,) = [each for each, answer in zip(manifests, answers, strict=True) if answer.status == 201]
        assert (await registry.call("GET", "/v2/app/manifests/v1")).body == winner


# --- TLS ------------------------------------------------------------------------------------------


@asynchronous
async def test_tls_and_a_new_certificate_without_a_restart(tmp_path: Path) -> None:
    for name in ("first", "second"):
        make_certificate(tmp_path, name)
    text = '[tls]\ncertificate = "first.crt"\nkey = "first.key"'

    async with guarded(tmp_path, text) as registry:

        async def served_by(name: str) -> bool:
            context = ssl.create_default_context(cafile=str(tmp_path / f"{name}.crt"))
            async with aiohttp.ClientSession() as session:
                try:
                    async with session.get(f"https://127.0.0.1:{registry.port}/v2/", ssl=context) as answer:
                        return answer.status == 200
                except aiohttp.ClientConnectorCertificateError:
                    return False

        assert await served_by("first") and not await served_by("second")
        write(tmp_path, text.replace("first", "second"))
        registry.gate.replace(load_access(registry.path))
        assert await served_by("second") and not await served_by("first")
        write(tmp_path, "")
        with pytest.raises(ValueError, match="restart"):
            registry.gate.replace(load_access(registry.path))
        assert await served_by("second")


@asynchronous
async def test_a_large_blob_goes_out_encrypted(tmp_path: Path) -> None:
    make_certificate(tmp_path, "first")
    text = '[tls]\ncertificate = "first.crt"\nkey = "first.key"'
    data = os.urandom(9_000_000)
    store = MemoryStore()
    async with guarded(tmp_path, "", store=store) as open_to_all:
        location = (await open_to_all.call("POST", "/v2/app/blobs/uploads/")).headers["Location"]
        await open_to_all.call("PUT", f"{location}?digest={sha256(data)}", data=data)
    async with guarded(tmp_path, text, store=store) as registry, aiohttp.ClientSession() as session:
        context = ssl.create_default_context(cafile=str(tmp_path / "first.crt"))
        url = f"https://127.0.0.1:{registry.port}/v2/app/blobs/{sha256(data)}"
        async with session.get(url, ssl=context) as answer:
            assert await answer.read() == data


# --- tokens ---------------------------------------------------------------------------------------


def token_challenge(scope: str = "", error: str = "") -> str:
    text = f'Bearer realm="{REALM}",service="{SERVICE}"'
    text += f',scope="{scope}"' if scope else ""
    return text + (f',error="{error}"' if error else "")


@asynchronous
async def test_a_token_is_asked_for_in_the_words_of_the_documents(tmp_path: Path) -> None:
    upload = f"/v2/app/blobs/uploads/{'0' * 32}"
    async with guarded(tmp_path, TOKENS, keys=jwks()) as registry:
        for method, path, scope in [
            ("GET", "/v2/", ""),
            ("GET", "/v2/a/b/tags/list", "repository:a/b:pull"),
            ("HEAD", "/v2/app/manifests/v1", "repository:app:pull"),
            ("POST", "/v2/app/blobs/uploads/", "repository:app:pull,push"),
            ("DELETE", upload, "repository:app:pull,push"),
            ("PUT", "/v2/app/manifests/v1", "repository:app:pull,push"),
            ("DELETE", "/v2/app/manifests/v1", "repository:app:delete"),
            ("GET", "/v2/_catalog", "registry:catalog:*"),
        ]:
            answer = await registry.call(method, path)
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"] == token_challenge(scope)
        answer = await registry.call("POST", "/v2/app/blobs/uploads/")
        refused(401, "UNAUTHORIZED", answer)
        assert answer.json["errors"][0]["detail"] == [
            {"Type": "repository", "Name": "app", "Action": "pull"},
            {"Type": "repository", "Name": "app", "Action": "push"},
        ]


@asynchronous
async def test_a_good_token_does_what_it_says_and_no_more(tmp_path: Path) -> None:
    headers = bearer(sign(claims(time.time())))
    async with guarded(tmp_path, TOKENS, keys=jwks()) as registry:
        assert (await registry.call("GET", "/v2/", headers=headers)).status == 200
        assert (await push(registry, "app", "v1", headers)).status == 201
        assert (await registry.call("GET", "/v2/app/manifests/v1", headers=headers)).status == 200
        for method, path, scope in [
            ("DELETE", "/v2/app/manifests/v1", "repository:app:delete"),
            ("GET", "/v2/other/manifests/v1", "repository:other:pull"),
            ("POST", "/v2/other/blobs/uploads/", "repository:other:pull,push"),
            ("GET", "/v2/_catalog", "registry:catalog:*"),
        ]:
            answer = await registry.call(method, path, headers=headers)
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"] == token_challenge(scope, "insufficient_scope")
        access = [{"type": "registry", "name": "catalog", "actions": ["*"]}]
        headers = bearer(sign(claims(time.time(), access=access)))
        answer = await registry.call("GET", "/v2/_catalog", headers=headers)
        assert answer.json["repositories"] == ["app"]


@asynchronous
async def test_a_token_for_many_repositories_is_long(tmp_path: Path) -> None:
    access = [{"type": "repository", "name": f"app-{n}", "actions": ["pull"]} for n in range(170)]
    token = sign(claims(time.time(), access=access))
    assert 12_000 < len(token) < 16_000
    async with guarded(tmp_path, TOKENS, keys=jwks()) as registry:
        answer = await registry.call("GET", "/v2/app-169/tags/list", headers=bearer(token))
        refused(404, "NAME_UNKNOWN", answer)


@asynchronous
async def test_rules_narrow_what_tokens_allow(tmp_path: Path) -> None:
    text = (
        TOKENS
        + """
    [[rules]]
    repositories = ["app"]
    who = ["alice"]
    may = ["pull"]
    """
    )
    async with guarded(tmp_path, text, keys=jwks()) as registry:
        alice, bob = (bearer(sign(claims(time.time(), sub=user))) for user in ("alice", "bob"))
        assert (await registry.call("GET", "/v2/app/manifests/v1", headers=alice)).status == 404
        # Another token would not help: no challenge.
        refused(403, "DENIED", await registry.call("POST", "/v2/app/blobs/uploads/", headers=alice))
        refused(403, "DENIED", await registry.call("GET", "/v2/app/manifests/v1", headers=bob))


@asynchronous
async def test_security_case_06_a_bad_token_is_401_with_a_challenge(tmp_path: Path) -> None:
    now_s = time.time()
    unsigned = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    good = sign(claims(now_s))
    bad = {
        "alg=none": f"{unsigned}.{good.split('.')[1]}.",
        "another key": sign(claims(now_s), key=STRANGER),
        "iss": sign(claims(now_s, iss="evil")),
        "aud": sign(claims(now_s, aud="other")),
        "exp": sign(claims(now_s, exp=now_s - 60)),
        "nbf": sign(claims(now_s, nbf=now_s + 60)),
    }
    async with guarded(tmp_path, TOKENS, keys=jwks()) as registry:
        assert (await registry.call("GET", "/v2/", headers=bearer(good))).status == 200
        for name, token in bad.items():
            answer = await registry.call("GET", "/v2/app/tags/list", headers=bearer(token))
            assert answer.status == 401, name
            expected = token_challenge("repository:app:pull", "invalid_token")
            assert answer.headers["WWW-Authenticate"] == expected, name
        repository = await registry.call("GET", "/v2/other/tags/list", headers=bearer(good))
        assert repository.status == 401
        assert (await registry.call("GET", "/v2/", headers=basic("alice", "x"))).status == 401


@asynchronous
async def test_security_case_06_the_realm_is_never_from_the_host(tmp_path: Path) -> None:
    for text, files in ((TOKENS, {"keys": jwks()}), (RULES, {"people": PEOPLE})):
        async with guarded(tmp_path, text, **files) as registry:
            usual = await registry.call("GET", "/v2/")
            lying = {
                "Host": "evil.example.org",
                "X-Forwarded-Host": "evil.example.org",
                "Forwarded": "host=evil",
            }
            answer = await registry.call("GET", "/v2/", headers=lying)
            assert answer.headers["WWW-Authenticate"] == usual.headers["WWW-Authenticate"]
            assert "evil" not in str(answer.headers) + answer.body.decode()


@asynchronous
async def test_security_case_04_a_token_for_the_target_alone_mounts_nothing(tmp_path: Path) -> None:
    def token(*names: str) -> dict[str, str]:
        access = [{"type": "repository", "name": name, "actions": ["pull", "push"]} for name in names]
        return bearer(sign(claims(time.time(), access=access)))

    async with guarded(tmp_path, TOKENS, keys=jwks()) as registry:
        await push(registry, "source", "v1", token("source"))
        path = f"/v2/target/blobs/uploads/?mount={sha256(b'layer')}&from=source"
        assert (await registry.call("POST", path, headers=token("target"))).status == 202
        assert (await registry.call("POST", path, headers=token("target", "source"))).status == 201
