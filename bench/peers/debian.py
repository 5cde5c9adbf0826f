"""Debian's docker-registry beside us: one copy of everything, in files; settings as Debian ships them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.peers.http_client import Connection
from bench.peers.programs import free_ports, program, running, wait_for


class DebianRegistry(NamedTuple):
    """A running one."""

    url: str
    pids: dict[str, int]


@contextlib.contextmanager
def running_debian(directory: Path) -> Iterator[DebianRegistry]:
    """Start it in ``directory``, wait until it answers, end it.  Raises BenchError."""
    path = program("docker-registry", "apt-get install docker-registry")
    directory.mkdir(parents=True)
    address = f"127.0.0.1:{free_ports(1)[0]}"
    storage = {
        "filesystem": {"rootdirectory": str(directory / "data")},
        "cache": {"blobdescriptor": "inmemory"},
    }
    log = {"level": "error", "accesslog": {"disabled": True}}
    document = {"version": 0.1, "log": log, "storage": storage, "http": {"addr": address}}
    configuration = directory / "config.yml"
    configuration.write_text(json.dumps(document))  # JSON is YAML too.
    output = directory / "log"
    with running([path, "serve", str(configuration)], output) as process:
        wait_for(lambda: _answers(address), "docker-registry", output, process)
        yield DebianRegistry(f"http://{address}", {"docker-registry": process.pid})


def _answers(address: str) -> bool:
    with Connection(f"http://{address}") as connection:
        return connection.ask("GET", "/v2/").status == 200
