"""Debian's docker-registry as a process: a peer to compare with, or an upstream."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from pathlib import Path

from tests.e2e.conftest import needs, wait_until
from tests.e2e.http_registry import HttpRegistry


class DebianRegistry:
    """It runs from the moment that it is made, with deletion allowed, until ``stop``."""

    def __init__(self, directory: Path) -> None:
        program = needs("docker-registry")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        storage = {"filesystem": {"rootdirectory": str(directory / "debian")}, "delete": {"enabled": True}}
        http = {"addr": self.address}
        document = {"version": 0.1, "log": {"level": "error"}, "storage": storage, "http": http}
        configuration = directory / "debian.yml"
        configuration.write_text(json.dumps(document))  # JSON is YAML too
        log = directory / "debian.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [program, "serve", str(configuration)], stdout=output, stderr=output
            )
        try:
            wait_until(self._answers, "docker-registry", log.read_text)
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """``http://HOST:PORT``"""
        return f"http://{self.address}"

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        self._process.wait(10)

    def _answers(self) -> bool:
        try:
            return HttpRegistry(self.url).ask("GET", "/v2/").status == 200
        except OSError:
            return False
