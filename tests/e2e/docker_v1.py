"""A client that does what Docker 1.5 does, request by request, with nothing but ``http.client``."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

TIMEOUT_S = 60.0
AGENT = "docker/1.5.0 go/go1.4.1 kernel/3.16.0 os/linux arch/amd64"


@dataclass(frozen=True)
class Image:
    """An image; ``layer`` is given piece by piece, so that it may be large."""

    id: str
    parent: str
    pieces: tuple[bytes, int]
    """One piece of the layer, and how often it comes."""

    @property
    def json(self) -> bytes:
        said = {"id": self.id, "parent": self.parent, "docker_version": "1.5.0", "Size": self.size}
        return json.dumps({key: value for key, value in said.items() if value != ""}).encode()

    @property
    def size(self) -> int:
        return len(self.pieces[0]) * self.pieces[1]

    def layer(self) -> Iterator[bytes]:
        for _ in range(self.pieces[1]):
            yield self.pieces[0]

    def payload(self) -> str:
        running = hashlib.sha256(self.json + b"\n")
        for piece in self.layer():
            running.update(piece)
        return f"sha256:{running.hexdigest()}"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class DockerV1:
    """One session of a client; it keeps the token that it was given."""

    def __init__(self, url: str, login: str = "") -> None:
        """``login``: user and password with a colon between."""
        self.netloc = urlsplit(url).netloc
        self.login = base64.b64encode(login.encode()).decode()
        self.token = ""

    def ask(self, method: str, path: str, body: bytes | Iterable[bytes] = b"", **headers: str) -> Answer:
        """One request.  A body that is no bytes is sent in chunks, as Docker sends layers."""
        connection = http.client.HTTPConnection(self.netloc, timeout=TIMEOUT_S)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent |= {"User-Agent": AGENT}
        if "X-Docker-Token" in sent and self.login:
            sent["Authorization"] = f"Basic {self.login}"
        elif self.token:
            sent["Authorization"] = f"Token {self.token}"
        chunked = not isinstance(body, bytes)
        if chunked:
            sent["Transfer-Encoding"] = "chunked"
        try:
            connection.request(method, f"/v1/{path}", body, sent, encode_chunked=chunked)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            self.token = found.get("x-docker-token", self.token)
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def must(self, status: int, method: str, path: str, body: bytes | Iterable[bytes] = b"", **headers: str):  # type: ignore[no-untyped-def]
        """One request that has to be answered so; the JSON of the answer, if it has any."""
        answer = self.ask(method, path, body, **headers)
        assert answer.status == status, (method, path, answer)
        return json.loads(answer.body) if answer.body else None

    def push(self, name: str, tag: str, images: list[Image]) -> list[str]:
        """Push images, the first one first, and tag the last; the ids of those that were sent."""
        assert self.ask("GET", "_ping").status == 200
        listed = json.dumps([{"id": image.id, "Tag": tag} for image in images]).encode()
        answer = self.ask("PUT", f"repositories/{name}/", listed, X_Docker_Token="true")
        assert (answer.status, answer.headers["x-docker-endpoints"]) == (200, self.netloc)
        sent = [image.id for image in images if self.push_image(image)]
        self.must(200, "PUT", f"repositories/{name}/tags/{tag}", f'"{images[-1].id}"'.encode())
        checked = json.dumps([{"id": image.id, "checksum": image.payload()} for image in images]).encode()
        self.must(204, "PUT", f"repositories/{name}/images", checked, X_Docker_Token="true")
        return sent

    def push_image(self, image: Image) -> bool:
        """Push one image; False when the registry has it."""
        if self.ask("GET", f"images/{image.id}/json").status == 200:
            return False
        self.must(200, "PUT", f"images/{image.id}/json", image.json, Content_Type="application/json")
        self.must(200, "PUT", f"images/{image.id}/layer", image.layer())
        self.must(
            200, "PUT", f"images/{image.id}/checksum",
            X_Docker_Checksum=f"tarsum+sha256:{'0' * 64}", X_Docker_Checksum_Payload=image.payload(),
        )  # fmt: skip
        return True

    def pull(self, name: str, tag: str) -> list[tuple[str, str]]:
        """Pull what a tag names: each image's id and payload checksum, the newest first."""
        self.must(200, "GET", f"repositories/{name}/images", X_Docker_Token="true")
        image = self.must(200, "GET", f"repositories/{name}/tags")[tag]
        found = []
        for one in self.must(200, "GET", f"images/{image}/ancestry"):
            said = self.ask("GET", f"images/{one}/json")
            layer = self.ask("GET", f"images/{one}/layer")
            assert (said.status, layer.status) == (200, 200)
            assert int(said.headers["x-docker-size"]) == len(layer.body)
            running = hashlib.sha256(said.body + b"\n" + layer.body)
            found.append((one, f"sha256:{running.hexdigest()}"))
        return found
