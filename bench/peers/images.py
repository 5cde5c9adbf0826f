"""A whole image of ten layers by skopeo: from a layout on the disk into the registry, and back again."""

from __future__ import annotations

import shutil
from pathlib import Path
from time import perf_counter
from urllib.parse import urlsplit

from bench.errors import BenchError
from bench.peers.programs import output_of, program
from bench.peers.sides import Sides, Values
from bench.peers.stage import Stage
from tests.e2e.oci_image import Layout, blob_names

TAG = "image"


def push_and_pull(stage: Stage) -> Sides:
    """Each run has an image of its own, the same for both, so that no registry knows any of its layers."""
    skopeo = program("skopeo", "apt-get install skopeo")
    cluster, debian = stage.fabric(), stage.debian()
    image = _Image(skopeo, stage)
    return Sides(
        {
            "fabric": lambda run: image.carry(cluster.registry, run),
            "docker-registry": lambda run: image.carry(debian.url, run),
        },
        image.remove,
    )


class _Image:
    """The image of the present run."""

    def __init__(self, skopeo: str, stage: Stage) -> None:
        self._command = [skopeo, "--insecure-policy", "copy", "--quiet"]
        self._sizes = list(stage.effort.image_layers_bytes)
        self._directory = stage.scratch("image")
        self._run = -1

    def carry(self, registry: str, run: int) -> Values:
        """Push it and pull it; raises BenchError when not all of it comes back."""
        layout = self._layout(run)
        names = blob_names(layout)
        total = sum((layout / "blobs/sha256" / name).stat().st_size for name in names)
        there = f"docker://{urlsplit(registry).netloc}/bench/image:{run}"
        back = self._directory / "pulled"
        pushed_s = self._copy("--dest-tls-verify=false", f"oci:{layout}:{TAG}", there)
        pulled_s = self._copy("--src-tls-verify=false", there, f"dir:{back}")
        missing = names - {path.name for path in back.iterdir()}
        shutil.rmtree(back)
        # The manifest is a blob of the layout, and a file of another name in a directory.
        if len(missing) > 1:
            raise BenchError(f"skopeo brought back all but {len(missing)} of {len(names)} blobs")
        return {
            "push_megabytes_per_s": round(total / 1e6 / pushed_s, 2),
            "pull_megabytes_per_s": round(total / 1e6 / pulled_s, 2),
        }

    def remove(self) -> None:
        """All that was made."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def _layout(self, run: int) -> Path:
        layout = self._directory / "layout"
        if run != self._run:
            shutil.rmtree(layout, ignore_errors=True)
            Layout(layout).add_image(TAG, self._sizes, seed=run + 1)
            self._run = run
        return layout

    def _copy(self, *arguments: str) -> float:
        started = perf_counter()
        output_of([*self._command, *arguments])
        return perf_counter() - started
