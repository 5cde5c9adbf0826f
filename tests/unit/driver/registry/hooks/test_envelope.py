"""What a receiver gets: the envelope of Docker Distribution, and a signature that it can check."""

from __future__ import annotations

import hashlib
import hmac
import json

from fabric.driver.registry.hooks.changes import Change
from fabric.driver.registry.hooks.envelope import body_of, events_of, ping, signature, timestamp
from fabric.driver.registry.hooks.origin import Origin
from fabric.driver.registry.hooks.outbox import Entry, Source

SOURCE = Source("host.test:5000", "instance")
ORIGIN = Origin("request", "10.0.0.1:4000", "https", "registry.test", "PUT", "docker/28", "alice")
AT_MS = 1_457_563_466_402


def told(*changes: Change, origin: Origin = ORIGIN, registry_url: str = "") -> list[dict[str, object]]:
    entry = Entry("token", AT_MS, changes, origin, SOURCE)
    events: list[dict[str, object]] = json.loads(body_of(events_of(entry, registry_url)))["events"]
    return events


def test_a_push_has_every_field_of_the_envelope() -> None:
    change = Change("push", "team/app", "sha256:abc", "a/type", 708, ("latest",), "alice")
    assert told(change) == [
        {
            "id": "token-1",
            "timestamp": "2016-03-09T22:44:26.402Z",
            "action": "push",
            "target": {
                "mediaType": "a/type",
                "digest": "sha256:abc",
                "size": 708,
                "length": 708,
                "repository": "team/app",
                "url": "https://registry.test/v2/team/app/manifests/sha256:abc",
                "tag": "latest",
            },
            "request": {
                "id": "request",
                "addr": "10.0.0.1:4000",
                "host": "registry.test",
                "method": "PUT",
                "useragent": "docker/28",
            },
            "actor": {"name": "alice"},
            "source": {"addr": "host.test:5000", "instanceID": "instance"},
        }
    ]


def test_several_tags_are_several_events_with_ids_that_stay() -> None:
    changes = (Change("push", "app", "d", tags=("a", "b")), Change("delete", "app", "d"))
    first, again = told(*changes), told(*changes)
    assert [event["id"] for event in first] == ["token-1", "token-2", "token-3"]
    assert first == again


def test_a_deletion_tells_only_what_is_gone() -> None:
    tag, manifest, repository = told(
        Change("delete", "app", tags=("v1",)), Change("delete", "app", "d"), Change("delete", "app")
    )
    assert tag["target"] == {"repository": "app", "tag": "v1"}
    assert manifest["target"] == {"repository": "app", "digest": "d"}
    assert repository["target"] == {"repository": "app"}


def test_a_command_has_no_request_and_no_url_unless_the_file_says_where() -> None:
    change = Change("push", "app", "d", "a/type", 1, (), "operator")
    (event,) = told(change, origin=Origin())
    assert event["request"] == {}
    assert event["target"] == {
        "mediaType": "a/type", "digest": "d", "size": 1, "length": 1, "repository": "app",
    }  # fmt: skip
    for origin in (Origin(), ORIGIN):
        (event,) = told(change, origin=origin, registry_url="https://front")
        assert event["target"]["url"] == "https://front/v2/app/manifests/d"  # type: ignore[index]


def test_a_signature_is_the_hmac_of_the_exact_bytes() -> None:
    # RFC 4231, test case 2.
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert signature(b"Jefe", b"what do ya want for nothing?") == f"sha256={expected}"
    body = body_of([ping("id", AT_MS, "operator", SOURCE)])
    assert signature(b"key", body) == "sha256=" + hmac.new(b"key", body, hashlib.sha256).hexdigest()


def test_a_ping_is_an_event_about_nothing() -> None:
    (event,) = json.loads(body_of([ping("id", AT_MS, "operator", SOURCE)]))["events"]
    assert (event["action"], event["target"], event["actor"]) == ("ping", {}, {"name": "operator"})


def test_timestamps_always_have_milliseconds() -> None:
    assert timestamp(0) == "1970-01-01T00:00:00.000Z"
