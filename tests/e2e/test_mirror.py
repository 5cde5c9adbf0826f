"""Pulls through a mirror by real clients, with the upstream and without it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.conftest import FabricUp, needs, wait_until
from tests.e2e.debian_registry import DebianRegistry
from tests.e2e.http_registry import HttpRegistry, digest_of
from tests.e2e.oci_image import MIB, Layout, blob_names
from tests.e2e.test_conformance_two_registries import SecondRegistry
from tests.e2e.test_images import image_url, peak_memory_mib, skopeo_copy

TIMEOUT_S = 120
STALE = '110 - "Response is Stale"'


@pytest.fixture
def debian(tmp_path: Path) -> Iterator[DebianRegistry]:
    registry = DebianRegistry(tmp_path)
    try:
        yield registry
    finally:
        registry.stop()


def write_mirrors(path: Path, upstream: str, *lines: str) -> Path:
    text = ["[[mirror]]", 'repositories = "hub/**"', f'upstream = "{upstream}"', "tag_fresh_s = 0", *lines]
    path.write_text("\n".join(text) + "\n")
    return path


def test_skopeo_pulls_through_a_mirror_and_again_without_the_upstream(
    start: Callable[..., FabricUp], debian: DebianRegistry, tmp_path: Path
) -> None:
    mirrors = write_mirrors(tmp_path / "mirrors.toml", debian.url)
    fabric = start("--mirrors", str(mirrors)).wait_ready()
    layout = Layout(tmp_path / "there")
    digest = layout.add_image("app", [100_000, 0, 40 * MIB])
    skopeo_copy(f"oci:{layout.directory}:app", f"docker://{debian.address}/library/app:v1")

    skopeo_copy(image_url(fabric, "hub/library/app:v1"), f"oci:{tmp_path / 'first'}:app")
    assert blob_names(tmp_path / "first") == blob_names(layout.directory)
    mirror = HttpRegistry(fabric.registry)
    answer = mirror.get_manifest("hub/library/app", "v1")
    assert (answer.headers["docker-content-digest"], "warning" in answer.headers) == (digest, False)
    assert mirror.ask("GET", "/v2/hub/library/app/tags/list").body == (
        b'{"name":"hub/library/app","tags":["v1"]}'
    )
    assert mirror.get_manifest("hub/library/app", "v2").status == 404

    debian.stop()
    skopeo_copy(image_url(fabric, "hub/library/app:v1"), f"oci:{tmp_path / 'second'}:app")
    assert blob_names(tmp_path / "second") == blob_names(layout.directory)
    answer = mirror.get_manifest("hub/library/app", "v1")
    assert (answer.status, answer.headers["warning"]) == (200, STALE)
    assert mirror.get_manifest("hub/library/other", "v1").status == 503
    history = fabric.fabric("registry", "history", "hub/library/app", "--proxy", address(fabric.proxy))
    assert b"mirror" in history.stdout, history.stderr
    assert fabric.stop() == 0


def address(endpoint: str) -> str:
    return endpoint.removeprefix("tcp://")


def test_buildah_pulls_through_a_mirror(
    start: Callable[..., FabricUp], debian: DebianRegistry, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        assert os.environ.get("CI") != "true", "buildah mounts, which only root can"
        pytest.skip("buildah mounts, which only root can")
    layout = Layout(tmp_path / "there")
    layout.add_image("app", [1000, 2 * MIB])
    skopeo_copy(f"oci:{layout.directory}:app", f"docker://{debian.address}/library/app:v1")
    fabric = start("--replicas", "1", "--mirrors", str(write_mirrors(tmp_path / "m.toml", debian.url)))
    fabric.wait_ready()
    for number in (1, 2):
        buildah = [
            needs("buildah"), "--storage-driver", "vfs",
            "--root", str(tmp_path / f"root-{number}"), "--runroot", str(tmp_path / f"run-{number}"),
        ]  # fmt: skip
        pull = [*buildah, "pull", "--tls-verify=false", image_url(fabric, "hub/library/app:v1")]
        result = subprocess.run(pull, capture_output=True, text=True, timeout=TIMEOUT_S)
        assert result.returncode == 0, result.stderr
        debian.stop()


def test_a_fabric_mirrors_a_fabric(start: Callable[..., FabricUp], tmp_path: Path) -> None:
    """Its registry reads the file again; many clients at two registries cost two transfers at most."""
    upstream = start("--replicas", "1", data=tmp_path / "upstream").wait_ready()
    layers = [random.Random(7).randbytes(30 * MIB), b"small"]
    digest, manifest = HttpRegistry(upstream.registry).push_image("team/app", "v1", layers)
    mirrors = tmp_path / "mirrors.toml"
    mirrors.write_text("")
    fabric = start("--replicas", "1", "--mirrors", str(mirrors), data=tmp_path / "mirror").wait_ready()
    one = HttpRegistry(fabric.registry)
    assert one.get_manifest("hub/team/app", "v1").status == 404

    write_mirrors(mirrors, upstream.registry)
    fabric.kill("registry", signal.SIGHUP)
    wait_until(lambda: one.get_manifest("hub/team/app", "v1").status == 200, "the mirror", fabric.story)

    other = SecondRegistry(fabric, tmp_path / "second.log", "--mirrors", str(mirrors))
    try:
        assert other.get_manifest("hub/team/app", digest).body == manifest
        with ThreadPoolExecutor(8) as pool:
            pulls = [
                pool.submit(registry.get_blob, "hub/team/app", digest_of(layers[0]))
                for _ in range(4)
                for registry in (one, other)
            ]
            assert all(pull.result().body == layers[0] for pull in pulls)
        # A tag that moves upstream moves here.
        moved, _ = HttpRegistry(upstream.registry).push_image("team/app", "v1", [b"newer"])
        for registry in (one, other):
            assert registry.get_manifest("hub/team/app", "v1").headers["docker-content-digest"] == moved
    finally:
        other.end(signal.SIGTERM)
    assert one.ask("POST", "/v2/hub/team/app/blobs/uploads/", b"").status == 403
    gc = fabric.fabric("registry", "gc", "run", "--proxy", address(fabric.proxy))
    assert gc.returncode == 0, gc.stderr
    assert one.get_blob("hub/team/app", digest_of(layers[0])).body == layers[0]
    assert upstream.stop() == 0
    assert one.get_manifest("hub/team/app", "v1").headers["warning"] == STALE
    assert peak_memory_mib(fabric.pid("registry")) < 250
