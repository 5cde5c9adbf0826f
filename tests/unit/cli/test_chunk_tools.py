"""``fabric chunk check|rebuild-index|dump`` on directories that a real engine has made."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from pathlib import Path
from typing import Any

import plyvel
import pytest
from click.testing import CliRunner, Result

from fabric.chunk.engine import Engine
from fabric.chunk.index import encode_key
from fabric.chunk.jobs import WriteBatch, WriteDone
from fabric.chunk.leveldb_index import LevelDbHome
from fabric.chunk.record import Superblock, encode_superblock
from fabric.cli.chunk import start_progress
from fabric.cli.root import fabric
from fabric.node.os_disk import OsDisk
from tests.unit.chunk.engine_bench import SMALL, UUID, delete, item

FIDS = (5, 6, 7)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(fabric, ["chunk", *map(str, arguments)])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Fragments 5, 6 and 7, and 7 deleted."""
    directory = tmp_path / "chunk"
    disk = OsDisk(directory / "fragments")
    identity = {"format": 1, "name": "chunk-1", "uuid": UUID.hex()}
    (directory / "server.json").write_text(json.dumps(identity))
    home = LevelDbHome(directory / "index")
    engine = Engine(disk, home, uuid=UUID, settings=SMALL, rng=random.Random(1), wall_ms=lambda: 1000)
    for write in (*map(item, FIDS), delete(7)):
        done = engine.run(WriteBatch([write]))
        assert isinstance(done, WriteDone)
        assert done.outcomes[0].error is None
    engine.close()
    disk.close()
    return directory


def data_file(data: Path) -> Path:
    return data / "fragments" / "00000001.data"


def records(data: Path) -> list[dict[str, Any]]:
    result = run("dump", data_file(data), "--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def flip(data: Path, fid: int, behind_header: int) -> None:
    (offset,) = [row["offset"] for row in records(data) if row.get("fid") == fid]
    content = bytearray(data_file(data).read_bytes())
    content[offset + behind_header] ^= 4
    data_file(data).write_bytes(content)


def content_of(data: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(data.rglob("*")) if path.is_file()}


def test_a_clean_directory_is_well_and_stays_as_it_is(data: Path) -> None:
    before = content_of(data)
    result = run("check", data)
    assert result.exit_code == 0, result.output
    assert "4 records; the index has 2 fragments (200 bytes) and 1 tombstones" in result.stdout
    assert "all is well" in result.stdout
    assert content_of(data) == before


@pytest.mark.parametrize(
    ("place", "text"), [(80, "fragment 6: payload at"), (20, "fragment 6: the index points at")]
)
def test_a_flipped_bit_is_damage_and_nothing_is_changed(data: Path, place: int, text: str) -> None:
    flip(data, 6, place)
    before = content_of(data)
    result = run("check", data)
    assert result.exit_code == 1
    assert text in result.stdout
    assert "fragment 5" not in result.stdout
    assert content_of(data) == before


def test_a_damaged_record_of_a_deleted_fragment_is_no_damage(data: Path) -> None:
    offset = next(row["offset"] for row in records(data) if row.get("fid") == 7)
    content = bytearray(data_file(data).read_bytes())
    content[offset + 80] ^= 1
    data_file(data).write_bytes(content)
    result = run("check", data)
    assert result.exit_code == 0, result.output
    assert "note: fragment 7" in result.stdout


@pytest.mark.parametrize(("fid", "kind"), [(6, "record"), (7, "record")])
def test_a_missing_index_entry_is_found_and_rebuilt(data: Path, fid: int, kind: str) -> None:
    index = plyvel.DB(str(data / "index"), compression=None)
    index.delete(encode_key(fid))
    index.close()
    result = run("check", data)
    assert result.exit_code == 1
    assert f"fragment {fid}: its {kind} at" in result.stdout

    rebuilt = run("rebuild-index", data)
    assert rebuilt.exit_code == 0, rebuilt.output
    assert "the new index has 2 fragments (200 bytes), 0 of them damaged, and 1 tombstones" in rebuilt.stdout
    assert (data / "index.damaged").is_dir()
    assert run("check", data).exit_code == 0


def test_an_index_without_current_is_damage_until_it_is_rebuilt(data: Path) -> None:
    (data / "index" / "CURRENT").unlink()
    result = run("check", data)
    assert result.exit_code == 1
    assert f"there is no index in {data / 'index'}" in result.stdout
    assert run("rebuild-index", data).exit_code == 0
    assert run("check", data).exit_code == 0


def test_rebuilding_keeps_a_rotten_last_fragment_known(data: Path) -> None:
    disk = OsDisk(data / "fragments")
    home = LevelDbHome(data / "index")
    engine = Engine(disk, home, uuid=UUID, settings=SMALL, rng=random.Random(2), wall_ms=lambda: 1000)
    engine.run(WriteBatch([item(8)]))
    engine.close()
    disk.close()
    flip(data, 8, 80)
    result = run("rebuild-index", data)
    assert "3 fragments (300 bytes), 1 of them damaged" in result.stdout


def test_a_dump_shows_records_tombstones_and_gaps(data: Path, tmp_path: Path) -> None:
    flip(data, 5, 80)
    flip(data, 6, 20)
    alone = tmp_path / "alone"
    alone.write_bytes(data_file(data).read_bytes())
    result = run("dump", alone)
    assert result.exit_code == 0, result.output
    assert f"data file 1 of server {UUID.hex()}" in result.stdout
    states = [line.split()[-1] for line in result.stdout.splitlines() if line.strip()[:1].isdigit()]
    assert states == ["bad", "gap", "ok", "ok"]
    rows = records(data)
    assert [row["kind"] for row in rows] == ["superblock", "record", "gap", "record", "record"]
    assert [(row["fid"], row["tombstone"]) for row in rows[3:]] == [(7, False), (7, True)]


def test_a_dump_of_what_compaction_writes_and_of_what_was_put_aside(data: Path, tmp_path: Path) -> None:
    content = bytearray(data_file(data).read_bytes())
    unfinished = tmp_path / "00000002.data.new"
    unfinished.write_bytes(content)
    assert "data file 1 of server" in run("dump", unfinished).stdout

    content[9] ^= 1
    content[2048 + 20] ^= 1
    aside = tmp_path / "00000001.data.damaged"
    aside.write_bytes(content)
    result = run("dump", aside)
    assert "the superblock is damaged" in result.stdout
    assert [line.split()[-1] for line in result.stdout.splitlines()[2:]] == ["ok"] * 4
    lines = [json.loads(line) for line in run("dump", aside, "--json").stdout.splitlines()]
    assert lines[0] == {"kind": "superblock", "good": False}
    assert lines[1:] == records(data)[1:]

    content[32] ^= 1
    aside.write_bytes(content)
    assert len(run("dump", aside).stdout.splitlines()) == 6, "the other copy has the salt"
    content[2048 + 32] ^= 1
    aside.write_bytes(content)
    assert "the salt that tells records" in run("dump", aside).stderr


def test_what_lies_behind_the_last_record_is_a_gap(data: Path) -> None:
    end = max(row["offset"] for row in records(data)[1:]) + 72
    content = bytearray(data_file(data).read_bytes())
    content[end : end + 60] = b"x" * 60
    data_file(data).write_bytes(content)
    assert records(data)[-1] == {"kind": "gap", "offset": end, "end": end + 60}
    result = run("check", data)
    assert result.exit_code == 0, result.output
    assert "an unfinished write; the next start cuts it off" in result.stdout


def test_newer_and_foreign_files_are_refused(data: Path) -> None:
    sound = data_file(data).read_bytes()
    for superblock, text in (
        (Superblock(UUID, 1, 5, 0, version=2), "use the program that wrote it, or a newer one"),
        (Superblock(UUID, 1, 5, 0, kind=2), "use a newer one"),
        (Superblock(bytes(16), 1, 5, 0), "belongs to server 00000000"),
    ):
        data_file(data).write_bytes(encode_superblock(superblock) + sound[4096:])
        for tool in ("check", "rebuild-index"):
            result = run(tool, data)
            assert (result.exit_code, text in result.stderr) == (1, True), result.output
            assert "damage" not in result.stdout
        dumped = run("dump", data_file(data))
        assert dumped.exit_code == (0 if superblock.uuid != UUID else 1)
    assert (data / "index" / "CURRENT").exists()


def test_a_check_for_programs(data: Path) -> None:
    flip(data, 6, 80)
    (data / "fragments" / "00000009.data.new").write_bytes(b"")
    result = run("check", data, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert (found["files"], found["records"], found["fragments"], found["tombstones"]) == (1, 4, 2, 1)
    assert len(found["damage"]) == 1
    assert found["notes"] == ["00000009.data.new: compaction had not finished; the next start removes it"]


def test_the_copy_of_the_index_must_fit_and_is_removed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    seen: list[str] = []
    real = shutil.copytree
    monkeypatch.setattr("shutil.copytree", lambda *paths: seen.append(str(paths[1])) or real(*paths))
    assert run("check", data).exit_code == 0
    assert [str(temporary) in path for path in seen] == [True]
    assert list(temporary.iterdir()) == []

    usage = shutil.disk_usage(temporary)._replace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    result = run("check", data)
    assert result.exit_code == 1
    assert f"{temporary} has room for 1000 B: set TMPDIR" in result.stderr
    assert (len(seen), list(temporary.iterdir())) == (1, [])


def test_a_condemned_index_is_damage_until_it_is_rebuilt(data: Path) -> None:
    LevelDbHome(data / "index").condemn()
    result = run("check", data)
    assert (result.exit_code, f"the index in {data / 'index'} was found damaged" in result.stdout) == (
        1,
        True,
    )
    assert run("rebuild-index", data).exit_code == 0
    assert run("check", data).exit_code == 0


def test_a_start_on_a_terminal_shows_a_bar_and_else_some_lines(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fabric")
    now = [0.0]

    def read() -> None:
        with start_progress(lambda: now[0]) as on_bytes:
            for second in range(14):
                now[0] += 1
                on_bytes((second + 1) << 20, 14 << 20)

    read()
    assert [record.getMessage() for record in caplog.records] == [
        "reading data files: 5 of 14 MiB, 35 %",
        "reading data files: 10 of 14 MiB, 71 %",
    ]
    shown: list[float] = []
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("fabric.cli.output.share_bar", lambda title: contextlib.nullcontext(shown.append))
    read()
    assert shown == [done / 14 for done in range(2, 15)]
    assert len(caplog.records) == 2


def test_a_running_server_is_left_alone(data: Path) -> None:
    disk = OsDisk(data / "fragments")
    for tool in ("check", "rebuild-index"):
        result = run(tool, data)
        assert result.exit_code == 1
        assert "in use by another process" in result.stderr
    disk.close()
    assert not (data / "index.damaged").exists()


def test_wrong_files_get_a_sentence(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("hello")
    assert "is not a data file" in run("dump", wrong).stderr
    assert "No such file" in run("dump", tmp_path / "absent").stderr
    for tool in ("check", "rebuild-index"):
        result = run(tool, tmp_path)
        assert (result.exit_code, "not a chunk server's data directory" in result.stderr) == (1, True)


def test_the_server_and_its_tools_are_in_the_help() -> None:
    result = run("--help")
    assert "rebuild-index" in result.stdout
    assert "--advertise" in result.stdout
    assert "Usage: fabric chunk check [OPTIONS] DIR" in run("check", "--help").stdout
    assert "Missing option '--name'" in run().stderr
