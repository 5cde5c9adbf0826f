"""``fabric admin scrub|compact|check-disk|io-status|kill-pending|details``."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest

from fabric.cli import admin_servers, server_work
from fabric.wire.messages import ChunkDetails, DiskCheck
from tests.unit.cli.peers import AT_REST, CLUSTER, IDLE, Peers, details, endpoint, peers, rows_of, run

__all__ = ["peers"]

WELL = DiskCheck(checked_at_ms=1_700_000_000_000, bytes=2**20, write_us=500, sync_us=4_000, read_us=1_000)


def scrubbing(number: int, *, quarantined: int = 0, incarnation: int = 77, **changes: Any) -> ChunkDetails:
    scrub = msgspec.structs.replace(IDLE, **changes)
    return details(number, scrub=scrub, quarantined=quarantined, incarnation=incarnation)


def compacting(number: int, **changes: Any) -> ChunkDetails:
    return details(number, compaction=msgspec.structs.replace(AT_REST, **changes))


# --- who is asked ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "action"),
    [
        (("scrub", "start"), "scrub"),
        (("scrub", "status"), "status"),
        (("compact",), "compact"),
        (("check-disk",), "check-disk"),
        (("io-status",), "status"),
    ],
)
def test_all_servers_are_asked_or_those_that_are_named(
    peers: Peers, arguments: tuple[str, ...], action: str
) -> None:
    assert run(*arguments).exit_code == 0
    assert sorted(peers.orders) == [(f"chunk-{number}", action) for number in range(1, 6)]
    peers.orders.clear()
    assert run(*arguments, "chunk-4", "chunk-2").exit_code == 0
    assert sorted(peers.orders) == [("chunk-2", action), ("chunk-4", action)]


@pytest.mark.parametrize("arguments", [("compact",), ("kill-pending", "--yes"), ("details",)])
def test_an_unknown_server_is_an_error_and_nobody_is_asked(peers: Peers, arguments: tuple[str, ...]) -> None:
    result = run(*arguments, "chunk-9")
    assert result.exit_code == 1
    assert "no chunk server 'chunk-9'; known: chunk-1, chunk-2" in result.output
    assert peers.orders == []


def test_a_server_that_does_not_answer_is_a_row_with_the_reason(peers: Peers) -> None:
    peers.silent = {endpoint(2)}
    result = run("io-status")
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert any("chunk-2" in line and "no answer from tcp://127.0.0.1:7411" in line for line in lines)
    assert any("chunk-5" in line for line in lines)
    shown = json.loads(run("io-status", "--json").output)
    assert [entry["server"] for entry in shown] == [node.server for node in CLUSTER.nodes]
    assert "no answer" in shown[1]["error"]
    assert (shown[0]["error"], shown[0]["reads"]) == ("", 0)


def test_dead_servers_are_asked_at_the_same_time(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    peers.silent = {endpoint(number) for number in range(1, 6)}
    answer = peers._answer

    def slow(to: str, message: Any) -> Any:
        if to != peers.master:
            time.sleep(0.2)
        return answer(to, message)

    monkeypatch.setattr(peers, "_answer", slow)
    before = time.monotonic()
    assert run("io-status").exit_code == 1
    assert time.monotonic() - before < 0.8, "one after the other it takes 1 s"


# --- scrub and compaction --------------------------------------------------------------------------


def test_a_scrub_of_several_servers_is_waited_for(peers: Peers) -> None:
    peers.chunks[endpoint(1)] = [
        scrubbing(1, ordered=True),
        scrubbing(1, running=True, progress=0.5),
        scrubbing(1, passes=4),
    ]
    peers.chunks[endpoint(2)] = [scrubbing(2, ordered=True), scrubbing(2, passes=4, damaged=1)]
    result = run("scrub", "start", "chunk-1", "chunk-2", "--wait", "--json")
    assert result.exit_code == 0, result.output
    assert [entry["scrub"]["passes"] for entry in json.loads(result.output)] == [4, 4]
    assert peers.order_of("chunk-1") == ["scrub", "status", "status"]
    assert peers.order_of("chunk-2") == ["scrub", "status"], "who is done is left in peace"


def test_damage_that_stays_is_status_1_and_repairs_are_waited_for(
    peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    peers.chunks[endpoint(1)] = [scrubbing(1, ordered=True), scrubbing(1, passes=4, quarantined=2)]
    result = run("scrub", "start", "chunk-1", "--wait")
    assert result.exit_code == 1
    assert [row[-1] for row in rows_of(result) if row[:1] == ["chunk-1"]] == ["2"]

    monkeypatch.setattr(admin_servers, "REPAIR_S", 60.0)
    peers.chunks[endpoint(1)] = [
        scrubbing(1, ordered=True),
        *[scrubbing(1, passes=4, quarantined=count) for count in (2, 1, 0)],
    ]
    assert run("scrub", "start", "chunk-1", "--wait").exit_code == 0


def test_damage_of_before_is_no_failure_of_an_order_that_is_not_waited_for(peers: Peers) -> None:
    peers.chunks[endpoint(1)] = [scrubbing(1, ordered=True, quarantined=1)]
    assert run("scrub", "start", "chunk-1").exit_code == 0
    assert run("scrub", "status", "chunk-1").exit_code == 0


def test_a_compaction_that_is_given_up_is_status_1(peers: Peers) -> None:
    peers.chunks[endpoint(1)] = [
        compacting(1, ordered=True),
        compacting(1, ordered=True, running=True, progress=0.3, files=[2]),
        compacting(1, problem="no space left"),
    ]
    result = run("compact", "chunk-1", "chunk-2", "--wait")
    assert result.exit_code == 1
    assert "given up: no space left" in result.output


def test_a_server_that_was_restarted_has_forgotten_the_order(peers: Peers) -> None:
    peers.chunks[endpoint(1)] = [scrubbing(1, ordered=True), scrubbing(1, incarnation=78)]
    result = run("scrub", "start", "chunk-1", "--wait")
    assert result.exit_code == 1
    assert "it was restarted meanwhile: ask it again" in result.output


def test_a_server_that_is_silent_for_a_while_is_waited_for_and_then_given_up(
    peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = peers._answer
    looks = 0

    def sometimes(to: str, message: Any) -> Any:
        nonlocal looks
        looks += to == endpoint(1)
        peers.silent = {endpoint(1)} if 2 <= looks <= 5 else set()
        return answer(to, message)

    monkeypatch.setattr(peers, "_answer", sometimes)
    peers.chunks[endpoint(1)] = [scrubbing(1, ordered=True), scrubbing(1, passes=4)]
    assert run("scrub", "start", "chunk-1", "--wait").exit_code == 0

    looks = 0
    monkeypatch.setattr(server_work, "PATIENCE_S", 0.0)
    peers.chunks[endpoint(1)] = [scrubbing(1, ordered=True), scrubbing(1, passes=4)]
    result = run("scrub", "start", "chunk-1", "--wait")
    assert result.exit_code == 1
    assert "no answer from tcp://127.0.0.1:7410" in result.output


# --- disks -----------------------------------------------------------------------------------------


def test_a_disk_is_checked_to_its_end(peers: Peers) -> None:
    checking = details(1, disk=DiskCheck(running=True))
    peers.chunks[endpoint(1)] = [checking, checking, details(1, disk=WELL)]
    result = run("check-disk", "chunk-1")
    assert result.exit_code == 0, result.output
    assert peers.order_of("chunk-1") == ["check-disk", "status", "status"]
    for text in ("all is well", "0.5 ms, 2.0 GiB/s", "4.0 ms, 250.0 MiB/s", "1.0 ms, 1000.0 MiB/s"):
        assert text in result.output
    assert json.loads(run("check-disk", "chunk-1", "--json").output)[0]["disk"]["sync_us"] == 4_000


def test_a_disk_that_fails_is_status_1(peers: Peers) -> None:
    peers.chunks[endpoint(1)] = [details(1, disk=DiskCheck(checked_at_ms=1, problem="fdatasync: I/O error"))]
    result = run("check-disk", "chunk-1", "chunk-2")
    assert result.exit_code == 1
    assert "fdatasync: I/O error" in result.output


def test_a_disk_that_hangs_is_status_1_in_time(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_servers, "CHECK_S_MAX", 0.05)
    peers.chunks[endpoint(1)] = [details(1, disk=DiskCheck(running=True))]
    result = run("check-disk", "chunk-1")
    assert result.exit_code == 1
    assert "its disk has not finished the check within 0.05 s" in result.output


# --- reads and writes ------------------------------------------------------------------------------


def busy(number: int, **changes: Any) -> ChunkDetails:
    fields = {"reads": 100, "read_bytes": 2**20, "writes": 50, "written_bytes": 2**21, **changes}
    return details(number, **fields)


def test_what_servers_read_wrote_and_have_waiting(peers: Peers) -> None:
    peers.chunks[endpoint(1)] = [
        busy(1, pending_reads=3, pending_writes=4, pending_bytes=2**22, oldest_write_ms=1500)
    ]
    row = next(row for row in rows_of(run("io-status", "chunk-1")) if row[:1] == ["chunk-1"])
    assert " ".join(row[1:]) == "100 1.0 MiB 50 2.0 MiB 3 4 4.0 MiB 1.5 s"


def test_watching_shows_rates_and_not_those_of_a_restart(peers: Peers) -> None:
    peers.chunks[endpoint(1)] = [
        busy(1),
        busy(1, reads=160, written_bytes=2**21 + 2**20),
        busy(1, incarnation=5),
    ]
    result = run("io-status", "chunk-1", "--watch", "--rounds", "3", "--interval-s", "0.1")
    assert result.exit_code == 0, result.output
    totals, rates, restarted = (row for row in rows_of(result) if row[:1] == ["chunk-1"])
    assert totals[1:3] == ["100", "1.0"]
    assert 60 <= int(rates[1]) <= 600, "60 reads in 0.1 s or a little more"
    assert rates[4:6] == ["0", f"{float(rates[5]):.1f}"] and float(rates[5]) <= 10.0
    assert restarted[1:6] == ["0", "0", "B", "0", "0"]


def test_watching_as_json_is_a_line_a_round(peers: Peers) -> None:
    result = run("io-status", "--watch", "--rounds", "2", "--interval-s", "0.1", "--json")
    assert [len(json.loads(line)) for line in result.output.splitlines()] == [5, 5]


def test_waiting_writes_are_ended_after_a_yes(peers: Peers) -> None:
    assert run("kill-pending", "chunk-1", answer="n\n").exit_code == 1
    assert peers.orders == []
    peers.chunks[endpoint(1)] = [details(1, killed=12)]
    result = run("kill-pending", "chunk-1", answer="y\n")
    assert result.exit_code == 0
    assert peers.orders == [("chunk-1", "kill-pending")]
    assert next(row for row in rows_of(result) if row[:1] == ["chunk-1"])[1] == "12"
    assert json.loads(run("kill-pending", "chunk-1", "--yes", "--json").output)[0]["killed"] == 12


def test_all_that_one_server_tells(peers: Peers) -> None:
    peers.chunks[endpoint(1)] = [
        busy(1, disk=WELL, pending_writes=2, pending_bytes=2048, oldest_write_ms=250, group=1)
    ]
    text = run("details", "chunk-1").output
    assert "50 fragments, 2.0 MiB; 2 wait, 2.0 KiB, the oldest for 0.2 s" in text
    assert "100 fragments, 1.0 MiB; 0 wait" in text
    assert "all is well; write 0.5 ms, 2.0 GiB/s, sync 4.0 ms, 250.0 MiB/s, read 1.0 ms" in text
    assert json.loads(run("details", "chunk-1", "--json").output)["writes"] == 50


@pytest.mark.parametrize(
    ("disk", "text"),
    [
        (DiskCheck(), "none since the start"),
        (DiskCheck(running=True), "under way"),
        (DiskCheck(checked_at_ms=1_700_000_000_000, problem="cannot sync"), ": cannot sync"),
    ],
)
def test_the_state_of_the_disk_check(peers: Peers, disk: DiskCheck, text: str) -> None:
    peers.chunks[endpoint(1)] = [details(1, disk=disk)]
    assert text in run("details", "chunk-1").output


def test_a_dead_server_has_no_details(peers: Peers) -> None:
    peers.silent = {endpoint(1)}
    result = run("details", "chunk-1")
    assert result.exit_code == 1
    assert result.output.startswith("Error: chunk-1: no answer")
