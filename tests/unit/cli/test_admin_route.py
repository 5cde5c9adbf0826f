"""``fabric admin route``."""

from __future__ import annotations

import json

from fabric.errors import NotFound
from fabric.wire.messages import (
    FragmentRef,
    Fragments,
    ListFragments,
    Message,
    ObjectInfo,
    Open,
    Opened,
    Request,
)
from tests.unit.cli.peers import Peers, peers, rows_of, run

__all__ = ["peers"]

MIB = 2**20
INFO = ObjectInfo("a/b", 10 * MIB, 3, 77, "", 0, {}, False)
FIRST = [FragmentRef(1, 500, 4 * MIB, 0xAB), FragmentRef(2, 501, 4 * MIB, 0xCD)]
LAST = [FragmentRef(1, 900, 2 * MIB, 0xEF)]


def scripted(peers: Peers) -> None:
    peers.answers = [Opened(INFO, 0, FIRST, True), Fragments(8 * MIB, LAST, False)]


def test_groups_and_servers_of_an_object(peers: Peers) -> None:
    scripted(peers)
    result = run("route", "a/b")
    assert result.exit_code == 0, result.output
    assert peers.asked == [Open(0, "a/b", 0), ListFragments(0, 77, 8 * MIB)]
    rows = rows_of(result)
    assert ["1", "WRITABLE", "chunk-1", "RW,", "chunk-2", "RW", "2", "6.0", "MiB"] in rows
    assert ["2", "WRITABLE", "chunk-3", "RW,", "chunk-4", "RW", "1", "4.0", "MiB"] in rows
    assert not any("500" in row for row in rows)


def test_every_fragment_by_its_place(peers: Peers) -> None:
    scripted(peers)
    rows = rows_of(run("route", "a/b", "--fragments"))
    assert [str(8 * MIB), str(2 * MIB), "1", "900", "00000000000000ef"] in rows
    scripted(peers)
    shown = json.loads(run("route", "a/b", "--json").output)
    assert [fragment["fid"] for fragment in shown["fragments"]] == [500, 501, 900]
    assert [group["group"] for group in shown["groups"]] == [1, 2]
    assert shown["info"]["size"] == 10 * MIB


def test_no_such_object_is_status_1(peers: Peers) -> None:
    def refuse(to: str, message: Request) -> Message:
        raise NotFound("no object at 'a/c'")

    peers._answer = refuse  # type: ignore[method-assign]
    result = run("route", "a/c")
    assert (result.exit_code, result.output) == (1, "Error: no object at 'a/c'\n")
