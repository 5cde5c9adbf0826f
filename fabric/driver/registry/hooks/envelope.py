"""Events in the form that Docker Distribution gave them, so that receivers of its notifications understand.

``application/vnd.docker.distribution.events.v2+json``: an object with a list of events.  Of what was
deleted only the digest or the tag is told, and the repository.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import msgspec

from fabric.driver.registry.hooks.changes import Change
from fabric.driver.registry.hooks.outbox import Entry, Source

MEDIA_TYPE = "application/vnd.docker.distribution.events.v2+json"
SIGNATURE_HEADER = "X-Fabric-Signature"


class Target(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """What it is about.  ``length`` is the older name of ``size``."""

    media_type: str = ""
    digest: str = ""
    size: int = 0
    length: int = 0
    repository: str = ""
    url: str = ""
    tag: str = ""


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """The request that caused it."""

    id: str = ""
    addr: str = ""
    host: str = ""
    method: str = ""
    useragent: str = ""


class Actor(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who caused it."""

    name: str = ""


class EventSource(msgspec.Struct, frozen=True):
    """Which process made it happen."""

    addr: str
    instance: str = msgspec.field(name="instanceID")


class Event(msgspec.Struct, frozen=True):
    """One event."""

    id: str
    timestamp: str
    action: str
    target: Target
    request: Request
    actor: Actor
    source: EventSource


class Envelope(msgspec.Struct, frozen=True):
    """The body of a notification."""

    events: list[Event]


def events_of(entry: Entry, registry_url: str) -> list[Event]:
    """The events of one commit.  Their ids are the same each time.

    ``registry_url``: where clients reach the registry; empty: where this one did.
    """
    origin = entry.origin
    if not registry_url and origin.host:
        registry_url = f"{origin.scheme}://{origin.host}"
    request = Request(origin.id, origin.addr, origin.host, origin.method, origin.useragent)
    source = EventSource(entry.source.addr, entry.source.instance)
    targets = [(change, target) for change in entry.changes for target in _targets(change, registry_url)]
    return [
        Event(
            f"{entry.token}-{number}", timestamp(entry.at_ms), change.action, target, request,
            Actor(change.who), source,
        )
        for number, (change, target) in enumerate(targets, start=1)
    ]  # fmt: skip


def _targets(change: Change, registry_url: str) -> Iterator[Target]:
    name, digest, size = change.repository, change.digest, change.size
    if change.action == "delete":
        for tag in change.tags:
            yield Target(repository=name, tag=tag)
        if not change.tags:
            yield Target(repository=name, digest=digest)
        return
    url = f"{registry_url}/v2/{name}/manifests/{digest}" if registry_url else ""
    for tag in change.tags or ("",):
        yield Target(change.media_type, digest, size, size, name, url, tag)


def timestamp(at_ms: int) -> str:
    """Milliseconds since 1970 as RFC 3339 writes them."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def body_of(events: Sequence[Event]) -> bytes:
    """A notification's body."""
    return msgspec.json.encode(Envelope(list(events)))


def signature(secret: bytes, body: bytes) -> str:
    """What a receiver that has the secret compares: HMAC-SHA256 of the body's exact bytes."""
    return f"sha256={hmac.new(secret, body, hashlib.sha256).hexdigest()}"


def ping(token: str, at_ms: int, who: str, source: Source) -> Event:
    """An event that says nothing, to see whether a receiver can be reached."""
    return Event(
        token,
        timestamp(at_ms),
        "ping",
        Target(),
        Request(),
        Actor(who),
        EventSource(source.addr, source.instance),
    )
