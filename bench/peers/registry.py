"""Small requests that every pull begins with: a manifest by its tag, HEAD of a blob."""

from __future__ import annotations

import json

from bench.http import Blob
from bench.peers import http_client, sides
from bench.peers.requests import ask_again_and_again
from bench.peers.sides import Sides, Values
from bench.peers.stage import Stage
from fabric.settings import KIB

REPOSITORY = "bench/small"
TAG = "latest"
CONNECTIONS = 32
LAYER_BYTES = 64 * KIB
WARM_UP_S = 0.3


def requests(stage: Stage, kind: str) -> Sides:
    """``manifest-by-tag`` or ``blob-head``, of an image of one layer that both registries hold."""
    cluster, debian = stage.fabric(), stage.debian()
    servers = [cluster.registry, stage.second_registry()]
    layer = stage.blob(LAYER_BYTES)
    if not layer.digest:
        layer.renew()
    manifest = _manifest(layer)
    for url in (cluster.registry, debian.url):
        http_client.push(url, REPOSITORY, layer)
        http_client.put_manifest(url, REPOSITORY, TAG, manifest)
    method, target = {
        "manifest-by-tag": ("GET", f"/v2/{REPOSITORY}/manifests/{TAG}"),
        "blob-head": ("HEAD", f"/v2/{REPOSITORY}/blobs/{layer.digest}"),
    }[kind]

    def ask(urls: list[str], seconds: float) -> Values:
        sample = ask_again_and_again(urls, method, target, connections=CONNECTIONS, seconds=seconds)
        return sides.requests(sample)

    for urls in (servers, [debian.url]):
        ask(urls, WARM_UP_S)
    seconds = stage.effort.seconds
    return Sides(
        {
            "fabric": lambda run: ask(servers, seconds),
            "docker-registry": lambda run: ask([debian.url], seconds),
        }
    )


def _manifest(layer: Blob) -> bytes:
    """Of an artifact with that one layer, which is its configuration too."""
    kind = "application/octet-stream"
    descriptor = {"mediaType": kind, "digest": layer.digest, "size": layer.size}
    manifest = {
        "schemaVersion": 2,
        "mediaType": http_client.MANIFEST_TYPE,
        "config": descriptor,
        "layers": [descriptor],
    }
    return json.dumps(manifest).encode()
