"""A LevelDB that is damaged: an index is made anew, the master's store is refused."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from fabric.chunk.engine import Engine
from fabric.chunk.jobs import DeleteItem, ReadBatch, ReadDone, ReadItem, StoreItem, WriteBatch
from fabric.chunk.leveldb_index import LevelDbHome
from fabric.master.leveldb_store import DIRECTORY, open_store
from fabric.node.os_disk import OsDisk
from fabric.settings import MIB, Settings
from fabric.wire.messages import Failed, FragmentData, FragmentStored, ReadFragment
from tests.unit.chunk.engine_bench import UUID, delete, item, payload_of
from tests.unit.chunk.test_command import Master, Process
from tests.unit.master.test_command import run_refused

LIVE = range(1, 1500)
DEAD = range(1, 200)
SETTINGS = Settings(reserve_bytes=0, data_file_bytes_max=MIB)


class Server:
    """An engine on the real disk and LevelDB, in a directory that outlives it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.disk = OsDisk(directory / "fragments")
        self.home = LevelDbHome(directory / "index")
        self.engine = Engine(
            self.disk,
            self.home,
            uuid=UUID,
            settings=SETTINGS,
            rng=random.Random(1),
            wall_ms=lambda: 1000,
        )

    def write(self, items: list[StoreItem | DeleteItem]) -> None:
        for first in range(0, len(items), 500):
            done = self.engine.run(WriteBatch(items[first : first + 500]))
            assert all(outcome.error is None for outcome in done.outcomes)  # type: ignore[union-attr]

    def content(self, fid: int) -> bytes | str:
        done = self.engine.run(ReadBatch([ReadItem(None, fid, 0, 100)]))
        assert isinstance(done, ReadDone)
        (result,) = done.results
        return result.error.code if result.error else bytes(result.payload)

    def stop(self) -> None:
        self.engine.close()
        self.disk.close()

    def check(self) -> None:
        """Everything, with its bytes, and nothing that was deleted."""
        for fid in LIVE:
            expected = "NO_FRAGMENT" if fid in DEAD else payload_of(fid)
            assert self.content(fid) == expected, fid
        assert self.engine.status().fragments == len(LIVE) - len(DEAD)


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A directory whose index has tables and a log."""
    server = Server(tmp_path)
    server.write([item(fid) for fid in LIVE])
    server.stop()
    server = Server(tmp_path)
    server.write([delete(fid) for fid in DEAD])
    server.stop()
    assert sorted((tmp_path / "index").glob("*.ldb")) and sorted((tmp_path / "index").glob("*.log"))
    return tmp_path


def flip(path: Path, share: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * share)] ^= 0x40
    path.write_bytes(content)


def largest(directory: Path, pattern: str) -> Path:
    return max(directory.glob(pattern), key=lambda path: path.stat().st_size)


def test_fault_10_an_undamaged_index_is_used_as_it_is(stopped: Path) -> None:
    server = Server(stopped)
    assert server.engine.notes == []
    server.check()
    server.stop()
    assert not (stopped / "index.damaged").exists()


@pytest.mark.parametrize("pattern", ["CURRENT", "MANIFEST-*", "*.ldb"])
def test_fault_10_a_file_of_the_index_is_deleted(stopped: Path, pattern: str) -> None:
    largest(stopped / "index", pattern).unlink()
    server = Server(stopped)
    if "rebuilding" not in " ".join(server.engine.notes):
        server = read_until_condemned(server)
    server.check()
    server.stop()
    assert (stopped / "index.damaged").is_dir()


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
@pytest.mark.parametrize("pattern", ["*.ldb", "*.log"])
def test_fault_10_a_byte_of_a_table_or_log_is_flipped(stopped: Path, pattern: str, share: float) -> None:
    """At the start or when it is first read: never is anything absent, or another thing."""
    flip(largest(stopped / "index", pattern), share)
    server = Server(stopped)
    if "rebuilding" not in " ".join(server.engine.notes):
        server = read_until_condemned(server)
    server.check()
    server.stop()
    # The last bytes of a table are filters and padding: damage there harms nothing.
    assert (stopped / "index.damaged").is_dir() or (pattern, share) == ("*.ldb", 0.99)


def read_until_condemned(server: Server) -> Server:
    """The start has not noticed; reading does.  Returns what the next start makes of it.

    Without an answer but the right ones there was no damage to what is stored.
    """
    for fid in LIVE:
        content = server.content(fid)
        allowed = {"DISK_FAILED", "NO_FRAGMENT" if fid in DEAD else payload_of(fid)}
        assert content in allowed, (fid, content)
    status = server.engine.status()
    if not status.restart_reason:
        return server
    assert "the next start rebuilds the index" in status.restart_reason
    assert status.read_only_reason
    server.stop()
    again = Server(server.directory)
    assert "rebuilding" in " ".join(again.engine.notes)
    return again


def test_fault_10_most_flips_of_a_table_are_noticed_only_when_they_are_read(stopped: Path) -> None:
    """So that the tests above cover both ways."""
    flip(largest(stopped / "index", "*.ldb"), 0.5)
    server = Server(stopped)
    assert server.engine.notes == []
    assert server.engine.status().restart_reason == ""
    server.stop()


def test_fault_10_a_rebuild_that_is_interrupted_begins_again(stopped: Path) -> None:
    (stopped / "index" / "CURRENT").unlink()
    LevelDbHome(stopped / "index").create().close()
    server = Server(stopped)
    server.check()
    server.stop()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], tuple[Master, Process]]]:
    context: zmq.Context[Any] = zmq.Context()
    masters: list[Master] = []
    started: list[Process] = []

    def start() -> tuple[Master, Process]:
        masters.append(Master(context))
        started.append(Process(context, masters[-1], tmp_path / "data"))
        return masters[-1], started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()
    context.destroy(0)


@pytest.mark.e2e
def test_fault_10_a_chunk_server_ends_when_it_meets_damage_and_is_well_after_the_next_start(
    start: Callable[[], tuple[Master, Process]], tmp_path: Path
) -> None:
    for _ in range(2):  # the second start makes a table of what the first has logged
        master, server = start()
        master.make_writable(server)
        for fid in range(1, 301):
            server.store(fid, 100)
        assert all(isinstance(server.receive()[1], FragmentStored) for _ in range(300))  # type: ignore[index]
        assert server.end(signal.SIGTERM)[0] == 0
    flip(largest(tmp_path / "data" / "index", "*.ldb"), 0.4)

    # The start meets the damage, or the reads do, or the scrub that begins by itself.
    _, server = start()
    for fid in range(1, 301):
        server.send(ReadFragment(10_000, 1, fid, 0, 100))
    answers = []
    while len(answers) < 300 and (answer := server.receive(2000)) is not None:
        answers.append(answer[1])
    failed = [answer for answer in answers if not isinstance(answer, FragmentData)]
    assert all(isinstance(answer, Failed) and answer.code == "DISK_FAILED" for answer in failed), failed
    if len(answers) == 300 and not failed:
        server.process.send_signal(signal.SIGTERM)
    _, stderr = server.process.communicate(timeout=30)
    if server.process.returncode == 0:
        assert b"rebuilding it from the data files" in stderr, stderr
    else:
        assert (server.process.returncode, b"rebuilds the index" in stderr) == (1, True), stderr

    _, server = start()
    for fid in range(1, 301):
        message, payload = server.ask(ReadFragment(10_000, 1, fid, 0, 100))
        assert isinstance(message, FragmentData), message
        assert payload == payload_of(fid)
    assert server.end(signal.SIGTERM)[0] == 0


def filled_master_store(directory: Path, *, in_table: bool) -> Path:
    store = open_store(directory)
    for batch in range(20):
        store.write({b"key-%02d-%03d" % (batch, number): b"value" * 20 for number in range(100)})
    if in_table:
        store._database.compact_range()
    store.close()
    return directory / DIRECTORY


@pytest.mark.e2e
@pytest.mark.parametrize("damage", ["CURRENT deleted", "a table flipped", "a log flipped"])
def test_fault_10_a_damaged_master_store_refuses_with_a_clear_message(tmp_path: Path, damage: str) -> None:
    directory = filled_master_store(tmp_path, in_table="table" in damage)
    if "CURRENT" in damage:
        (directory / "CURRENT").unlink()
    else:
        flip(largest(directory, "*.ldb" if "table" in damage else "*.log"), 0.5)
    before = sizes(directory)

    status, text = run_refused(tmp_path)

    assert status == 1
    assert "damaged" in text and str(tmp_path) in text.replace("\n", "")
    assert "Traceback" not in text
    assert before.items() <= sizes(directory).items(), "refusing must not delete anything"


def sizes(directory: Path) -> dict[str, int]:
    """Of all files that hold something of the store."""
    files = [*directory.glob("*.ldb"), *directory.glob("*.log")]
    return {path.name: size for path in files if (size := path.stat().st_size)}
