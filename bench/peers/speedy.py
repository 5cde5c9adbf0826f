"""Speedy's own published test: files of 16 MB, 10, 50 and 100 at once, three replicas, up and down.

Held against what bounds it on one machine: uploads against the disk, which has to take every byte three
times, durably; downloads against one hop of ZeroMQ, which stands for the link.
"""

from __future__ import annotations

from bench.disk_limit import append_durably
from bench.objects import Job
from bench.peers.sides import Sides, megabytes, megabytes_beside
from bench.peers.stage import Stage
from fabric.settings import GIB, MIB

SIZE = 16 * MIB
LIMIT_AT_ONCE = 10
"""More at once would only need more memory: the limits are reached with these."""
NAMES = 20


def puts(stage: Stage, at_once: int) -> Sides:
    """Each client uploads one file after the other."""
    clients = stage.clients()
    job = _job("put", stage, at_once)
    scratch, seconds = stage.scratch("disk"), stage.effort.seconds / 2

    return Sides(
        {
            "fabric": lambda run: megabytes(clients.run(job._replace(label=f"speedy-{at_once}-{run}"))),
            "disk": lambda run: megabytes(append_durably(scratch, SIZE, LIMIT_AT_ONCE, seconds, 3)),
        }
    )


def gets(stage: Stage, at_once: int) -> Sides:
    """Each client downloads one file after the other, of twenty."""
    clients, far, wire = stage.clients(), stage.far_clients(), stage.wire()
    job = _job("get", stage, at_once)
    clients.run(job._replace(operation="fill"))
    seconds = stage.effort.seconds / 2

    return Sides(
        {
            "fabric": lambda run: megabytes(clients.run(job._replace(label=f"speedy-{at_once}-{run}"))),
            "ZeroMQ": lambda run: megabytes(wire.measure(False, SIZE, LIMIT_AT_ONCE, seconds)),
            "fabric, by network": lambda run: megabytes_beside(
                far.run(job._replace(label=f"far-{at_once}-{run}"))
            ),
        }
    )


def _job(operation: str, stage: Stage, at_once: int) -> Job:
    return Job(operation, SIZE, at_once, stage.effort.seconds, 100 * GIB, names=NAMES, label="speedy")
