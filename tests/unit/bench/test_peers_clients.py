"""What drives the peers: parsing what they say, an HTTP client that counts every byte, stores that open."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from bench.engine.store import UUID, open_engine, read
from bench.errors import BenchError
from bench.http import Blob
from bench.http_limit import BareHttp
from bench.objects import Job, run_job
from bench.peers import http_client
from bench.peers.http_client import body_bytes, parse_head
from bench.peers.programs import free_ports, output_of, program, running, wait_for
from bench.peers.requests import ask_again_and_again
from bench.peers.seaweed import Benchmarked, parse_benchmark
from bench.peers.stores import PAYLOAD, copy_fragments, fill_catalog, fill_fragments, path_of
from fabric.chunk.jobs import StatusDone, StatusJob
from fabric.chunk.leveldb_index import LevelDbHome
from fabric.master import keys, references
from fabric.master.catalog import Catalog
from fabric.master.fids import FidLeases
from fabric.master.operation_ids import OperationIds
from fabric.settings import BUCKETS, MIB

SAID = """
This is SeaweedFS version 8000GB 4.48 pypi linux amd64

------------ Writing Benchmark ----------
Completed 367 of 2000 requests, 18.4% 367.0/s 0.4MB/s

Concurrency Level:      16
Time taken for tests:   2.344 seconds
Completed requests:      2000
Failed requests:        0
Total transferred:      2112661 bytes
Requests per second:    853.37 [#/sec]
Transfer rate:          880.32 [Kbytes/sec]

Percentage of the requests served within a certain time (ms)
   50%     10.8 ms
   98%     30.2 ms
   99%     39.2 ms
  100%    1040.8 ms
"""


def test_what_weed_benchmark_says_is_read() -> None:
    assert parse_benchmark(SAID) == Benchmarked(853.37, 10.8, 39.2)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (SAID.replace("Failed requests:        0", "Failed requests:        3"), "3 requests failed"),
        (SAID.replace("Requests per second", "Requests"), "nothing that is understood"),
        (SAID.replace("   99% ", "   97% "), "nothing that is understood"),
        ("", "nothing that is understood"),
    ],
)
def test_failed_files_or_other_words_are_no_figure(text: str, reason: str) -> None:
    with pytest.raises(BenchError, match=reason):
        parse_benchmark(text)


# --- HTTP -----------------------------------------------------------------------------------------


@contextmanager
def answering(*answers: bytes) -> Iterator[str]:
    """A server that gives each connection these bytes, one answer to a request, and closes it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        # A client that has seen enough goes away.
        with connection, suppress(OSError):
            for answer in answers:
                if not connection.recv(65536):
                    return
                # In pieces, as a network may: no client may count on whole answers.
                for start in range(0, 84, 7):
                    connection.sendall(answer[start : start + 7])
                connection.sendall(answer[84:])

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
HEAD_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"


def test_the_client_sends_and_takes_every_byte_of_large_bodies(tmp_path: Path) -> None:
    blob = Blob(tmp_path / "blob", 3 * MIB + 5)
    with BareHttp() as server:
        assert http_client.put_file(server.url, "/sink", blob).bytes_moved == 3 * MIB + 5
        sample = http_client.get(server.url, f"/source/{5 * MIB + 1}", 5 * MIB + 1, at_once=3)

    assert sample.bytes_moved == 3 * (5 * MIB + 1)
    assert len(sample.latencies_s) == 3


def test_bytes_that_are_checked_are_those_that_came(tmp_path: Path) -> None:
    blob = Blob(tmp_path / "blob", 2 * MIB)
    blob.renew()
    good = b"HTTP/1.1 200 OK\r\nContent-Length: 2097152\r\n\r\n" + blob.path.read_bytes()
    bad = good[:-1] + bytes([good[-1] ^ 1])
    with answering(good) as url:
        http_client.verify(url, "/", blob)
    with answering(bad) as url, pytest.raises(BenchError, match="other bytes"):
        http_client.verify(url, "/", blob)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (OK, "5 bytes came, 6 were put"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello", "ended 1 bytes too early"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "status 404"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "without Content-Length"),
        (b"SSH-2.0\r\n\r\n", "no HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nContent-", "never ended its headers"),
    ],
)
def test_an_answer_that_is_not_the_right_one_is_no_figure(answer: bytes, reason: str) -> None:
    with answering(answer) as url, pytest.raises(BenchError, match=reason):
        http_client.get(url, "/", 6)


def test_heads_are_read_without_regard_to_letters() -> None:
    status, headers = parse_head(b"HTTP/1.1 202 Accepted\r\nLOCATION:  /a?b=c:d \r\nContent-length: 0")

    assert status == 202
    assert headers == {"location": "/a?b=c:d", "content-length": "0"}
    assert body_bytes("HEAD", 200, {"content-length": "9"}) == 0
    assert body_bytes("GET", 200, {"content-length": "9"}) == 9


@pytest.mark.parametrize(("method", "answer"), [("GET", OK), ("HEAD", HEAD_OK)])
def test_small_requests_go_on_over_all_connections_to_all_servers(method: str, answer: bytes) -> None:
    with answering(*[answer] * 10_000) as first, answering(*[answer] * 10_000) as second:
        sample = ask_again_and_again([first, second], method, "/", connections=4, seconds=0.1)

    assert len(sample.latencies_s) > 8
    assert sample.elapsed_s >= 0.1
    assert sample.bytes_moved == (5 * len(sample.latencies_s) if method == "GET" else 0)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (OK, "closed a connection"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "status 404"),
    ],
)
def test_a_server_that_closes_or_refuses_is_no_figure(answer: bytes, reason: str) -> None:
    with answering(answer) as url, pytest.raises(BenchError, match=reason):
        ask_again_and_again([url], "GET", "/", connections=2, seconds=5)


# --- programs -------------------------------------------------------------------------------------


def test_a_program_that_is_not_there_says_where_it_comes_from() -> None:
    with pytest.raises(BenchError, match=r"no-such-tool is not installed: apt-get install it"):
        program("no-such-tool", "apt-get install it")


def test_a_program_that_fails_is_told_with_what_it_said() -> None:
    with pytest.raises(BenchError, match="sh failed with status 3: broken"):
        output_of(["/bin/sh", "-c", "echo broken >&2; exit 3"])


def test_a_server_that_ends_before_it_answers_is_told_with_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    never: Callable[[], bool] = lambda: False  # noqa: E731
    with (
        running(["/bin/sh", "-c", "echo no port"], log) as process,
        pytest.raises(BenchError, match="it said:\nno port"),
    ):
        wait_for(never, "the server", log, process)


def test_a_server_is_ended_with_its_block(tmp_path: Path) -> None:
    with running(["/bin/sleep", "60"], tmp_path / "log") as process:
        assert process.poll() is None
    assert process.returncode == -15


def test_free_ports_are_all_different() -> None:
    ports = free_ports(10)
    assert len(set(ports)) == 10


# --- stores that were filled the short way --------------------------------------------------------


@pytest.mark.parametrize("copied", [False, True])
def test_filled_fragments_are_what_the_engine_would_have_written(tmp_path: Path, copied: bool) -> None:
    count = 10_000
    if copied:
        fill_fragments(tmp_path / "another", range(count), uuid=b"another's uuid..")
        copy_fragments(tmp_path / "another", tmp_path / "store", UUID)
    else:
        fill_fragments(tmp_path / "store", range(count))
    with open_engine(tmp_path / "store") as engine:
        status = engine.run(StatusJob())
        for fid in (0, 4095, 4096, count - 1):
            read(engine, fid, len(PAYLOAD))
        with pytest.raises(BenchError):
            read(engine, count, len(PAYLOAD))
    index = LevelDbHome(tmp_path / "store" / "index").open()
    for bucket in range(BUCKETS):
        index.verify_bucket(bucket)
    index.close()

    assert isinstance(status, StatusDone)
    assert (status.status.fragments, status.status.live_bytes) == (count, count * len(PAYLOAD))
    assert (status.status.garbage_bytes, status.status.quarantined) == (0, 0)


def test_get_once_reads_each_object_once() -> None:
    paths: list[str] = []

    class Store:
        async def open(self, path: str) -> Any:
            paths.append(path)
            return Reader()

    class Reader:
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield PAYLOAD

        async def close(self) -> None:
            pass

    for first in (0, 20, 40):
        job = Job("get-once", len(PAYLOAD), 4, 60.0, 16 * len(PAYLOAD), 1000, "", first)
        sample = asyncio.run(run_job(Store(), job))  # type: ignore[arg-type]
        assert 16 <= len(sample.latencies_s) <= 20
    assert len(set(paths)) == len(paths) >= 48
    assert set(paths) <= {path_of(number) for number in range(1000)}


def test_a_filled_catalog_names_its_objects_pages_and_references(tmp_path: Path) -> None:
    count = 500
    store = fill_catalog(tmp_path, count)
    try:
        catalog = Catalog(store, FidLeases(1.0), OperationIds(), lambda group: True)
        for number in (0, count - 1):
            opened = catalog.open(path_of(number), 0)
            assert opened.info.size == len(PAYLOAD)
            (fragment,) = opened.fragments
            reference = references.find(store, fragment.group, fragment.fid)
            assert reference is not None and reference.object_id == number + 1
        assert store.get(keys.object_key(path_of(count))) is None
        assert store.get(keys.object_key(path_of(0, extra=1))) is None
        assert store.verify() == 3 * count + 1
    finally:
        store.close()
