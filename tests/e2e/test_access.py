"""Logins, TLS and tokens with a real client, through ``fabric up --access`` and a second registry."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import bcrypt
import pytest

from tests.e2e.conftest import FabricUp, needs, wait_until
from tests.e2e.oci_image import Layout, blob_names
from tests.e2e.token_server import ISSUER, TokenServer
from tests.unit.cli.test_registry import free_port
from tests.unit.driver.registry.access.certificates import make_certificate

ACCESS = """
[users]
htpasswd = "people"

[tls]
certificate = "server.crt"
key = "server.key"

[[rules]]
repositories = ["team/**"]
who = ["ci"]
may = ["*"]

[[rules]]
repositories = ["team/public"]
who = ["@everybody"]
may = ["pull"]

[[rules]]
repositories = ["team/**"]
who = ["@users"]
may = ["pull"]

[[immutable]]
repositories = ["team/**"]
tags = ["v*"]
"""

TOKENS = """
[tokens]
realm = "{realm}"
service = "registry of the tests"
issuer = "{issuer}"
keys = "keys.json"
"""


class Site(NamedTuple):
    """A fabric behind an access file, and the directory of that file."""

    fabric: FabricUp
    directory: Path

    @property
    def address(self) -> str:
        return self.fabric.registry.removeprefix("https://")


def write_people(directory: Path, **passwords: str) -> None:
    hashes = {user: bcrypt.hashpw(text.encode(), bcrypt.gensalt(5)) for user, text in passwords.items()}
    (directory / "people").write_text("".join(f"{user}:{text.decode()}\n" for user, text in hashes.items()))


def certificates(site: Site, into: Path) -> Path:
    """A directory for ``--cert-dir`` that trusts what the registry has now."""
    into.mkdir()
    shutil.copy(site.directory / "server.crt", into / "server.crt")
    return into


def skopeo(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [needs("skopeo"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("access")
    (directory / "access.toml").write_text(ACCESS)
    write_people(directory, ci="build it", bob="look")
    make_certificate(directory, "server")
    fabric = FabricUp(directory / "data", "--access", str(directory / "access.toml"))
    try:
        yield Site(fabric.wait_ready(), directory)
    finally:
        fabric.stop()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "there")
    layout.add_image("one", [200_000, 30_000], seed=1)
    layout.add_image("two", [200_000, 40_000], seed=2)
    return layout


def test_skopeo_logs_in_over_tls(site: Site, layout: Layout, tmp_path: Path) -> None:
    trusted = certificates(site, tmp_path / "certs")
    image = f"docker://{site.address}/team/app"
    to, of = ["--dest-cert-dir", trusted], ["--src-cert-dir", trusted]

    def copy(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return skopeo("copy", "--preserve-digests", *arguments)

    assert site.fabric.registry.startswith("https://") and site.fabric.registry in site.fabric.ready_line
    pushed = copy(*to, "--dest-creds", "ci:build it", f"oci:{layout.directory}:one", f"{image}:v1")
    assert pushed.returncode == 0, pushed.stderr

    for creds in (["--dest-creds", "ci:wrong"], ["--dest-creds", "bob:look"], []):
        refused = copy(*to, *creds, f"oci:{layout.directory}:one", f"{image}:v2")
        assert refused.returncode != 0
        assert "nauthorized" in refused.stderr or "denied" in refused.stderr, refused.stderr

    pulled = copy(*of, "--src-creds", "bob:look", f"{image}:v1", f"oci:{tmp_path / 'back'}:one")
    assert pulled.returncode == 0, pulled.stderr
    assert blob_names(tmp_path / "back") < blob_names(layout.directory)
    assert copy(*of, f"{image}:v1", f"oci:{tmp_path / 'no'}:one").returncode != 0
    untrusted = skopeo("inspect", "--creds", "bob:look", f"{image}:v1")
    assert untrusted.returncode != 0 and "certificate" in untrusted.stderr

    overwritten = copy(*to, "--dest-creds", "ci:build it", f"oci:{layout.directory}:two", f"{image}:v1")
    assert overwritten.returncode != 0 and "immutable" in overwritten.stderr, overwritten.stderr


def test_a_public_repository_is_pulled_without_a_login(site: Site, layout: Layout, tmp_path: Path) -> None:
    trusted = certificates(site, tmp_path / "certs")
    image = f"docker://{site.address}/team/public:latest"
    pushed = skopeo(
        "copy",
        "--dest-cert-dir",
        trusted,
        "--dest-creds",
        "ci:build it",
        f"oci:{layout.directory}:two",
        image,
    )
    assert pushed.returncode == 0, pushed.stderr
    pulled = skopeo("copy", "--src-cert-dir", trusted, image, f"oci:{tmp_path / 'back'}:two")
    assert pulled.returncode == 0, pulled.stderr
    assert skopeo("delete", "--cert-dir", trusted, image).returncode != 0
    deleted = skopeo("delete", "--cert-dir", trusted, "--creds", "ci:build it", image)
    assert deleted.returncode == 0, deleted.stderr


def test_sighup_brings_new_passwords_and_a_new_certificate(site: Site, tmp_path: Path) -> None:
    pid = site.fabric.pid("registry")
    before = (site.directory / "server.crt").read_text()
    make_certificate(site.directory, "server")
    write_people(site.directory, ci="build it", bob="look", eve="new")
    site.fabric.kill("registry", signal.SIGHUP)

    def served() -> str:
        host, _, port = site.address.rpartition(":")
        return ssl.get_server_certificate((host, int(port))).strip()

    wait_until(lambda: served() != before.strip(), "the new certificate", site.fabric.story)
    assert served() == (site.directory / "server.crt").read_text().strip()
    trusted = certificates(site, tmp_path / "certs")
    listed = skopeo(
        "inspect",
        "--raw",
        "--cert-dir",
        trusted,
        "--creds",
        "eve:new",
        f"docker://{site.address}/team/app:v1",
    )
    assert listed.returncode == 0, listed.stderr

    # A file with a mistake changes nothing, and says so.
    (site.directory / "people").write_text("eve:plain\n")
    site.fabric.kill("registry", signal.SIGHUP)
    log = site.fabric.data / "logs" / "registry.log"
    wait_until(lambda: "the one before holds" in log.read_text(), "a line about the mistake")
    assert "people: line 1: the hash of 'eve' is not bcrypt" in log.read_text()
    listed = skopeo(
        "list-tags", "--cert-dir", trusted, "--creds", "eve:new", f"docker://{site.address}/team/app"
    )
    assert listed.returncode == 0, listed.stderr
    assert site.fabric.pid("registry") == pid


@contextlib.contextmanager
def registry_with(access: Path, proxy: str) -> Iterator[int]:
    """Another registry process on the same fabric; its port."""
    port = free_port()
    command = [
        sys.executable, "-m", "fabric", "registry", "--http", f"127.0.0.1:{port}",
        "--proxy", proxy.removeprefix("tcp://"), "--access", str(access),
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert "listening on http://" in process.stderr.readline()
            yield port
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()


def allowed(user: str, repository: str) -> set[str]:
    if user == "ci" and repository.startswith("token/"):
        return {"pull", "push"}
    return {"pull"} if repository == "token/public" else set()


@pytest.fixture
def tokens() -> Iterator[TokenServer]:
    server = TokenServer("registry of the tests", {"ci": "build it"}, allowed)
    yield server
    server.close()


def test_skopeo_brings_tokens(site: Site, layout: Layout, tokens: TokenServer, tmp_path: Path) -> None:
    access = tmp_path / "access.toml"
    access.write_text(TOKENS.format(realm=tokens.realm, issuer=ISSUER))
    (tmp_path / "keys.json").write_text(tokens.jwks())
    to, of = ["copy", "--dest-tls-verify=false"], ["copy", "--src-tls-verify=false"]
    creds = ["--dest-creds", "ci:build it"]

    with registry_with(access, site.fabric.proxy) as port:
        image = f"docker://127.0.0.1:{port}/token"
        pushed = skopeo(*to, *creds, f"oci:{layout.directory}:one", f"{image}/private:v1")
        assert pushed.returncode == 0, pushed.stderr
        assert ("ci", ("repository:token/private:pull,push",)) in tokens.asked
        pushed = skopeo(*to, *creds, f"oci:{layout.directory}:two", f"{image}/public:v1")
        assert pushed.returncode == 0, pushed.stderr

        pulled = skopeo(*of, f"{image}/public:v1", f"oci:{tmp_path / 'back'}:two")
        assert pulled.returncode == 0, pulled.stderr
        assert ("", ("repository:token/public:pull",)) in tokens.asked
        assert skopeo(*of, f"{image}/private:v1", f"oci:{tmp_path / 'no'}:one").returncode != 0
        assert skopeo(*to, f"oci:{layout.directory}:one", f"{image}/public:v2").returncode != 0
        assert (
            skopeo(*to, "--dest-creds", "ci:x", f"oci:{layout.directory}:one", f"{image}/a:v1").returncode
            != 0
        )
        deleted = skopeo("delete", "--tls-verify=false", "--creds", "ci:build it", f"{image}/public:v1")
        assert deleted.returncode != 0, "nobody is allowed to delete"

        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", "/v2/token/private/tags/list", headers={"Host": "evil.example.org"})
            answer = connection.getresponse()
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"] == (
                f'Bearer realm="{tokens.realm}",service="registry of the tests",'
                'scope="repository:token/private:pull"'
            )


def test_a_mistake_in_the_file_is_told_before_anything_starts(tmp_path: Path) -> None:
    access = tmp_path / "access.toml"
    access.write_text('[[rules]]\nrepositories = ["app"]\nwho = ["ci"]\nmay = ["pul"]\n')
    line = f"Error: {access}: rules[1].may: 'pul' is none of pull, push, delete and *\n"
    for command in (
        ["up", "--data", str(tmp_path / "data"), "--access", str(access)],
        ["registry", "--access", str(access)],
        ["registry", "check-access", str(access)],
    ):
        result = subprocess.run(
            [sys.executable, "-m", "fabric", *command], capture_output=True, text=True, timeout=60
        )
        assert (result.returncode, result.stderr) == (2, line)
    assert not (tmp_path / "data").exists()
