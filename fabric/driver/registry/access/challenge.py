"""How a client is asked to show who it is: the ``WWW-Authenticate`` header.

Everything in it comes from the access file, never from the request: a realm made from the ``Host``
header would let an attacker choose where passwords are sent.
"""

from __future__ import annotations

from dataclasses import dataclass

from fabric.driver.registry.errors import RegistryError


@dataclass(frozen=True, slots=True)
class Challenger:
    """Asks for a password (``service`` empty), for a token, or (``realm`` empty) for nothing."""

    realm: str = ""
    service: str = ""

    @property
    def asks_for_login(self) -> bool:
        """Whether there is a way to become somebody."""
        return bool(self.realm)

    def challenge(self, scope: str, message: str, error: str = "") -> RegistryError:
        """401.  ``error`` is one of RFC 6750 section 3.1; passwords have none."""
        return RegistryError(
            401, "UNAUTHORIZED", message, _detail(scope), {"WWW-Authenticate": self.header(scope, error)}
        )

    def header(self, scope: str, error: str = "") -> str:
        """The challenge as Docker's token documents, RFC 7617 and RFC 6750 write it."""
        if not self.service:
            return f'Basic realm="{self.realm}", charset="UTF-8"'
        fields = {"realm": self.realm, "service": self.service, "scope": scope, "error": error}
        return "Bearer " + ",".join(f'{name}="{value}"' for name, value in fields.items() if value)


def _detail(scope: str) -> list[dict[str, str]] | None:
    """The scope as Docker's registry details it."""
    if not scope:
        return None
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    return [{"Type": kind, "Name": name, "Action": action} for action in actions.split(",")]
