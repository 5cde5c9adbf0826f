"""Tools that people use, beside skopeo: each pushes something, and gets the same back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import FabricUp, needs
from tests.e2e.http_registry import HttpRegistry, digest_of

TIMEOUT_S = 120

ORAS = """
import sys
import oras.client

registry, target, source, directory = sys.argv[1:]
client = oras.client.OrasClient(hostname=registry, insecure=True)
pushed = client.push(
    files=[source], target=target, disable_path_validation=True, manifest_annotations={"made": "by oras"}
)
assert pushed.status_code == 201, pushed.status_code
assert client.get_tags(target) == ["v1"]
client.pull(target=target, outdir=directory)
"""


def run(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_buildah_builds_pushes_and_pulls(shared_fabric: FabricUp, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        assert os.environ.get("CI") != "true", "buildah mounts, which only root can"
        pytest.skip("only root can mount")
    buildah = [
        needs("buildah"), "--storage-driver", "vfs",
        "--root", str(tmp_path / "store"), "--runroot", str(tmp_path / "run"),
    ]  # fmt: skip
    address = shared_fabric.registry.removeprefix("http://")
    content = tmp_path / "content"
    content.write_bytes(os.urandom(3_000_000))
    for format_ in ("oci", "docker"):
        url = f"docker://{address}/buildah/{format_}:v1"
        container = run(*buildah, "from", "scratch")
        run(*buildah, "copy", container, str(content), "/content")
        run(*buildah, "commit", "--format", format_, container, "built")
        run(*buildah, "push", "--tls-verify=false", "built", url)
        run(*buildah, "rm", container)
        run(*buildah, "rmi", "--all", "--force")

        image = run(*buildah, "pull", "--tls-verify=false", url)

        again = run(*buildah, "from", "--pull-never", image)
        mounted = Path(run(*buildah, "mount", again))
        assert (mounted / "content").read_bytes() == content.read_bytes()
        run(*buildah, "unmount", again)
        run(*buildah, "rm", again)
        run(*buildah, "rmi", "--all", "--force")


def test_oras_pushes_and_pulls_an_artifact(shared_fabric: FabricUp, tmp_path: Path) -> None:
    address = shared_fabric.registry.removeprefix("http://")
    source = tmp_path / "thing.bin"
    source.write_bytes(os.urandom(5_000_000))
    back = tmp_path / "back"

    run(sys.executable, "-c", ORAS, address, f"{address}/oras/thing:v1", str(source), str(back))

    assert [path.read_bytes() for path in back.rglob("*") if path.is_file()] == [source.read_bytes()]
    manifest = json.loads(HttpRegistry(shared_fabric.registry).get_manifest("oras/thing", "v1").body)
    assert manifest["annotations"] == {"made": "by oras"}
    assert [layer["digest"] for layer in manifest["layers"]] == [digest_of(source.read_bytes())]
