"""What each request needs, and the answer to who does not have it."""

from __future__ import annotations

import pytest

from fabric.driver.registry.access.challenge import Challenger
from fabric.driver.registry.access.policy import Client, Grants, Identity, Policy, Right
from fabric.driver.registry.access.requirements import Need, need_of, read_only, refusal
from fabric.driver.registry.http import HANDLERS
from fabric.driver.registry.routes import Endpoint, Route

OPEN = {Endpoint.BASE, Endpoint.HEALTH}
PASSWORDS, TOKENS, NONE = Challenger("fabric"), Challenger("https://t", "registry"), Challenger()
ALL = [(endpoint, method) for endpoint, handlers in HANDLERS.items() for method in handlers]


def route(endpoint: Endpoint) -> Route:
    return Route(endpoint, "" if endpoint in OPEN | {Endpoint.CATALOG} else "app", "x")


@pytest.mark.parametrize(("endpoint", "method"), ALL)
def test_every_handler_needs_something_that_fits_its_method(endpoint: Endpoint, method: str) -> None:
    need = need_of(method, route(endpoint))
    if endpoint in OPEN:
        assert need == Need()
    elif endpoint is Endpoint.CATALOG:
        assert need == Need(catalog=True)
    elif method in ("GET", "HEAD"):
        assert need == Need("app", Right.PULL)
    elif method == "DELETE" and endpoint is not Endpoint.UPLOAD:
        assert need == Need("app", Right.DELETE)
    else:
        assert need == Need("app", Right.PUSH)
    assert (read_only(method) is None) == (method in ("GET", "HEAD"))


def test_an_endpoint_that_nobody_thought_of_fails() -> None:
    with pytest.raises(AssertionError, match="nobody has said"):
        need_of("GET", Route(Endpoint.TAGS))


NO_RULES_MATCH = Policy(rules=[], has_logins=True)
PULL_ONLY = Grants({"app": frozenset({Right.PULL})}, catalog=False)


@pytest.mark.parametrize(
    ("client", "challenger", "status"),
    [
        (Client(policy=NO_RULES_MATCH), PASSWORDS, 401),
        (Client(policy=NO_RULES_MATCH), NONE, 403),
        (Client(Identity("alice"), NO_RULES_MATCH), PASSWORDS, 403),
        (Client(Identity("alice"), Policy(), PULL_ONLY), TOKENS, 401),
        (Client(Identity(""), Policy(), PULL_ONLY), TOKENS, 401),
        (Client(Identity("alice"), Policy(rules=[]), Grants({"app": frozenset(Right)}, False)), TOKENS, 403),
        (Client(Identity("alice"), Policy(), Grants({"app": frozenset(Right)}, False)), TOKENS, None),
        (Client(Identity("alice"), Policy(has_logins=True)), PASSWORDS, None),
    ],
)
def test_who_may_not_push_is_told_what_would_help(
    client: Client, challenger: Challenger, status: int | None
) -> None:
    refused = refusal(client, Need("app", Right.PUSH), challenger)
    assert (refused.status if refused is not None else None) == status
    if refused is not None:
        assert ("WWW-Authenticate" in refused.headers) == (status == 401)
