"""Objects of 1 KiB: the fabric's Python client against ``weed benchmark``, as many operations in flight.

Both clients speak their system's own protocol.  The fabric's is one process of one thread, SeaweedFS's is
compiled and uses every core.  Reads are spread over as many objects on either side, written just before:
they come from memory.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from bench.objects import Job
from bench.peers.seaweed import Benchmarked
from bench.peers.sides import Sides, Values, objects
from bench.peers.stage import Stage
from fabric.settings import GIB, KIB, MIB

SIZE = 1 * KIB
WARM_UP_S = 0.3
GETS, PUTS = 4, 2
PUT_BYTES = 4 * MIB


def puts(stage: Stage, clients: int) -> Sides:
    """Puts through the proxy, and ``weed benchmark -writeOnly``: as it comes, and told to flush.

    Beside them what the hops and syncs of a put take by themselves.
    """
    seaweed, ours, hops = stage.seaweed(), stage.clients(), stage.hops()
    job = _job("put", stage, clients)
    ours.run(job._replace(seconds=WARM_UP_S, label="warm-up"))
    count = stage.effort.small_writes

    return Sides(
        {
            "fabric": lambda run: objects(ours.run(job._replace(label=f"put-{clients}-{run}"))),
            "SeaweedFS": lambda run: _values(seaweed.write(count, clients)),
            "SeaweedFS with fsync": lambda run: _values(seaweed.write(count // 2, clients, fsync=True)),
            "hops and syncs alone": lambda run: objects(hops.measure(SIZE, clients, stage.effort.seconds)),
        }
    )


def gets(stage: Stage, clients: int) -> Sides:
    """Gets through the proxy, and ``weed benchmark -readOnly``."""
    seaweed, ours = stage.seaweed(), stage.clients()
    job = _filled(stage, clients)
    far = stage.far_clients()
    seaweed.write(stage.effort.small_writes, 16)
    for client in (ours, far):
        client.run(job._replace(seconds=WARM_UP_S, label="warm-up"))
    count = stage.effort.small_reads

    return Sides(
        {
            "fabric": lambda run: objects(ours.run(job._replace(label=f"get-{clients}-{run}"))),
            "SeaweedFS": lambda run: _values(seaweed.read(count, clients)),
            "fabric, by network": lambda run: objects(far.run(job._replace(label=f"far-{clients}-{run}"))),
        }
    )


def gets_beside_puts(stage: Stage) -> Sides:
    """The same gets while another client process puts objects of one fragment, and while none does."""
    readers, writers = stage.clients(0), stage.clients(1)
    job = _filled(stage, GETS)
    putting = Job("put", PUT_BYTES, PUTS, stage.effort.seconds + 2 * WARM_UP_S, 100 * GIB, 1, "")

    def idle(run: int) -> Values:
        return objects(readers.run(job._replace(label=f"idle-{run}")))

    def beside(run: int) -> Values:
        with ThreadPoolExecutor(1) as pool:
            background = pool.submit(writers.run, putting._replace(label=f"background-{run}"))
            readers.run(job._replace(label=f"warm-{run}", seconds=WARM_UP_S))
            values = objects(readers.run(job._replace(label=f"beside-{run}")))
            return values | {"put_megabytes_per_s": round(background.result().megabytes_per_s, 1)}

    return Sides({"beside puts": beside, "idle": idle})


def _filled(stage: Stage, clients: int) -> Job:
    """A job of gets, whose objects are there."""
    job = _job("get", stage, clients)
    stage.clients().run(job._replace(operation="fill"))
    return job


def _job(operation: str, stage: Stage, clients: int) -> Job:
    effort = stage.effort
    return Job(operation, SIZE, clients, effort.seconds, 1 * GIB, names=effort.small_writes, label=operation)


def _values(found: Benchmarked) -> Values:
    return {"objects_per_s": found.requests_per_s, "p50_ms": found.p50_ms, "p99_ms": found.p99_ms}
