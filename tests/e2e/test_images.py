"""Real images, pushed and pulled by skopeo through three replicas."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.conftest import FabricUp, needs
from tests.e2e.http_registry import HttpRegistry, digest_of
from tests.e2e.oci_image import MIB, Layout, blob_names

GIB = 1024 * MIB
TIMEOUT_S = 300


def skopeo_copy(source: str, target: str) -> None:
    command = [
        needs("skopeo"), "copy", "--preserve-digests", "--src-tls-verify=false",
        "--dest-tls-verify=false", source, target,
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert result.returncode == 0, result.stderr


def image_url(fabric: FabricUp, name: str) -> str:
    return f"docker://{fabric.registry.removeprefix('http://')}/{name}"


def push_and_pull(fabric: FabricUp, layout: Layout, digest: str, tag: str, back: Path) -> None:
    """There and back; the same manifest, the same blobs."""
    skopeo_copy(f"oci:{layout.directory}:{tag}", image_url(fabric, f"images/{tag}:v1"))
    skopeo_copy(image_url(fabric, f"images/{tag}:v1"), f"oci:{back}:{tag}")
    assert blob_names(back) == blob_names(layout.directory)
    answer = HttpRegistry(fabric.registry).get_manifest(f"images/{tag}", "v1")
    assert answer.headers["docker-content-digest"] == digest == digest_of(answer.body)


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param([100_000], id="one layer"),
        pytest.param([], id="no layer"),
        pytest.param([0], id="an empty layer"),
        pytest.param([10_000 * (n + 1) for n in range(20)], id="20 layers"),
        pytest.param([4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 9 * MIB], id="around the fragment size"),
    ],
)
def test_an_image_comes_back_bit_for_bit(shared_fabric: FabricUp, tmp_path: Path, sizes: list[int]) -> None:
    layout = Layout(tmp_path / "there")
    tag = f"layers-{len(sizes)}-{sum(sizes)}"
    digest = layout.add_image(tag, sizes)

    push_and_pull(shared_fabric, layout, digest, tag, tmp_path / "back")


def test_two_pushes_at_once(shared_fabric: FabricUp, tmp_path: Path) -> None:
    def push(name: str, seed: int) -> None:
        layout = Layout(tmp_path / name)
        # The first layer is the same in both, so that they also meet at one blob.
        digest = layout.add_image(name, [20 * MIB, 7 * MIB + seed], seed=1)
        push_and_pull(shared_fabric, layout, digest, name, tmp_path / f"{name}-back")

    with ThreadPoolExecutor() as pool:
        list(pool.map(push, ["left", "right"], [1, 2]))


def test_a_blob_without_bytes(shared_fabric: FabricUp) -> None:
    registry = HttpRegistry(shared_fabric.registry)

    assert registry.put_blob("empty/blob", b"").status == 201
    answer = registry.get_blob("empty/blob", digest_of(b""))
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")


def test_a_layer_of_1_gib_in_little_memory(fabric_up: FabricUp, tmp_path: Path) -> None:
    if shutil.disk_usage(tmp_path).free < 8 * GIB:
        assert os.environ.get("CI") != "true", "the disk is too small for this test"
        pytest.skip("needs 8 GiB of free disk")
    layout = Layout(tmp_path / "there")
    digest = layout.add_image("large", [GIB], seed=3)

    skopeo_copy(f"oci:{layout.directory}:large", image_url(fabric_up, "images/large:v1"))
    peaks_mib = {name: peak_memory_mib(pid) for name, pid in fabric_up.pids().items()}

    assert max(peaks_mib.values()) < 200, peaks_mib
    skopeo_copy(image_url(fabric_up, "images/large:v1"), f"oci:{tmp_path / 'back'}:large")
    assert blob_names(tmp_path / "back") == blob_names(layout.directory)
    inspected = HttpRegistry(fabric_up.registry).get_manifest("images/large", "v1")
    assert "sha256:" + hashlib.sha256(inspected.body).hexdigest() == digest


def peak_memory_mib(pid: int) -> float:
    """The largest resident set a process has had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"no VmHWM of {pid}")
