"""``fabric put`` and its kin over a storage in memory."""

from __future__ import annotations

import json
import os
import stat as stat_module
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from click.testing import CliRunner, Result

import fabric.driver.storage
from fabric.cli.files import write_whole
from fabric.cli.root import fabric as command
from fabric.errors import NoGoodCopy, NotFound
from fabric.wire.messages import Listing, ObjectInfo


class MemoryStorage:
    """What the commands use of ``Storage``."""

    objects: dict[str, bytes] = {}
    broken_after: int | None = None
    """Reading fails behind so many pieces."""
    asked_proxy = ""

    def __init__(self, proxy: str) -> None:
        MemoryStorage.asked_proxy = proxy

    def __enter__(self) -> MemoryStorage:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def stat(self, path: str) -> ObjectInfo:
        if path not in self.objects:
            raise NotFound(f"no object at {path!r}")
        return ObjectInfo(path, len(self.objects[path]), 1, 1, "sha256:00", 0, {"colour": "red"}, True)

    def get_size(self, path: str) -> int:
        return self.stat(path).size

    def stream_write(self, path: str, file: BinaryIO) -> ObjectInfo:
        self.objects[path] = b"".join(iter(lambda: file.read(3), b""))
        return self.stat(path)

    def stream_read(self, path: str) -> Iterator[bytes]:
        content = self.objects[path]
        for number, start in enumerate(range(0, len(content), 4)):
            if number == self.broken_after:
                raise NoGoodCopy("no good copy of fragment 7 on chunk-1, chunk-2")
            yield content[start : start + 4]

    def list_page(self, prefix: str = "", delimiter: str = "", after: str = "", limit: int = 1000) -> Listing:
        names: dict[str, bool] = {}
        for path in sorted(self.objects):
            if path.startswith(prefix):
                head, found, _ = path[len(prefix) :].partition(delimiter or "\0")
                names[prefix + head + found if found else path] = bool(found)
        entries = [(name, folded) for name, folded in names.items() if name > after][: min(limit, 2)]
        last = entries[-1][0] if entries else ""
        more = any(name > last for name in names) if entries else False
        return Listing(
            [self.stat(name) for name, folded in entries if not folded],
            [name for name, folded in entries if folded],
            last if more else "",
        )

    def move(self, source: str, target: str) -> ObjectInfo:
        self.stat(source)
        self.objects[target] = self.objects.pop(source)
        return self.stat(target)

    def remove(self, path: str) -> None:
        doomed = [name for name in self.objects if name == path or name.startswith(f"{path}/")]
        if not doomed:
            raise NotFound(f"nothing at {path!r}")
        for name in doomed:
            del self.objects[name]


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    monkeypatch.setattr(fabric.driver.storage, "Storage", MemoryStorage)
    monkeypatch.setattr(MemoryStorage, "broken_after", None)
    monkeypatch.setattr(MemoryStorage, "objects", {})
    return MemoryStorage.objects


def run(*arguments: str, stdin: Any = None) -> Result:
    return CliRunner().invoke(command, list(arguments), input=stdin)


def test_a_file_goes_in_and_comes_out(objects: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"0123456789")

    assert run("put", "a/b", str(tmp_path / "in"), "--proxy", "127.0.0.1:9").exit_code == 0
    assert objects == {"a/b": b"0123456789"}
    assert MemoryStorage.asked_proxy == "tcp://127.0.0.1:9"
    assert run("get", "a/b", str(tmp_path / "out")).exit_code == 0
    assert (tmp_path / "out").read_bytes() == b"0123456789"


def test_a_dash_is_standard_input_and_output(objects: dict[str, bytes]) -> None:
    assert run("put", "a", "-", stdin=b"\x00\xffbytes").exit_code == 0
    assert objects == {"a": b"\x00\xffbytes"}
    assert run("get", "a", "-").stdout_bytes == b"\x00\xffbytes"


def test_nothing_but_the_bytes_goes_to_standard_output(objects: dict[str, bytes]) -> None:
    objects["empty"] = b""
    assert run("get", "empty", "-").stdout_bytes == b""


def test_put_as_json_says_what_was_stored(objects: dict[str, bytes]) -> None:
    shown = json.loads(run("put", "a", "-", "--json", stdin=b"12345").output)
    assert (shown["path"], shown["size"], shown["attributes"]) == ("a", 5, {"colour": "red"})


def test_a_failed_get_leaves_the_file_as_it_was(
    objects: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects["a"] = b"0123456789"
    monkeypatch.setattr(MemoryStorage, "broken_after", 2)
    target = tmp_path / "out"
    target.write_text("before")

    result = run("get", "a", str(target))

    assert result.exit_code == 1
    assert "chunk-1, chunk-2" in result.output
    assert target.read_text() == "before"
    assert os.listdir(tmp_path) == ["out"]


def test_a_failed_get_makes_no_file(objects: dict[str, bytes], tmp_path: Path) -> None:
    result = run("get", "missing", str(tmp_path / "out"))

    assert (result.exit_code, result.output) == (1, "Error: no object at 'missing'\n")
    assert os.listdir(tmp_path) == []


def test_get_goes_through_a_link_and_into_a_pipe(objects: dict[str, bytes], tmp_path: Path) -> None:
    objects["a"] = b"0123456789"
    (tmp_path / "real").write_text("before")
    (tmp_path / "link").symlink_to("real")
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert run("get", "a", str(tmp_path / "link")).exit_code == 0
        assert run("get", "a", str(tmp_path / "pipe")).exit_code == 0
        assert os.read(reader, 100) == b"0123456789"
    finally:
        os.close(reader)

    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"0123456789"
    assert stat_module.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_file_that_is_not_there_is_one_line(objects: dict[str, bytes], tmp_path: Path) -> None:
    result = run("put", "a", str(tmp_path / "missing"))

    assert result.exit_code == 1
    assert result.output == f"Error: {tmp_path}/missing: No such file or directory\n"
    assert objects == {}


def test_stat_for_people_and_for_programs(objects: dict[str, bytes]) -> None:
    objects["a"] = b"x" * 2048

    assert "2048 B (2.0 KiB)" in run("stat", "a").output
    assert "red" in run("stat", "a").output
    assert json.loads(run("stat", "a", "--json").output)["size"] == 2048
    assert run("stat", "b").exit_code == 1


def test_ls_walks_all_pages(objects: dict[str, bytes]) -> None:
    objects.update(dict.fromkeys(("a/1", "a/2", "a/3", "b", "c/1", "c/2"), b"1"))

    assert run("ls").output.splitlines() == ["a/1", "a/2", "a/3", "b", "c/1", "c/2"]
    assert run("ls", "a/").output.splitlines() == ["a/1", "a/2", "a/3"]
    assert run("ls", "--fold").output.splitlines() == ["a/", "b", "c/"]
    assert run("ls", "nothing").output == ""
    assert run("ls", "-l", "b").output.split()[-2:] == ["1", "B"]
    shown = json.loads(run("ls", "--fold", "--json").output)
    assert [entry["path"] for entry in shown["objects"]] == ["b"]
    assert shown["prefixes"] == ["a/", "c/"]


def test_mv_and_rm(objects: dict[str, bytes]) -> None:
    objects.update({"a": b"1", "d/1": b"2", "d/2": b"3"})

    assert run("mv", "a", "b").exit_code == 0
    assert run("mv", "a", "b").exit_code == 1
    assert run("rm", "b").exit_code == 0
    assert run("rm", "b").exit_code == 1
    assert run("rm", "-f", "b").exit_code == 0
    assert list(objects) == ["d/1", "d/2"]


def test_rm_removes_what_is_under_a_path_only_when_told(objects: dict[str, bytes]) -> None:
    objects.update({"d": b"0", "d/1": b"1", "dd": b"2"})
    result = run("rm", "d")

    assert result.exit_code == 1
    assert "-r removes them" in result.output
    assert len(objects) == 3
    assert run("rm", "-r", "d").exit_code == 0
    assert list(objects) == ["dd"]


@pytest.mark.parametrize(
    "arguments", [("put", "a"), ("get",), ("rm",), ("mv", "a"), ("stat", "a", "--proxy", "x")]
)
def test_wrong_usage_is_status_2(objects: dict[str, bytes], arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


def test_write_whole_gives_ordinary_rights_and_counts(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        assert write_whole(tmp_path / "a", [b"12", memoryview(b"345")]) == 5
    finally:
        os.umask(before)
    assert stat_module.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    assert (tmp_path / "a").read_bytes() == b"12345"
