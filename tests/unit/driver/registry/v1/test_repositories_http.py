"""Repositories of the first protocol: tags, deletion, search, users, paths."""

from __future__ import annotations

import pytest

from fabric.driver.registry.errors import RegistryError
from fabric.driver.registry.v1.routes import Endpoint, Route, parse_path
from fabric.errors import Precondition
from tests.unit.driver.registry.harness import asynchronous
from tests.unit.driver.registry.memory_store import MemoryStore
from tests.unit.driver.registry.v1.docker import Docker, Image, chain, layer_of, legacy
from tests.unit.driver.registry.v1.test_push_http import refused

BASE, MIDDLE, APP = chain(3)


def images(docker: Docker) -> set[str]:
    """Ids of all images that are there with all their parts and no other."""
    store = docker.registry.store
    found = {path.split("/")[2] for path in store.paths("v1/images/")}
    for image in found:
        parts = {path.rpartition("/")[2] for path in store.paths(f"v1/images/{image}/")}
        assert parts - {"files"} == {"json", "layer", "ancestry", "links"}
    return found


# --- tags -----------------------------------------------------------------------------------------


@asynchronous
async def test_tags_are_set_moved_listed_and_deleted() -> None:
    async with legacy() as docker:
        await docker.push("team/app", "1", [BASE, MIDDLE])
        assert (await docker.put_tag("team/app", "2", BASE)).json is True
        assert (await docker.ask("GET", "repositories/team/app/tags")).json == {"1": MIDDLE.id, "2": BASE.id}
        await docker.put_tag("team/app", "1", BASE)
        assert (await docker.ask("GET", "repositories/team/app/tags/1")).json == BASE.id
        assert (await docker.ask("DELETE", "repositories/team/app/tags/1")).status == 200
        refused(404, "Tag not found", await docker.ask("GET", "repositories/team/app/tags/1"))
        refused(404, "Tag not found", await docker.ask("DELETE", "repositories/team/app/tags/1"))
        assert (await docker.ask("GET", "repositories/team/app/tags")).json == {"2": BASE.id}


@asynchronous
async def test_a_tag_names_an_image_that_is_there() -> None:
    async with legacy() as docker:
        await docker.push("app", "latest", [BASE])
        refused(404, "Image not found", await docker.put_tag("app", "2", APP))
        for bad in (b"", b"{}", b"true"):
            refused(400, "Invalid data", await docker.ask("PUT", "repositories/app/tags/2", data=bad))
        refused(404, "Invalid image ID", await docker.ask("PUT", "repositories/app/tags/2", data=b'"x"'))
        refused(400, "Invalid tag", await docker.ask("PUT", "repositories/app/tags/.x", data=b'"x"'))
        assert (await docker.ask("GET", "repositories/app/tags")).json == {"latest": BASE.id}


@asynchronous
async def test_a_tag_makes_the_image_and_its_ancestors_the_repositorys_own() -> None:
    async with legacy() as docker:
        await docker.push("app", "latest", [BASE, MIDDLE, APP])
        assert (await docker.put_tag("copy", "1", APP)).status == 401, "a token is for one repository"
        docker.token = ""
        assert (await docker.put_tag("copy", "1", APP)).status == 200
        listed = (await docker.open("GET", "repositories/copy/images")).json
        assert {(entry["id"], entry["checksum"]) for entry in listed} == {
            (image.id, image.payload) for image in (BASE, MIDDLE, APP)
        }


@asynchronous
async def test_a_long_ancestry_is_linked_in_several_commits() -> None:
    async with legacy() as docker:
        long = chain(120, "long")
        await docker.push("app", "latest", long)
        docker.token = ""
        commits = len(docker.registry.store.commits)
        assert (await docker.put_tag("copy", "1", long[-1])).status == 200
        assert len(docker.registry.store.commits) - commits == 5
        assert list(await docker.pull("copy", "1")) == [image.id for image in reversed(long)]


@asynchronous
async def test_a_rival_makes_it_look_again() -> None:
    async with legacy() as docker:
        await docker.push("app", "latest", [BASE])
        docker.registry.store.fail("commit", Precondition("rival"), times=2)
        assert (await docker.put_tag("app", "2", BASE)).status == 200
        docker.registry.store.fail("commit", Precondition("rival"), times=20)
        assert (await docker.put_tag("app", "3", BASE)).status == 503


# --- deletion -------------------------------------------------------------------------------------


@asynchronous
async def test_a_repository_goes_with_the_images_that_no_other_has() -> None:
    async with legacy() as docker:
        await docker.push("app", "latest", [BASE, MIDDLE, APP])
        other = Image("other", BASE.id, layer_of({"x": b""}))
        await docker.push("other", "latest", [BASE, other])
        docker.token = ""
        assert (await docker.ask("DELETE", "repositories/app/")).status == 200
        assert images(docker) == {BASE.id, other.id}
        assert list(await docker.pull("other", "latest")) == [other.id, BASE.id]
        docker.token = ""
        refused(404, "Repository not found", await docker.ask("GET", "repositories/app/tags"))
        docker.token = ""
        refused(404, "Repository not found", await docker.ask("DELETE", "repositories/app/"))
        assert (await docker.ask("DELETE", "repositories/other/tags")).status == 200
        assert docker.registry.store.paths("v1/") == ["v1/key"]


class Meddling(MemoryStore):
    """Pushes a tag of its own at the moment when an image is about to be removed."""

    def __init__(self) -> None:
        super().__init__()
        self.docker: Docker | None = None

    async def list(self, prefix: str, **options):  # type: ignore[no-untyped-def, override]
        page = await super().list(prefix, **options)
        if self.docker is not None and prefix == f"v1/owners/{BASE.id}/":
            docker, self.docker = self.docker, None
            docker.token = ""
            assert (await docker.put_tag("late", "1", BASE)).status == 200
        return page


@asynchronous
async def test_an_image_that_is_linked_while_it_is_being_removed_stays() -> None:
    store = Meddling()
    async with legacy(store=store) as docker:
        await docker.push("app", "latest", [BASE])
        docker.token = ""
        store.docker = docker
        assert (await docker.ask("DELETE", "repositories/app/")).status == 200
        assert store.docker is None, "the rival came"
        assert list(await docker.pull("late", "1")) == [BASE.id]


# --- the rest -------------------------------------------------------------------------------------


@asynchronous
async def test_ping_users_auth_and_properties() -> None:
    async with legacy() as docker:
        answer = await docker.ask("GET", "_ping")
        assert (answer.status, answer.headers["X-Docker-Registry-Standalone"]) == (200, "true")
        assert (await docker.registry.call("GET", "/_ping")).status == 200
        answer = await docker.ask("POST", "users/", data=b'{"username": "a"}')
        assert (answer.status, answer.body) == (400, b'"Username or email already exists"')
        for path in ("users", "users/"):
            assert (await docker.ask("GET", path)).json == "OK"
        refused(403, "users are not changed", await docker.ask("PUT", "users/a/", data=b"{}"))
        assert (await docker.ask("PUT", "repositories/team/app/auth")).json == "OK"
        path = "repositories/team/app/properties"
        assert (await docker.ask("GET", path)).json == {"access": "public"}
        assert (await docker.ask("PUT", path, data=b'{"access": "public"}')).status == 200
        refused(409, "public by the access", await docker.ask("PUT", path, data=b'{"access": "private"}'))
        refused(400, "Invalid data", await docker.ask("PUT", path, data=b"[]"))


@asynchronous
async def test_search_finds_repositories_by_a_part_of_their_names() -> None:
    async with legacy() as docker:
        for name in ("app", "team/app", "team/tool"):
            await docker.announce(name, [])
        docker.token = ""
        answer = (await docker.ask("GET", "search?q=app")).json
        assert answer == {
            "query": "app",
            "num_results": 2,
            "results": [
                {"name": "library/app", "description": ""},
                {"name": "team/app", "description": ""},
            ],
        }
        assert (await docker.ask("GET", "search")).json["num_results"] == 3


@asynchronous
async def test_the_protocol_is_off_unless_it_is_asked_for() -> None:
    from tests.unit.driver.registry.harness import registry

    async with registry() as one:
        assert (await one.call("GET", "/v1/_ping")).status == 404
        assert (await one.call("PUT", "/v1/repositories/app/", data=b"[]")).status == 404


@asynchronous
async def test_the_later_protocol_is_beside_it() -> None:
    async with legacy() as docker:
        await docker.push("app", "latest", [BASE])
        await docker.registry.push_image()
        assert (await docker.registry.call("GET", "/v2/_catalog")).json == {"repositories": ["app"]}
        assert list(await docker.pull("app", "latest")) == [BASE.id]


# --- paths ----------------------------------------------------------------------------------------

ID = "0123456789abcdef" * 4

PATHS = {
    "/v1/_ping": Route(Endpoint.PING),
    "/_ping": Route(Endpoint.PING),
    "/v1/users/": Route(Endpoint.USERS),
    "/v1/users/me/": Route(Endpoint.USER),
    "/v1/search": Route(Endpoint.SEARCH),
    f"/v1/images/{ID}/json": Route(Endpoint.IMAGE_JSON, image=ID),
    f"/v1/images/{ID[:16]}/layer": Route(Endpoint.IMAGE_LAYER, image=ID[:16]),
    "/v1/repositories/app/": Route(Endpoint.REPOSITORY, "app"),
    "/v1/repositories/library/app/": Route(Endpoint.REPOSITORY, "app"),
    "/v1/repositories/library/": Route(Endpoint.REPOSITORY, "library"),
    "/v1/repositories/library/a/b/": Route(Endpoint.REPOSITORY, "library/a/b"),
    "/v1/repositories/app": Route(Endpoint.REPOSITORY, "app"),
    "/v1/repositories/team/app/images": Route(Endpoint.IMAGES, "team/app"),
    "/v1/repositories/team/images/": Route(Endpoint.REPOSITORY, "team/images"),
    "/v1/repositories/team/app/tags": Route(Endpoint.TAGS, "team/app"),
    "/v1/repositories/team/app/tags/1.0": Route(Endpoint.TAG, "team/app", tag="1.0"),
    "/v1/repositories/tags/tags/tags": Route(Endpoint.TAG, "tags", tag="tags"),
    "/v1/repositories/app/auth": Route(Endpoint.AUTH, "app"),
}


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_read(path: str) -> None:
    assert parse_path(path) == PATHS[path]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/", 404),
        ("/v1/nothing", 404),
        ("/v1/repositories/", 400),
        ("/v1/repositories/../x/tags", 400),
        ("/v1/repositories/a//tags", 400),
        ("/v1/repositories/a%2fb/tags", 400),
        ("/v1/repositories/A/tags", 400),
        ("/v1/repositories/app/tags/a%00b", 400),
        (f"/v1/repositories/{'a' * 256}/tags", 400),
        (f"/v1/images/{ID.upper()}/json", 404),
        (f"/v1/images/{ID}0/json", 404),
        (f"/v1/images/{ID}/nothing", 404),
        ("/v1/images/../json", 404),
        ("/v1/" + "a/" * 600, 400),
    ],
)
def test_a_path_that_means_nothing_is_refused(path: str, status: int) -> None:
    with pytest.raises(RegistryError) as caught:
        parse_path(path)
    assert caught.value.status == status


@asynchronous
async def test_a_method_that_is_not_for_a_path_says_which_are() -> None:
    async with legacy() as docker:
        answer = await docker.ask("POST", f"images/{ID}/json")
        refused(405, "POST", answer)
        assert answer.headers["Allow"] == "GET, HEAD, PUT"
