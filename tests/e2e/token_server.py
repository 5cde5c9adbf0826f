"""A token server of a few lines, as Docker's token documents describe one: enough for real clients."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

ISSUER = "token server of the tests"

Allowed = Callable[[str, str], set[str]]
"""The actions that a user (empty: nobody) may do to a repository."""


class TokenServer:
    """Serves ``/token`` on a loopback port until ``close``."""

    def __init__(self, service: str, passwords: dict[str, str], allowed: Allowed) -> None:
        self.service = service
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        """Each token's user and scopes."""
        self._passwords = passwords
        self._allowed = allowed
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def realm(self) -> str:
        """Where tokens are."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/token"

    def jwks(self) -> str:
        """The public key for the registry."""
        entry = jwt.get_algorithm_by_name("ES256").to_jwk(self._key.public_key(), as_dict=True)
        return json.dumps({"keys": [{**entry, "kid": "of the tests", "use": "sig"}]})

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    # --- one request ------------------------------------------------------------------------------

    def token(self, user: str, service: str, scopes: list[str]) -> dict[str, Any]:
        """What of the scopes the user has; never an error when that is less."""
        self.asked.append((user, tuple(scopes)))
        access = []
        for scope in " ".join(scopes).split():
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            granted = sorted(set(actions.split(",")) & self._allowed(user, name))
            access.append({"type": kind, "name": name, "actions": granted})
        now = int(time.time())
        claims = {
            "iss": ISSUER, "sub": user, "aud": service, "exp": now + 300, "nbf": now - 1, "iat": now,
            "jti": f"{now}-{len(self.asked)}", "access": access,
        }  # fmt: skip
        token = jwt.encode(claims, self._key, "ES256", headers={"kid": "of the tests"})
        return {"token": token, "access_token": token, "expires_in": 300}

    def user(self, authorization: str) -> str | None:
        """Who shows this password; empty for nobody, None for a wrong one."""
        if not authorization:
            return ""
        name, _, password = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        return name if self._passwords.get(name) == password else None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                user = server.user(self.headers.get("Authorization", ""))
                body: dict[str, Any] = {"details": "wrong name or password"}
                if user is not None:
                    body = server.token(user, query["service"][0], query.get("scope", []))
                data = json.dumps(body).encode()
                self.send_response(401 if user is None else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                """Not on the terminal of a test."""

        return Handler
