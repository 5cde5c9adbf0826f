"""Other people's servers as processes of ours: found, started on free ports, waited for, ended."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench.errors import BenchError
from bench.machine import ROOT

STOP_S = 15.0
LOOK_S = 0.05
LOG_TAIL = 2000


def program(name: str, source: str) -> str:
    """Its path, beside this Python or on the PATH.  Raises BenchError that says where to get it."""
    beside = Path(sys.executable).with_name(name)
    path = str(beside) if beside.exists() else shutil.which(name)
    if path is None:
        raise BenchError(f"{name} is not installed: {source}")
    return path


def free_ports(count: int) -> list[int]:
    """So many different ports of 127.0.0.1 that are free now."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@contextlib.contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that writes what it says into ``log``; ended when the block is left."""
    with log.open("wb") as output:
        # A session of its own: a Ctrl-C is for us, and we end it in order.
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(
    look: Callable[[], bool], what: str, log: Path, process: subprocess.Popen[bytes], patience_s: float = 40.0
) -> None:
    """Until ``look`` says yes; an OSError means not yet.  Raises BenchError with the end of the log."""
    until = time.monotonic() + patience_s
    while True:
        with contextlib.suppress(OSError):
            if look():
                return
        if time.monotonic() > until or process.poll() is not None:
            raise BenchError(f"{what} did not come up; it said:\n{log.read_text()[-LOG_TAIL:]}")
        time.sleep(LOOK_S)


def output_of(command: Sequence[str], patience_s: float = 300.0) -> str:
    """What a program prints.  Raises BenchError when it fails or takes too long."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=patience_s, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{Path(command[0]).name} took more than {patience_s:g} s") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-LOG_TAIL:]
        raise BenchError(f"{Path(command[0]).name} failed with status {done.returncode}: {said}")
    return done.stdout
