"""Benchmark of healing: how the calls of clients are picked and summed up."""

from __future__ import annotations

import pytest

from bench.healing.traffic import Call, Traffic, failed, longest_s, p99_s

CALLS = [
    Call("put", 0.0, 1.0, ""),
    Call("put", 2.0, 4.0, ""),
    Call("put", 3.0, 0.5, "BUSY: no"),
    Call("get", 2.5, 0.1, ""),
    Call("put", 9.0, 0.2, ""),
]


@pytest.fixture
def traffic() -> Traffic:
    traffic = Traffic("tcp://127.0.0.1:1", [])
    traffic._calls = list(CALLS)
    return traffic


def test_a_call_counts_when_it_overlaps_the_time(traffic: Traffic) -> None:
    """One that began before the fault and ended after it was stalled by it."""
    assert traffic.calls("put", 1.5, 5.0) == [CALLS[1], CALLS[2]]
    assert traffic.calls("put", 5.5) == [CALLS[1], CALLS[4]]
    assert traffic.calls("get", 0.0) == [CALLS[3]]
    assert traffic.calls("get", 3.0) == []


def test_failures_and_the_longest_call_are_found() -> None:
    assert failed(CALLS) == [CALLS[2]]
    assert longest_s(CALLS) == 4.0
    assert longest_s([]) == 0.0
    assert p99_s(CALLS) == 4.0
