"""A registry client of few lines, so that tests see every status and header."""

from __future__ import annotations

import hashlib
import http.client
import json
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
TIMEOUT_S = 60.0


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def codes(self) -> list[str]:
        """The error codes of a refused request."""
        return [error["code"] for error in json.loads(self.body)["errors"]]


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class HttpRegistry:
    """Requests to one registry; a connection each."""

    def __init__(self, url: str) -> None:
        self.netloc = urlsplit(url).netloc

    def ask(
        self, method: str, path: str, body: bytes | Iterator[bytes] | None = None, **headers: str
    ) -> Answer:
        connection = http.client.HTTPConnection(self.netloc, timeout=TIMEOUT_S)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body=body, headers=named)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def begin(self, repository: str) -> str:
        """Start an upload; its location."""
        answer = self.ask("POST", f"/v2/{repository}/blobs/uploads/", b"")
        assert answer.status == 202, answer
        return self.local(answer.headers["location"])

    def local(self, location: str) -> str:
        """A location's path and query."""
        parts = urlsplit(location)
        return parts.path + (f"?{parts.query}" if parts.query else "")

    def put_blob(self, repository: str, data: bytes) -> Answer:
        """Monolithic push: POST, then PUT with the bytes."""
        return self.finish(self.begin(repository), digest_of(data), data)

    def finish(self, location: str, digest: str, data: bytes = b"") -> Answer:
        joint = "&" if "?" in location else "?"
        return self.ask("PUT", location + joint + urlencode({"digest": digest}), data)

    def get_blob(self, repository: str, digest: str, **headers: str) -> Answer:
        return self.ask("GET", f"/v2/{repository}/blobs/{digest}", **headers)

    def put_manifest(
        self, repository: str, reference: str, manifest: Any, kind: str = MANIFEST_TYPE
    ) -> Answer:
        data = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
        return self.ask("PUT", f"/v2/{repository}/manifests/{reference}", data, Content_Type=kind)

    def get_manifest(self, repository: str, reference: str) -> Answer:
        return self.ask("GET", f"/v2/{repository}/manifests/{reference}", Accept=MANIFEST_TYPE)

    def push_image(self, repository: str, tag: str, layers: list[bytes]) -> tuple[str, bytes]:
        """Push blobs and a manifest that names them; the manifest's digest and bytes."""
        config = b'{"architecture":"amd64","os":"linux"}'
        for data in [config, *layers]:
            answer = self.put_blob(repository, data)
            assert answer.status == 201, answer

        def descriptor(data: bytes, kind: str) -> dict[str, Any]:
            return {"mediaType": kind, "digest": digest_of(data), "size": len(data)}

        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": descriptor(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [descriptor(data, "application/vnd.oci.image.layer.v1.tar") for data in layers],
        }
        data = json.dumps(manifest).encode()
        answer = self.put_manifest(repository, tag, data)
        assert answer.status == 201, answer
        return digest_of(data), data
