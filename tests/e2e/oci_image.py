"""Makes OCI image layouts on disk: real gzip layers of random bytes, of any size, from a seed."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import tarfile
from pathlib import Path
from typing import Any

MIB = 1024 * 1024
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


class Layout:
    """An OCI image layout in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "blobs/sha256").mkdir(parents=True)
        (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self._manifests: list[dict[str, Any]] = []

    def add_image(self, tag: str, layer_sizes: list[int], seed: int = 1) -> str:
        """An image whose layers hold this many random bytes; returns the manifest's digest."""
        layers, diff_ids = [], []
        for number, size in enumerate(layer_sizes):
            descriptor, diff_id = self._add_layer(size, seed * 1000 + number)
            layers.append(descriptor)
            diff_ids.append(diff_id)
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [{"created_by": f"layer {number}"} for number in range(len(layers))],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": self._add(json.dumps(config).encode(), CONFIG_TYPE),
            "layers": layers,
        }
        descriptor = self._add(json.dumps(manifest).encode(), MANIFEST_TYPE)
        self._manifests.append({**descriptor, "annotations": {"org.opencontainers.image.ref.name": tag}})
        index = {"schemaVersion": 2, "manifests": self._manifests}
        (self.directory / "index.json").write_text(json.dumps(index))
        return str(descriptor["digest"])

    def _add(self, data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (self.directory / "blobs/sha256" / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def _add_layer(self, size: int, seed: int) -> tuple[dict[str, Any], str]:
        """A gzip'ed tar with one file of ``size`` random bytes; streamed, so it may be large."""
        rng = random.Random(seed)
        diff = hashlib.sha256()
        path = self.directory / f"layer-{seed}"
        with (
            path.open("wb") as file,
            gzip.GzipFile("", "wb", compresslevel=0, fileobj=file, mtime=0) as packed,
        ):

            def emit(data: bytes) -> None:
                diff.update(data)
                packed.write(data)

            if size:
                info = tarfile.TarInfo(f"file-{seed}")
                info.size = size
                emit(info.tobuf(tarfile.USTAR_FORMAT))
                left = size
                while left:
                    piece = rng.randbytes(min(left, MIB))
                    emit(piece)
                    left -= len(piece)
                emit(bytes(-size % 512))
            emit(bytes(1024))
        digest = hashlib.sha256()
        with path.open("rb") as written:
            while piece := written.read(MIB):
                digest.update(piece)
        packed_size = path.stat().st_size
        path.rename(self.directory / "blobs/sha256" / digest.hexdigest())
        descriptor = {"mediaType": LAYER_TYPE, "digest": f"sha256:{digest.hexdigest()}", "size": packed_size}
        return descriptor, f"sha256:{diff.hexdigest()}"


def blobs(directory: Path) -> dict[str, bytes]:
    """Every blob of a layout, by digest; each is checked against its name."""
    found = {}
    for path in (directory / "blobs/sha256").iterdir():
        data = path.read_bytes()
        assert hashlib.sha256(data).hexdigest() == path.name, path
        found[path.name] = data
    return found


def blob_names(directory: Path) -> set[str]:
    """The digests of a layout's blobs, each checked against its bytes, without holding them."""
    names = set()
    for path in (directory / "blobs/sha256").iterdir():
        digest = hashlib.sha256()
        with path.open("rb") as written:
            while piece := written.read(MIB):
                digest.update(piece)
        assert digest.hexdigest() == path.name, path
        names.add(path.name)
    return names
