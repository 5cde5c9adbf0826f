"""Docker 1.5 against a whole fabric: pushes, pulls, and processes that die meanwhile."""

from __future__ import annotations

import http.client
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fabric.settings import FRAGMENT_BYTES_MAX, MIB
from tests.e2e.conftest import FabricUp, wait_until
from tests.e2e.docker_v1 import DockerV1, Image
from tests.unit.driver.registry.access.access_world import htpasswd, write

RNG = random.Random(15)

RULES = """
[users]
htpasswd = "users"

[[rules]]
repositories = ["team/*"]
who = ["alice"]
may = ["pull", "push"]

[[rules]]
repositories = ["team/*"]
who = ["bob"]
may = ["pull"]
"""


def new_image(parent: str = "", layer_bytes: int = 1000, times: int = 1) -> Image:
    return Image(RNG.randbytes(32).hex(), parent, (RNG.randbytes(layer_bytes), times))


@pytest.fixture(scope="module")
def fabric(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FabricUp]:
    """With the first protocol."""
    fabric = FabricUp(tmp_path_factory.mktemp("v1") / "data", "--v1")
    try:
        yield fabric.wait_ready()
    finally:
        fabric.stop()


def test_what_docker_pushes_docker_pulls(fabric: FabricUp) -> None:
    base = new_image(layer_bytes=2 * FRAGMENT_BYTES_MAX + 12_345)
    middle, top = new_image(base.id), new_image(layer_bytes=0)
    middle = Image(middle.id, base.id, middle.pieces)
    top = Image(top.id, middle.id, top.pieces)
    docker = DockerV1(fabric.registry)
    assert docker.push("team/app", "latest", [base, middle, top]) == [base.id, middle.id, top.id]
    expected = [(image.id, image.payload()) for image in (top, middle, base)]
    assert DockerV1(fabric.registry).pull("team/app", "latest") == expected

    other = new_image(base.id)
    assert DockerV1(fabric.registry).push("app", "1", [base, other]) == [other.id]
    assert DockerV1(fabric.registry).pull("library/app", "1")[0] == (other.id, other.payload())
    results = docker.must(200, "GET", "search?q=app")["results"]
    assert [result["name"] for result in results] == ["library/app", "team/app"]

    part = docker.ask("GET", f"images/{base.id}/layer", Range=f"bytes={FRAGMENT_BYTES_MAX - 5}-")
    assert (part.status, part.body) == (206, base.pieces[0][FRAGMENT_BYTES_MAX - 5 :])


def test_a_registry_that_dies_in_a_layer_leaves_nothing_and_the_push_is_repeated(fabric: FabricUp) -> None:
    image = new_image(layer_bytes=MIB, times=40)
    docker = DockerV1(fabric.registry)
    docker.must(200, "PUT", "repositories/team/broken/", b"[]", X_Docker_Token="true")
    docker.must(200, "PUT", f"images/{image.id}/json", image.json)
    old = fabric.pid("registry")

    def dying() -> Iterator[bytes]:
        for number, piece in enumerate(image.layer()):
            if number == 20:
                fabric.kill("registry")
            yield piece

    with pytest.raises((OSError, http.client.HTTPException)):
        docker.ask("PUT", f"images/{image.id}/layer", dying())
    fabric.wait_restarted("registry", old)
    wait_until(lambda: answers(docker), "the registry to answer", fabric.story)
    assert docker.ask("GET", f"images/{image.id}/json").status == 404
    assert docker.ask("GET", f"images/{image.id}/layer").status == 404
    answer = docker.ask("PUT", f"images/{image.id}/checksum", X_Docker_Checksum_Payload=image.payload())
    assert answer.status == 400, "there is no layer"
    assert docker.push("team/broken", "1", [image]) == [image.id]
    assert DockerV1(fabric.registry).pull("team/broken", "1") == [(image.id, image.payload())]


def answers(docker: DockerV1) -> bool:
    try:
        return docker.ask("GET", "_ping").status == 200
    except OSError:
        return False


def test_a_large_layer_passes_in_bounded_memory(fabric: FabricUp) -> None:
    image = new_image(layer_bytes=MIB, times=256)
    docker = DockerV1(fabric.registry)
    docker.push("team/large", "0", [new_image(layer_bytes=MIB, times=32)])
    before_kib = peak_kib(fabric.pid("registry"))
    docker.push("team/large", "1", [image])
    part = docker.ask("GET", f"images/{image.id}/layer", Range=f"bytes={200 * MIB}-{200 * MIB + 9}")
    assert part.body == image.pieces[0][:10]
    assert peak_kib(fabric.pid("registry")) - before_kib < 100 * 1024


def peak_kib(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])


def test_an_access_file_holds_for_it_too(start: Callable[..., FabricUp], tmp_path: Path) -> None:
    path = write(tmp_path, RULES, users=htpasswd(alice="a", bob="b"))
    fabric = start("--v1", "--replicas", "1", "--access", str(path)).wait_ready()
    image = new_image(layer_bytes=5000)
    alice, bob = DockerV1(fabric.registry, "alice:a"), DockerV1(fabric.registry, "bob:b")
    alice.push("team/app", "1", [image])
    assert DockerV1(fabric.registry, "bob:b").pull("team/app", "1") == [(image.id, image.payload())]
    for who in (bob, DockerV1(fabric.registry, "alice:wrong"), DockerV1(fabric.registry)):
        answer = who.ask("PUT", "repositories/team/app/", b"[]", X_Docker_Token="true")
        assert answer.status == (403 if who is bob else 401)
        assert who.ask("GET", f"images/{image.id}/layer").status == 401
    # A session outlives the process that opened it.
    fabric.wait_restarted("registry", fabric.kill("registry"))
    wait_until(lambda: answers(alice), "the registry to answer", fabric.story)
    assert alice.ask("GET", f"images/{image.id}/json").status == 200


def test_images_are_there_after_a_restart_and_only_with_the_switch(
    start: Callable[..., FabricUp], tmp_path: Path
) -> None:
    image = new_image(layer_bytes=5000)
    first = start("--v1", "--replicas", "1", data=tmp_path / "again").wait_ready()
    DockerV1(first.registry).push("app", "1", [image])
    assert first.stop() == 0
    second = start("--v1", data=tmp_path / "again").wait_ready()
    assert DockerV1(second.registry).pull("app", "1") == [(image.id, image.payload())]
    assert second.stop() == 0
    third = start(data=tmp_path / "again").wait_ready()
    assert DockerV1(third.registry).ask("GET", "_ping").status == 404
