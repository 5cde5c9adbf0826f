"""``fabric chunk check|rebuild-index|dump`` on directories that a real engine has made."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import plyvel
import pytest
from click.testing import CliRunner, Result

from fabric.chunk.engine import Engine
from fabric.chunk.index import encode_key
from fabric.chunk.jobs import WriteBatch, WriteDone
from fabric.chunk.leveldb_index import LevelDbHome
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
    assert "the new index has 2 fragments (200 bytes), 0 of them damaged" in rebuilt.stdout
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
