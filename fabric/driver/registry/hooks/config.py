"""What may stand in a file of hooks, and what it means.  Files it names are read by ``load``.

Every mistake is told with its key, such as ``hook[2].url``, and a reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

import msgspec

from fabric.driver.registry.access.patterns import BadPattern, repository_patterns
from fabric.driver.registry.access.tables import Mistake, Table, converted
from fabric.driver.registry.hooks.changes import Action
from fabric.driver.registry.hooks.envelope import SIGNATURE_HEADER
from fabric.driver.registry.hooks.limits import HOOKS_MAX
from fabric.driver.registry.hooks.wishes import Wish

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_URL = re.compile(r"https?://[!#-\[\]-~]{1,2000}")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_HEADER_VALUE = re.compile(r"[!-~](?:[ -~]{0,3998}[!-~])?")
_OUR_HEADERS = {
    "connection", "content-encoding", "content-length", "content-type", "expect", "host", "te", "trailer",
    "transfer-encoding", "upgrade", SIGNATURE_HEADER.lower(),
}  # fmt: skip


class HookTable(Table, frozen=True):
    """One receiver."""

    name: str
    url: str
    events: Annotated[tuple[Action, ...], msgspec.Meta(min_length=1)] = ("push", "delete")
    repositories: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = ("**",)
    secret_file: str | None = None
    headers: dict[str, str] = {}
    ca_file: str | None = None
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 5.0
    retry_for_s: Annotated[float, msgspec.Meta(ge=60, le=30 * 86_400)] = 86_400.0

    def wish(self) -> Wish:
        """What everybody who commits has to know of it."""
        return Wish(self.name, self.events, self.repositories, self.retry_for_s)


class HooksTable(Table, frozen=True):
    """The whole file."""

    registry_url: str = ""
    """Where clients reach the registry, for the URLs in events; empty: where each of them did."""
    hook: list[HookTable] = []


def parse_hooks(values: Mapping[str, Any]) -> HooksTable:
    """The file's content, typed and checked.  Raises Mistake."""
    table = converted(values, HooksTable)
    if table.registry_url:
        _check_url("registry_url", table.registry_url)
    if len(table.hook) > HOOKS_MAX:
        raise Mistake("hook", f"{len(table.hook)} hooks, {HOOKS_MAX} at most")
    names: dict[str, int] = {}
    for number, hook in enumerate(table.hook, start=1):
        place = f"hook[{number}]"
        _check_hook(place, hook)
        if hook.name in names:
            raise Mistake(f"{place}.name", f"hook[{names[hook.name]}] is called {hook.name!r} too")
        names[hook.name] = number
    return table


def _check_hook(place: str, hook: HookTable) -> None:
    if _NAME.fullmatch(hook.name) is None:
        raise Mistake(f"{place}.name", "a name has lower-case letters, digits, . _ and -, 64 at most")
    if "?" in _check_url(f"{place}.url", hook.url).netloc:
        raise Mistake(f"{place}.url", "has no path")
    try:
        repository_patterns(hook.repositories)
    except BadPattern as error:
        raise Mistake(f"{place}.repositories", str(error)) from error
    for name, value in hook.headers.items():
        key = f"{place}.headers.{name}"
        if _HEADER_NAME.fullmatch(name) is None:
            raise Mistake(key, "not the name of a header")
        if name.lower() in _OUR_HEADERS:
            raise Mistake(key, "this header is set by the registry")
        if _HEADER_VALUE.fullmatch(value) is None:
            raise Mistake(key, "must be visible ASCII in one line")
    if hook.ca_file is not None and not hook.url.startswith("https:"):
        raise Mistake(f"{place}.ca_file", "means nothing for an http:// address")


def _check_url(key: str, url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        is_good = bool(_URL.fullmatch(url) and parts.hostname and parts.port != 0)
    except ValueError:  # of the port, or an IPv6 address
        is_good = False
    if not is_good:
        raise Mistake(key, "not an http:// or https:// address")
    if parts.username is not None:
        raise Mistake(key, "an address is shown to people; put names and passwords into headers")
    if parts.fragment:
        raise Mistake(key, "a fragment (#) is never sent")
    return parts
