"""What a request needs, and what is answered when its client does not have it.

Somebody who did not log in is asked to (401 with a challenge); so is one whose token lacks a scope, since
another token may have it.  Somebody whom a rule refuses is told so (403): to log in again would not help.
The answer never depends on whether the repository exists.
"""

from __future__ import annotations

from dataclasses import dataclass

from fabric.driver.registry.access.challenge import Challenger
from fabric.driver.registry.access.policy import Client, Right
from fabric.driver.registry.errors import RegistryError, unsupported
from fabric.driver.registry.routes import Endpoint, Route

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


@dataclass(frozen=True, slots=True)
class Need:
    """A right to a repository; ``right`` None: to the list of all, or only to come in."""

    repository: str = ""
    right: Right | None = None
    catalog: bool = False

    def scope(self) -> str:
        """In the grammar of token scopes; empty where none is needed.

        Who pushes is told to ask for pull as well: clients look first whether a blob is there.
        """
        if self.catalog:
            return "registry:catalog:*"
        if self.right is None:
            return ""
        actions = "pull,push" if self.right is Right.PUSH else self.right.value
        return f"repository:{self.repository}:{actions}"


def need_of(method: str, route: Route) -> Need:
    """What a request needs by its method and its path.

    Whatever is not known to be otherwise is about a repository: a new endpoint without one fails here.
    """
    if route.endpoint in (Endpoint.BASE, Endpoint.HEALTH):
        return Need()
    if route.endpoint is Endpoint.EXTENSIONS and not route.name:
        return Need()
    if route.endpoint is Endpoint.CATALOG:
        return Need(catalog=True)
    assert route.name, f"nobody has said who may do {route.endpoint}"
    if method not in WRITES:
        return Need(route.name, Right.PULL)
    # An upload that is given up is one's own.
    is_deletion = method == "DELETE" and route.endpoint is not Endpoint.UPLOAD
    return Need(route.name, Right.DELETE if is_deletion else Right.PUSH)


def refusal(client: Client, need: Need, challenger: Challenger) -> RegistryError | None:
    """Why the client may not; None when it may."""
    grants = client.grants
    if need.catalog:
        if grants is not None and not grants.catalog:
            return challenger.challenge(
                need.scope(), "the token is not for the catalog", "insufficient_scope"
            )
        return None
    if need.right is None or client.may(need.right, need.repository):
        return None
    if grants is not None and need.right not in grants.of(need.repository):
        return challenger.challenge(need.scope(), "the token is not for this", "insufficient_scope")
    if not client.identity.user and challenger.asks_for_login:
        return challenger.challenge(need.scope(), "this needs a login")
    detail = {"name": need.repository, "action": need.right.value}
    return RegistryError(403, "DENIED", f"no rule allows to {need.right.value} here", detail)


def read_only(method: str) -> RegistryError | None:
    """The refusal of a registry in read-only mode; None for what changes nothing."""
    if method not in WRITES:
        return None
    return unsupported(405, "the registry is in read-only mode", {"Allow": "GET, HEAD"})
