"""The checksums by which a client of the v1 protocol says what it has pushed.

``sha256:<hex>`` is over the image's JSON, a line feed and the layer's bytes as they were sent.  Clients
from 0.10 on send it as ``X-Docker-Checksum-Payload``.

``tarsum+sha256:<hex>`` does not depend on compression or on the order of files.  Older clients send it as
``X-Docker-Checksum``, newer ones beside the other.  Each file has a sum over its header's fields and its
bytes; the checksum is over the image's JSON and the sorted sums.  ``tarsum.v1`` leaves out times and
counts extended attributes.  (``tarball`` computes them.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from fabric.driver.registry.v1.names import refused

PAYLOAD = "sha256"
TARSUM = "tarsum"
TARSUM_V1 = "tarsum.v1"

_CHECKSUM = re.compile(r"(?:(tarsum|tarsum\.v1)\+)?sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Checksum:
    """What kind of checksum, and its value in hex digits."""

    kind: str
    value: str

    def __str__(self) -> str:
        return f"sha256:{self.value}" if self.kind == PAYLOAD else f"{self.kind}+sha256:{self.value}"


def payload_start(image_json: bytes) -> bytes:
    """What the payload's checksum covers before the layer."""
    return image_json + b"\n"


def declared_checksum(headers: Mapping[str, str]) -> Checksum:
    """The checksum to verify: the payload's if it is there, since nothing proves more.

    Raises RegistryError 412 when there is none, 400 for one of another form.
    """
    for header in ("X-Docker-Checksum-Payload", "X-Docker-Payload-Checksum", "X-Docker-Checksum"):
        text = headers.get(header, "").strip()
        if text:
            return parse_checksum(text)
    raise refused(412, "X-Docker-Checksum-Payload and X-Docker-Checksum are both missing")


def parse_checksum(text: str) -> Checksum:
    """The checksum that ``text`` says.  Raises RegistryError 400."""
    match = _CHECKSUM.fullmatch(text)
    if match is None:
        raise refused(400, "a checksum is sha256:, tarsum+sha256: or tarsum.v1+sha256: and 64 hex digits")
    return Checksum(match[1] or PAYLOAD, match[2])
