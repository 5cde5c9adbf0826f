"""Things of 256 MiB: puts and gets beside SeaweedFS's filer, pushes and pulls beside docker-registry."""

from __future__ import annotations

from pathlib import Path

from bench import http
from bench.disk_limit import append_durably
from bench.objects import Job
from bench.peers import http_client
from bench.peers.sides import Sides, Values, megabytes
from bench.peers.stage import Stage
from bench.stats import Sample
from fabric.settings import GIB

REPOSITORY = "bench/large"
FILE = "/bench/large-{}"


def put_beside_filer(stage: Stage) -> Sides:
    """The fabric's own client, and one PUT into the filer; beside both a push by the same HTTP client."""
    seaweed, ours, cluster = stage.seaweed(), stage.clients(), stage.fabric()
    blob = stage.blob(stage.effort.large_bytes)
    job = Job("put", blob.size, 1, 0.0, 100 * GIB, names=1, label="")

    def filer(run: int) -> Values:
        return megabytes(http_client.put_file(seaweed.filer, FILE.format(run), blob))

    def filer_with_fsync(run: int) -> Values:
        return megabytes(http_client.put_file(seaweed.filer, FILE.format(f"fsync-{run}?fsync=true"), blob))

    return Sides(
        {
            "fabric": lambda run: megabytes(ours.run(job._replace(label=f"large-{run}"))),
            "SeaweedFS": filer,
            "SeaweedFS with fsync": filer_with_fsync,
            "fabric, by HTTP": lambda run: _push(cluster.registry, blob),
        }
    )


def get_beside_filer(stage: Stage) -> Sides:
    """The fabric's own client and a GET from the filer; beside both a pull by the very same HTTP client."""
    seaweed, ours, cluster = stage.seaweed(), stage.clients(), stage.fabric()
    blob = stage.blob(stage.effort.large_bytes)
    job = Job("get", blob.size, 1, 0.0, 100 * GIB, names=1, label="large")
    far = stage.far_clients()
    ours.run(job._replace(operation="fill"))
    _push(cluster.registry, blob)
    target = FILE.format("get")
    http_client.put_file(seaweed.filer, target, blob)
    http_client.verify(seaweed.filer, target, blob)
    pulled = _target(blob)

    return Sides(
        {
            "fabric": lambda run: megabytes(ours.run(job)),
            "SeaweedFS": lambda run: megabytes(http_client.get(seaweed.filer, target, blob.size)),
            "fabric, by network": lambda run: megabytes(far.run(job)),
            "fabric, by HTTP": lambda run: megabytes(http_client.get(cluster.registry, pulled, blob.size)),
        }
    )


def push_beside_disk(stage: Stage) -> Sides:
    """A push, and the same bytes appended to three files, each made durable by fdatasync."""
    cluster = stage.fabric()
    blob = stage.blob(stage.effort.large_bytes)
    _push(cluster.registry, blob)
    scratch, bare = stage.scratch("disk"), stage.bare_http()

    return Sides(
        {
            "fabric": lambda run: _push(cluster.registry, blob),
            "disk": lambda run: _disk(scratch, blob, 3),
            "bare HTTP": lambda run: megabytes(http_client.put_file(bare.url, "/sink", blob)),
        },
        lambda: http_client.verify(cluster.registry, _target(blob), blob),
    )


def push_beside_registry(stage: Stage) -> Sides:
    """A push with one copy, here and there; and what the disk does with one file."""
    cluster, debian = stage.fabric(replicas=1), stage.debian()
    blob = stage.blob(stage.effort.large_bytes)
    scratch = stage.scratch("disk")
    for url in (cluster.registry, debian.url):
        _push(url, blob)

    return Sides(
        {
            "fabric": lambda run: _push(cluster.registry, blob),
            "docker-registry": lambda run: _push(debian.url, blob),
            "disk": lambda run: _disk(scratch, blob, 1),
        }
    )


def pull_beside_registry(stage: Stage, at_once: int) -> Sides:
    """Pulls of one blob; ours lies on three replicas."""
    cluster, debian = stage.fabric(), stage.debian()
    blob = stage.blob(stage.effort.large_bytes)
    blob.renew()
    for url in (cluster.registry, debian.url):
        http_client.push(url, REPOSITORY, blob)
        http_client.verify(url, _target(blob), blob)
    target = _target(blob)

    def pull(url: str) -> Values:
        return megabytes(http_client.get(url, target, blob.size, at_once))

    return Sides(
        {"fabric": lambda run: pull(cluster.registry), "docker-registry": lambda run: pull(debian.url)}
    )


def _push(registry: str, blob: http.Blob) -> Values:
    """Other bytes each time, so that nothing is there already."""
    blob.renew()
    return megabytes(http_client.push(registry, REPOSITORY, blob))


def _disk(directory: Path, blob: http.Blob, copies: int) -> Values:
    sample: Sample = append_durably(directory, blob.size, 1, 0.0, copies)
    return megabytes(sample)


def _target(blob: http.Blob) -> str:
    return f"/v2/{REPOSITORY}/blobs/{blob.digest}"
