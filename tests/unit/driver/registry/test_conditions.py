"""If-Match and If-None-Match: first the rule, then what the registry answers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.driver.registry.conditions import Conditions, entity_tag, parse_conditions
from tests.unit.driver.registry.harness import (
    OCI_INDEX,
    asynchronous,
    image,
    index,
    refused,
    registry,
    sha256,
)
from tests.unit.driver.registry.memory_store import MemoryStore

A, B = '"sha256:a"', '"sha256:b"'

LISTS = [
    ("*", {"*"}),
    (A, {A}),
    (f"{A},{B}", {A, B}),
    (f" {A} , \t{B} ,", {A, B}),
    (f",,{A}", {A}),
    ('""', {'""'}),
    ("sha256:a", set()),
    (f"{A} {B}", set()),
    (f"{A}, *", set()),
    ('"a', set()),
    ("", set()),
]


@pytest.mark.parametrize(("text", "tags"), LISTS)
def test_lists_of_entity_tags(text: str, tags: set[str]) -> None:
    assert parse_conditions(text, text) == Conditions(frozenset(tags), frozenset(tags))


def test_a_weak_tag_is_good_for_reading_only() -> None:
    weak = f"W/{A}, {B}"
    assert parse_conditions(weak, weak) == Conditions(frozenset({B}), frozenset({A, B}))


# if_match, if_none_match, there now: a change is allowed, a read is refused, the reader has it already
RULE = [
    (None, None, A, True, False, False),
    (None, None, None, True, False, False),
    (A, None, A, True, False, False),
    (A, None, B, False, True, False),
    (A, None, None, False, True, False),
    ("*", None, A, True, False, False),
    ("*", None, None, False, True, False),
    (None, A, A, False, False, True),
    (None, A, B, True, False, False),
    (None, A, None, True, False, False),
    (None, "*", A, False, False, True),
    (None, "*", None, True, False, False),
    (f"{B},{A}", f"{A},{B}", A, False, False, True),
    ("nonsense", None, A, False, True, False),
    (None, "nonsense", A, True, False, False),
]


@pytest.mark.parametrize(("match", "none_match", "there", "allowed", "refused_", "known"), RULE)
def test_the_rule(
    match: str | None, none_match: str | None, there: str | None, allowed: bool, refused_: bool, known: bool
) -> None:
    conditions = parse_conditions(match, none_match)
    assert bool(conditions) == (match is not None or none_match is not None)
    assert (conditions.allows(there), conditions.knows(there)) == (allowed, known)
    if there is not None:
        assert conditions.refuses(there) == refused_


@given(st.text(alphabet='"W/*,ab \t', max_size=30))
def test_whatever_comes_only_whole_tags_are_read(text: str) -> None:
    conditions = parse_conditions(text, text)
    for tag in (conditions.if_match or frozenset()) | (conditions.if_none_match or frozenset()):
        assert tag == "*" or (tag[0] == tag[-1] == '"' and tag in text)


# --- over HTTP ------------------------------------------------------------------------------------


@asynchronous
async def test_reads_of_blobs_and_manifests() -> None:
    async with registry() as client:
        digest = sha256(await client.push_image(tag="v1"))
        blob = await client.push_blob(b"bytes")
        for path, tag in (
            (f"/v2/app/blobs/{blob}", entity_tag(blob)),
            ("/v2/app/manifests/v1", entity_tag(digest)),
            (f"/v2/app/manifests/{digest}", entity_tag(digest)),
        ):
            for method in ("GET", "HEAD"):

                async def ask(name: str, value: str, method: str = method, path: str = path) -> Any:
                    return await client.call(method, path, headers={name: value})

                for value in (tag, "*", f'"x", W/{tag}'):
                    unchanged = await ask("If-None-Match", value)
                    assert (unchanged.status, unchanged.body, unchanged.headers["ETag"]) == (304, b"", tag)
                assert (await ask("If-None-Match", '"other"')).status == 200
                assert (await ask("If-Match", tag)).status == 200
                assert (await ask("If-Match", '"other"')).status == 412
                assert (await ask("If-Match", f"W/{tag}")).status == 412
        gone = {"If-None-Match": "*"}
        assert (await client.call("GET", "/v2/app/manifests/absent", headers=gone)).status == 404


def variants(count: int) -> list[bytes]:
    return [image(b"c", [], annotations={"n": str(number)}) for number in range(count)]


async def put(client: Any, data: bytes, reference: str, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    media_type = json.loads(data)["mediaType"]
    path = f"/v2/app/manifests/{reference}"
    return await client.call("PUT", path, data=data, headers={"Content-Type": media_type, **named})


@asynchronous
async def test_a_tag_is_moved_only_from_where_it_was_seen() -> None:
    async with registry() as client:
        await client.push_blob(b"c")
        first, second, third = variants(3)
        refused(412, "DENIED", await put(client, first, "list", If_Match="*"))
        assert (await put(client, first, "list", If_None_Match="*")).status == 201
        refused(412, "DENIED", await put(client, second, "list", If_None_Match="*"))
        assert (await put(client, second, "list", If_Match=entity_tag(sha256(first)))).status == 201
        refused(412, "DENIED", await put(client, third, "list", If_Match=entity_tag(sha256(first))))
        assert (await client.call("GET", "/v2/app/manifests/list")).body == second
        assert (await client.call("GET", f"/v2/app/manifests/{sha256(third)}")).status == 404

        by_digest = sha256(third)
        assert (await put(client, third, by_digest, If_None_Match="*")).status == 201
        refused(412, "DENIED", await put(client, third, by_digest, If_None_Match="*"))


@asynchronous
async def test_of_many_that_saw_the_same_one_moves_the_tag() -> None:
    async with registry() as client:
        await client.push_blob(b"c")
        first, *others = variants(13)
        await put(client, first, "list")
        seen = entity_tag(sha256(first))

        answers = await asyncio.gather(*[put(client, other, "list", If_Match=seen) for other in others])

        assert sorted(answer.status for answer in answers) == [201] + [412] * 11
        winner = others[[answer.status for answer in answers].index(201)]
        assert (await client.call("GET", "/v2/app/manifests/list")).body == winner


@asynchronous
async def test_a_list_under_a_tag_that_many_clients_extend_loses_none() -> None:
    """The fallback for referrers, as the specification lets clients do it."""
    async with registry() as client:
        await client.push_blob(b"c")
        children = variants(8)
        for child in children:
            assert (await put(client, child, sha256(child))).status == 201
        await put(client, index([]), "sha256-0123")

        async def extend(child: bytes) -> None:
            while True:
                answer = await client.call("GET", "/v2/app/manifests/sha256-0123")
                grown = answer.json
                grown["manifests"].append(json.loads(index([child]))["manifests"][0])
                data = json.dumps(grown).encode()
                if (await put(client, data, "sha256-0123", If_Match=answer.headers["ETag"])).status == 201:
                    return

        await asyncio.gather(*map(extend, children))

        answer = await client.call("GET", "/v2/app/manifests/sha256-0123")
        assert answer.headers["Content-Type"] == OCI_INDEX
        assert {one["digest"] for one in answer.json["manifests"]} == set(map(sha256, children))


@asynchronous
async def test_a_tag_changed_between_look_and_commit_is_looked_at_again() -> None:
    store = MemoryStore()
    async with registry(store) as client:
        await client.push_blob(b"c")
        first, second, third = variants(3)
        await put(client, first, "list")
        commit = store.commit

        async def rival_first(operations):  # type: ignore[no-untyped-def]
            store.commit = commit  # type: ignore[method-assign]
            assert (await put(client, second, "list")).status == 201
            return await commit(operations)

        store.commit = rival_first  # type: ignore[method-assign]
        refused(412, "DENIED", await put(client, third, "list", If_Match=entity_tag(sha256(first))))
        assert (await client.call("GET", "/v2/app/manifests/list")).body == second


@asynchronous
async def test_deletes() -> None:
    async with registry() as client:
        manifest = await client.push_image(tag="v1")
        digest = sha256(manifest)
        for path in ("/v2/app/manifests/v1", f"/v2/app/manifests/{digest}"):
            wrong = await client.call("DELETE", path, headers={"If-Match": '"other"'})
            refused(412, "DENIED", wrong)
        right = {"If-Match": entity_tag(digest)}
        assert (await client.call("DELETE", "/v2/app/manifests/v1", headers=right)).status == 202
        refused(412, "DENIED", await client.call("DELETE", "/v2/app/manifests/v1", headers=right))
        refused(404, "MANIFEST_UNKNOWN", await client.call("DELETE", "/v2/app/manifests/v1"))
        assert (await client.call("DELETE", f"/v2/app/manifests/{digest}", headers=right)).status == 202
