"""Bad input at every door: a clear answer, and everything is as it was."""

from __future__ import annotations

import os
import random
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import zmq

from fabric.driver import Storage
from fabric.settings import FRAGMENT_BYTES_MAX, MIB
from fabric.wire import codec
from fabric.wire.messages import Failed, Ping, Pong, StoreFragment
from tests.e2e.conftest import FabricUp, wait_until
from tests.e2e.http_registry import HttpRegistry, digest_of

Start = Callable[..., FabricUp]
WAIT_MS = 5_000


@pytest.fixture
def untouched(shared_fabric: FabricUp) -> Iterator[FabricUp]:
    """The fabric, which after the test has the same processes and the same content as before."""
    with Storage(shared_fabric.proxy) as storage:
        storage.put_content("kept", b"as it was")
        before = shared_fabric.pids(), everything(storage)
        yield shared_fabric
        assert (shared_fabric.pids(), everything(storage)) == before, shared_fabric.story()
        assert storage.get_content("kept") == b"as it was"


def everything(storage: Storage) -> list[tuple[str, int]]:
    return [(info.path, info.generation) for info in storage.list_page("").objects]


def endpoints(fabric: FabricUp) -> list[str]:
    roles = [role["endpoint"] for role in fabric.run_json["roles"] if role["role"] != "registry"]
    return sorted(set(roles))


def ask(socket_: zmq.Socket[bytes], frames: list[bytes]) -> object:
    """The decoded answer to these frames; None when there is none."""
    socket_.send_multipart(frames)
    if not socket_.poll(WAIT_MS):
        return None
    return codec.decode(socket_.recv_multipart()[1])[1]


def test_malformed_messages_at_every_zmq_port(untouched: FabricUp) -> None:
    good = codec.encode(1, Ping(1000))
    context = zmq.Context()
    try:
        for endpoint in endpoints(untouched):
            with context.socket(zmq.DEALER) as dealer:
                dealer.setsockopt(zmq.LINGER, 0)
                dealer.connect(endpoint)
                for header, code in [
                    (b"", "BAD_MESSAGE"),
                    (good[:9], "BAD_MESSAGE"),
                    (b"\x63" + good[1:], "BAD_VERSION"),
                    (good[:9] + b"\x92\xcd\x27\x0f\x01", "UNKNOWN_KIND"),
                    (good[:9] + b"\x91" * 100_000, "BAD_MESSAGE"),
                    (good[:9] + b"\x92\x02\xa5three", "BAD_MESSAGE"),
                    (bytes(2 * MIB), "BAD_VERSION"),
                ]:
                    answer = ask(dealer, [b"", header])
                    assert isinstance(answer, Failed), (endpoint, header[:20])
                    assert answer.code == code
                # Frames that belong nowhere, and more of them than any message has.
                answer = ask(dealer, [b"", good, *[b"x"] * 20_000])
                assert isinstance(answer, Failed)
                assert answer.code in ("TOO_LARGE", "BAD_MESSAGE")
                assert isinstance(ask(dealer, [b"", good]), Pong), endpoint
    finally:
        context.destroy(0)


def test_mutated_messages_at_every_zmq_port(untouched: FabricUp) -> None:
    rng = random.Random(11)
    frame = codec.encode(7, StoreFragment(1000, 1, 2, 3, 4))
    context = zmq.Context()
    try:
        for endpoint in endpoints(untouched):
            with context.socket(zmq.DEALER) as dealer:
                dealer.setsockopt(zmq.LINGER, 0)
                dealer.setsockopt(zmq.RCVHWM, 0)
                dealer.connect(endpoint)
                for _ in range(2_000):
                    mutated = bytearray(frame)
                    for _ in range(rng.randrange(1, 4)):
                        mutated[rng.randrange(len(mutated))] = rng.randrange(256)
                    dealer.send_multipart(
                        [b"", bytes(mutated[: rng.randrange(len(mutated) + 1)]), b"payload"]
                    )
                dealer.send_multipart([b"", codec.encode(99, Ping(1000))])
                wait_until(lambda dealer=dealer: _pong(dealer), f"an answer of {endpoint}")  # type: ignore[misc]
    finally:
        context.destroy(0)


def _pong(dealer: zmq.Socket[bytes]) -> bool:
    while dealer.poll(100):
        if isinstance(codec.decode(dealer.recv_multipart()[1])[1], Pong):
            return True
    return False


def test_an_oversized_frame_costs_its_connection_and_no_more(untouched: FabricUp) -> None:
    context = zmq.Context()
    try:
        for endpoint in endpoints(untouched):
            with context.socket(zmq.DEALER) as dealer, context.socket(zmq.DEALER) as other:
                for each in (dealer, other):
                    each.setsockopt(zmq.LINGER, 0)
                    each.connect(endpoint)
                dealer.send_multipart([b"", codec.encode(1, Ping(1000)), bytes(FRAGMENT_BYTES_MAX + MIB)])
                assert isinstance(ask(other, [b"", codec.encode(2, Ping(1000))]), Pong), endpoint
    finally:
        context.destroy(0)


def test_bytes_that_are_no_zmq_at_every_port(untouched: FabricUp) -> None:
    rng = random.Random(12)
    for endpoint in endpoints(untouched):
        address = urlsplit(endpoint)
        for garbage in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", rng.randbytes(4096), b"\xff" + bytes(9)):
            with socket.create_connection((address.hostname, address.port), timeout=5) as raw:
                raw.sendall(garbage)


@pytest.mark.parametrize(
    ("request_bytes", "statuses"),
    [
        (b"garbage\r\n\r\n", {400}),
        (b"GET /v2/ HTTP/9.9\r\n\r\n", {400, 505}),
        (
            b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\n"
            b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
            {400},
        ),
        (
            b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            {400},
        ),
        (b"GET /v2/%2e%2e/%2e%2e/etc/passwd/manifests/x HTTP/1.1\r\nHost: x\r\n\r\n", {400, 404}),
        (b"GET /v2/a/../../b/manifests/x HTTP/1.1\r\nHost: x\r\n\r\n", {400, 404}),
        (b"GET /v2/" + b"a" * 9000 + b"/tags/list HTTP/1.1\r\nHost: x\r\n\r\n", {400, 414}),
        (b"BREW /v2/ HTTP/1.1\r\nHost: x\r\n\r\n", {400, 404, 405}),
    ],
)
def test_http_garbage(untouched: FabricUp, request_bytes: bytes, statuses: set[int]) -> None:
    address = urlsplit(untouched.registry)
    with socket.create_connection((address.hostname, address.port), timeout=10) as raw:
        raw.sendall(request_bytes)
        status_line = raw.makefile("rb").readline()
    assert int(status_line.split()[1]) in statuses, status_line


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/v2/UPPER/blobs/uploads/", b"", 400, "NAME_INVALID"),
        ("GET", f"/v2/{'a/' * 130}b/tags/list", None, 400, "NAME_INVALID"),
        ("GET", "/v2/a/blobs/sha256:short", None, 400, "DIGEST_INVALID"),
        ("GET", "/v2/a/blobs/sha256:" + "A" * 64, None, 400, "DIGEST_INVALID"),
        ("GET", "/v2/a/blobs/sha256:" + "a" * 64, None, 404, "BLOB_UNKNOWN"),
        ("GET", "/v2/a/manifests/none", None, 404, "MANIFEST_UNKNOWN"),
        ("PATCH", "/v2/a/blobs/uploads/" + "0" * 32, b"x", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("GET", "/v2/a/blobs/uploads/../../x", None, 400, "NAME_INVALID"),
        ("PUT", "/v2/a/manifests/v1", b"{", 400, "MANIFEST_INVALID"),
    ],
)
def test_bad_requests(
    untouched: FabricUp, method: str, path: str, body: bytes | None, status: int, code: str | None
) -> None:
    answer = HttpRegistry(untouched.registry).ask(method, path, body)
    assert answer.status == status, answer
    assert code is None or answer.codes == [code]


def test_a_wrong_digest_stores_nothing(shared_fabric: FabricUp) -> None:
    registry = HttpRegistry(shared_fabric.registry)
    answer = registry.finish(registry.begin("bad/digest"), digest_of(b"other"), b"bytes")

    assert (answer.status, answer.codes) == (400, ["DIGEST_INVALID"])
    for data in (b"other", b"bytes"):
        assert registry.get_blob("bad/digest", digest_of(data)).status == 404


def test_a_full_disk(start: Start, tmp_path: Path) -> None:
    """A disk of 96 MiB fills up: pushes are refused, reads and deletes go on, nothing is lost."""
    data = tmp_path / "small"
    data.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(data)], capture_output=True
    )
    if mounted.returncode != 0:
        assert os.environ.get("CI") != "true", mounted.stderr.decode()
        pytest.skip("needs the right to mount a tmpfs")
    try:
        config = tmp_path / "config.toml"
        config.write_text(
            f"[settings]\ndata_file_bytes_max = {8 * MIB}\n"
            f"reserve_bytes = {12 * MIB}\nwrite_patience_s = 2.0\n"
        )
        fabric = start("--config", str(config), data=data).wait_ready()
        registry = HttpRegistry(fabric.registry)
        stored: list[bytes] = []
        for _ in range(100):
            blob = os.urandom(2 * MIB)
            answer = registry.put_blob("full/disk", blob)
            if answer.status != 201:
                break
            stored.append(blob)
        assert stored, answer
        assert answer.status == 503, answer
        assert b"NO_WRITABLE_GROUP" in answer.body or b"NO_SPACE" in answer.body
        nodes = fabric.admin("nodes")
        assert any("full" in node["reason"] or "space" in node["reason"] for node in nodes), nodes
        for blob in stored:
            assert registry.get_blob("full/disk", digest_of(blob)).body == blob
        deleted = registry.ask("DELETE", f"/v2/full/disk/blobs/{digest_of(stored[0])}")
        assert deleted.status == 202
        assert fabric.stop() == 0
    finally:
        subprocess.run(["umount", "-l", str(data)], check=True)
