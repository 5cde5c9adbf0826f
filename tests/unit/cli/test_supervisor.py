"""The supervisor over real child processes that run a line of Python instead of a role."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fabric.cli import supervisor as module
from fabric.cli.supervisor import Backoff, Child, Supervisor, tail

FOREVER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + FOREVER


def test_the_first_restart_is_immediate_and_later_ones_ever_slower() -> None:
    backoff = Backoff()
    assert [backoff.delay_s(0.1) for _ in range(8)] == [0.0, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_a_long_life_makes_the_next_restart_immediate_again() -> None:
    backoff = Backoff()
    for _ in range(100):
        backoff.delay_s(0.1)
    assert backoff.delay_s(9.9) == 5.0
    assert backoff.delay_s(10.0) == 0.0
    assert backoff.delay_s(0.1) == 0.2


def test_the_tail_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    assert tail(log, 3) == []
    log.write_text("".join(f"line {number}\n" for number in range(10_000)))
    assert tail(log, 2) == ["line 9998", "line 9999"]


class Yard:
    """A supervisor and what it has told so far."""

    def __init__(self, children: list[Child], logs: Path) -> None:
        self.pids: list[dict[str, int]] = []
        self.reports: list[str] = []
        self._news = asyncio.Event()
        self.supervisor = Supervisor(children, logs, on_change=self._changed, report=self._reported)

    def _changed(self, pids: dict[str, int]) -> None:
        self.pids.append(pids)
        self._news.set()

    def _reported(self, text: str) -> None:
        self.reports.append(text)
        self._news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self._news.clear()
                await self._news.wait()


def with_yard(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    programs: dict[str, str],
    test: Callable[[Yard], Awaitable[None]],
) -> Yard:
    """Run ``test`` while the programs are kept alive; stages end in the order of the dict."""
    monkeypatch.setattr(module, "STOP_S", 0.5)
    spawn = asyncio.create_subprocess_exec

    async def python_instead(*command: str, **options: object) -> asyncio.subprocess.Process:
        assert command[:3] == (sys.executable, "-m", "fabric")
        return await spawn(sys.executable, "-c", command[3], **options)  # type: ignore[arg-type]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", python_instead)
    children = [Child(name, (code,), stage) for stage, (name, code) in enumerate(programs.items())]

    async def run() -> Yard:
        yard = Yard(children, tmp_path / "logs")
        await yard.supervisor.start()
        try:
            await test(yard)
        finally:
            await yard.supervisor.stop()
        return yard

    return asyncio.run(run())


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_killed_child_is_started_again_at_once_and_the_new_pid_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(yard: Yard) -> None:
        first = yard.pids[-1]
        before = time.monotonic()
        os.kill(first["a"], signal.SIGKILL)
        await yard.until(lambda: len(yard.pids) == 2)
        assert time.monotonic() - before < 5
        assert yard.pids[-1]["a"] != first["a"]
        assert yard.pids[-1]["b"] == first["b"]

    yard = with_yard(tmp_path, monkeypatch, {"a": FOREVER, "b": FOREVER}, test)

    assert yard.reports == ["a was killed by SIGKILL; started again"]
    assert all(is_gone(pid) for pids in yard.pids for pid in pids.values())


def test_errors_twice_in_a_row_at_the_start_are_given_up_on_with_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(yard: Yard) -> None:
        async with asyncio.timeout(20):
            reason = await yard.supervisor.given_up
        assert reason.startswith("a ended with status 3, after saying")
        assert "the disk is another's" in reason

    with_yard(tmp_path, monkeypatch, {"a": 'import sys; print("the disk is another\'s"); sys.exit(3)'}, test)


def test_after_a_good_start_nothing_is_given_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(yard: Yard) -> None:
        yard.supervisor.settled = True
        await yard.until(lambda: len(yard.pids) == 4)
        assert not yard.supervisor.given_up.done()
        assert "oh dear" in yard.reports[-1]

    with_yard(tmp_path, monkeypatch, {"a": "print('oh dear'); raise SystemExit(1)"}, test)


def test_children_stop_stage_by_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = tmp_path / "order"
    code = (
        "import signal, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
        "print('up', flush=True); signal.sigwait([signal.SIGTERM])\n"
        f"open({str(order)!r}, 'a').write(NAME)"
    )
    programs = {name: code.replace("NAME", repr(name)) for name in "cab"}

    async def test(yard: Yard) -> None:
        await all_said_up(yard, tmp_path, programs)

    with_yard(tmp_path, monkeypatch, programs, test)

    assert order.read_text() == "cab"


def test_a_child_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(yard: Yard) -> None:
        await all_said_up(yard, tmp_path, {"a": STUBBORN})

    yard = with_yard(tmp_path, monkeypatch, {"a": STUBBORN}, test)

    assert is_gone(yard.pids[0]["a"])


def test_a_child_that_waits_for_its_restart_does_not_hold_up_the_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backoff, "FIRST_S", 60.0)
    monkeypatch.setattr(Backoff, "LONGEST_S", 60.0)

    async def test(yard: Yard) -> None:
        await yard.until(lambda: len(yard.reports) == 2)

    before = time.monotonic()
    yard = with_yard(tmp_path, monkeypatch, {"a": "raise SystemExit(0)"}, test)

    assert time.monotonic() - before < 20
    assert len(yard.pids) == 2


def test_children_run_in_a_session_of_their_own_and_find_our_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import fabric, os; print(os.getsid(0) == os.getpid(), os.environ['FABRIC_PARENT_PID']); " + FOREVER
    )
    monkeypatch.chdir(tmp_path)

    async def test(yard: Yard) -> None:
        await all_said_up(yard, tmp_path, {"a": code})

    with_yard(tmp_path, monkeypatch, {"a": code}, test)

    assert (tmp_path / "logs/a.log").read_text().splitlines()[0] == f"True {os.getpid()}"


def test_a_log_is_kept_within_bounds_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOG_BYTES_MAX", 100)
    log = tmp_path / "a.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * 101)
        module._shorten(log)
        writer.write(b"after")

    assert log.read_bytes() == b"after"
    assert (tmp_path / "a.log.1").read_bytes() == b"x" * 101


async def all_said_up(yard: Yard, tmp_path: Path, programs: dict[str, str]) -> None:
    async with asyncio.timeout(20):
        for name in programs:
            log = tmp_path / "logs" / f"{name}.log"
            while "up" not in log.read_text():
                await asyncio.sleep(0.01)
