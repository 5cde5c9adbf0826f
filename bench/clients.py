"""Client processes: each has an event loop of its own and one connection to the proxy.

The process that measures does nothing else; the one that plans, shows progress and reports is its
parent.  Jobs and samples go over a pipe.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from multiprocessing.connection import Connection
from types import TracebackType

import uvloop

from bench.errors import BenchError
from bench.objects import Job, run_job
from bench.stats import Sample, merge, shares
from fabric.driver.fabric_store import FabricStore
from fabric.errors import FabricError
from fabric.settings import Settings

JOIN_S = 5.0


class Clients:
    """So many client processes of one proxy.  A context manager: leaving it ends them."""

    def __init__(self, proxy: str, count: int, settings: Settings | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, proxy, settings), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    @property
    def pids(self) -> list[int]:
        """Of the client processes."""
        return [process.pid for process in self._processes if process.pid is not None]

    def run(self, job: Job) -> Sample:
        """Do the job with its concurrency divided over the clients; raises BenchError when one dies."""
        parts = [1] if job.operation.startswith("fill") else shares(job.concurrency, len(self._pipes))
        pipes = self._pipes[: len(parts)]
        try:
            for index, (pipe, part) in enumerate(zip(pipes, parts, strict=True)):
                pipe.send(
                    job._replace(
                        concurrency=part,
                        bytes_max=job.bytes_max // len(parts),
                        label=f"{job.label}-{index}",
                    )
                )
            answers = [pipe.recv() for pipe in pipes]
        except (EOFError, OSError) as error:
            raise BenchError(f"a client process ended during {job.operation}: {error!r}") from error
        samples = [answer for answer in answers if isinstance(answer, Sample)]
        if len(samples) < len(answers):
            raise BenchError(f"{job.operation} of {job.object_bytes} bytes failed: {answers}")
        return merge(samples)

    def __enter__(self) -> Clients:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(JOIN_S)
            if process.is_alive():
                process.kill()
                process.join()


def _serve(pipe: Connection, proxy: str, settings: Settings | None) -> None:
    uvloop.run(_serve_jobs(pipe, proxy, settings))


async def _serve_jobs(pipe: Connection, proxy: str, settings: Settings | None) -> None:
    """Do jobs until the parent closes its end."""
    store = FabricStore(proxy, settings)
    await store.start()
    try:
        while True:
            try:
                job = await asyncio.to_thread(pipe.recv)
            except (EOFError, KeyboardInterrupt):
                return
            try:
                pipe.send(await run_job(store, job))
            except FabricError as error:
                pipe.send(f"{error.code}: {error.message}")
    finally:
        await store.close()
