"""The same work of skopeo at this registry and at Debian's docker-registry, and the same to be seen after."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import FabricUp, needs
from tests.e2e.debian_registry import DebianRegistry
from tests.e2e.http_registry import HttpRegistry, digest_of
from tests.e2e.oci_image import Layout, blob_names

TIMEOUT_S = 120


@pytest.fixture
def debian_registry(tmp_path: Path) -> Iterator[str]:
    """``HOST:PORT`` of Debian's docker-registry, with deletion allowed."""
    registry = DebianRegistry(tmp_path)
    try:
        yield registry.address
    finally:
        registry.stop()


class Work:
    """What somebody does with skopeo at one registry, and all that they see."""

    def __init__(self, address: str, directory: Path) -> None:
        self.address = address
        self.directory = directory
        directory.mkdir()
        self.seen: list[Any] = []

    def skopeo(self, action: str, *arguments: str) -> str:
        """Run it; returns what it prints.  A failure is seen as its exit status."""
        verify = {
            "copy": ["--src-tls-verify=false", "--dest-tls-verify=false"],
            "sync": ["--src-tls-verify=false", "--dest-tls-verify=false"],
        }.get(action, ["--tls-verify=false"])
        command = [needs("skopeo"), action, *verify, *arguments]
        result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
        self.seen.append((action, result.returncode))
        return result.stdout

    def url(self, name: str) -> str:
        return f"docker://{self.address}/{name}"

    def look(self, name: str) -> None:
        """Inspect an image: its raw manifest, its configuration, and what skopeo makes of them."""
        self.seen.append(self.skopeo("inspect", "--raw", self.url(name)))
        self.seen.append(self.skopeo("inspect", "--config", self.url(name)))
        report = self.skopeo("inspect", self.url(name))
        if report:
            document = json.loads(report)
            assert document.pop("Name") == f"{self.address}/{name.partition(':')[0]}"
            document["RepoTags"].sort()  # Debian's comes in any order
            self.seen.append(document)
        else:
            self.seen.append(None)

    def list_tags(self, name: str) -> None:
        listing = self.skopeo("list-tags", self.url(name))
        self.seen.append(sorted(json.loads(listing)["Tags"] or []) if listing else None)


def work(address: str, layout: Layout, directory: Path) -> list[Any]:
    """Copy there, look, copy within, sync to a directory and back, delete; all that was seen."""
    one = Work(address, directory)
    source = f"oci:{layout.directory}"
    for tag in ("small", "layers", "none"):
        one.skopeo("copy", "--preserve-digests", f"{source}:{tag}", one.url(f"work/app:{tag}"))
        one.look(f"work/app:{tag}")
    one.skopeo("copy", "--preserve-digests", one.url("work/app:layers"), one.url("work/app:again"))
    one.skopeo("copy", "--preserve-digests", one.url("work/app:layers"), one.url("work/other:v1"))
    one.skopeo("copy", "--format", "v2s2", f"{source}:layers", one.url("work/app:docker"))
    one.look("work/app:docker")
    one.look("work/app:absent")
    one.list_tags("work/app")
    one.list_tags("work/absent")

    one.skopeo("sync", "--src", "docker", "--dest", "dir", f"{address}/work/app", str(directory / "synced"))
    synced = directory / "synced"
    one.seen.append(sorted(str(path.relative_to(synced)) for path in synced.rglob("*") if path.is_file()))
    for tag in ("layers", "small"):
        one.skopeo("sync", "--src", "dir", "--dest", "docker", str(synced / f"app:{tag}"), f"{address}/back")
        one.look(f"back/app:{tag}")
    one.list_tags("back/app")

    one.skopeo("delete", one.url("work/app:small"))
    one.look("work/app:small")
    one.skopeo("delete", one.url("work/app:small"))
    one.skopeo("delete", one.url("work/app:layers"))
    one.list_tags("work/app")
    one.look("work/app:again")
    one.look("work/other:v1")
    one.skopeo("copy", one.url("work/other:v1"), f"oci:{directory / 'pulled'}:v1")
    one.seen.append(sorted(blob_names(directory / "pulled")))
    return one.seen


def test_skopeo_sees_the_same_at_both(shared_fabric: FabricUp, debian_registry: str, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    layout.add_image("small", [10_000])
    layout.add_image("layers", [500_000, 0, 5_000_000], seed=2)
    layout.add_image("none", [], seed=3)

    ours = work(shared_fabric.registry.removeprefix("http://"), layout, tmp_path / "ours")
    theirs = work(debian_registry, layout, tmp_path / "theirs")

    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        assert one == other, f"step {number}, after {ours[:number][-3:]}"
    assert ("copy", 0) in ours and ("sync", 0) in ours and ("delete", 0) in ours
    failed = [seen for seen in ours if isinstance(seen, tuple) and seen[1] != 0]
    assert {action for action, _ in failed} == {"inspect", "list-tags", "delete"}, "only of what is not there"


QUESTIONS = [
    ("GET", "/v2/", 200),
    ("GET", "/v2/plain/app/tags/list", 200),
    ("GET", "/v2/plain/app/manifests/latest", 200),
    ("HEAD", "/v2/plain/app/manifests/latest", 200),
    ("GET", "/v2/plain/app/manifests/absent", 404),
    ("GET", "/v2/plain/app/blobs/{layer}", 200),
    ("HEAD", "/v2/plain/app/blobs/{layer}", 200),
    ("GET", "/v2/plain/app/blobs/sha256:" + "0" * 64, 404),
    ("GET", "/v2/absent/tags/list", 404),
    ("DELETE", "/v2/plain/app/blobs/sha256:" + "0" * 64, 404),
]

HEADERS = (
    "content-type",
    "content-length",
    "docker-content-digest",
    "etag",
    "docker-distribution-api-version",
)


def test_the_same_answers_to_plain_questions(shared_fabric: FabricUp, debian_registry: str) -> None:
    """Statuses, the headers that clients read, bodies, and the codes of errors."""
    registries = [HttpRegistry(shared_fabric.registry), HttpRegistry(f"http://{debian_registry}")]
    layer = b"a layer"
    for registry in registries:
        registry.push_image("plain/app", "latest", [layer])
    for method, path, status in QUESTIONS:
        accept = "application/vnd.oci.image.manifest.v1+json"
        answers = [
            registry.ask(method, path.replace("{layer}", digest_of(layer)), Accept=accept)
            for registry in registries
        ]
        assert [answer.status for answer in answers] == [status, status], (method, path)
        if status == 404:
            assert answers[0].codes == answers[1].codes
            continue
        found = [{name: answer.headers.get(name) for name in HEADERS} for answer in answers]
        for headers in found:
            headers["content-type"] = str(headers["content-type"]).partition(";")[0]
        if "/manifests/" in path or "/blobs/" in path:
            assert found[0] == found[1], (method, path)
            assert answers[0].body == answers[1].body
        else:
            assert json.loads(answers[0].body) == json.loads(answers[1].body)
