"""Limits of one client, by a clock that tests move."""

from __future__ import annotations

import pytest

from fabric.driver.registry.access import limits as module
from fabric.driver.registry.access.limits import Limits, Rate, address_of
from fabric.driver.registry.errors import RegistryError


def ask(limits: Limits, now_s: float, client: str = "a") -> None:
    with limits.request(client, now_s):
        pass


def test_a_burst_passes_then_one_at_a_time() -> None:
    limits = Limits(requests=Rate(per_s=2.0, burst=3.0))
    for _ in range(3):
        ask(limits, 10.0)
    with pytest.raises(RegistryError) as refused:
        ask(limits, 10.0)
    assert (refused.value.status, refused.value.code) == (429, "TOOMANYREQUESTS")
    assert refused.value.headers == {"Retry-After": "1"}
    ask(limits, 10.5)
    with pytest.raises(RegistryError):
        ask(limits, 10.6)


def test_retry_after_is_when_it_will_work() -> None:
    limits = Limits(requests=Rate(per_s=0.1, burst=1.0))
    ask(limits, 0.0)
    with pytest.raises(RegistryError) as refused:
        ask(limits, 2.5)
    assert refused.value.headers == {"Retry-After": "8"}
    ask(limits, 10.5)


def test_what_is_refused_does_not_count() -> None:
    limits = Limits(requests=Rate(per_s=1.0, burst=1.0))
    ask(limits, 0.0)
    for _ in range(5):
        with pytest.raises(RegistryError):
            ask(limits, 0.5)
    ask(limits, 1.0)


def test_one_client_does_not_count_for_another() -> None:
    limits = Limits(requests=Rate(per_s=1.0, burst=1.0), concurrent_max=1)
    with limits.request("a", 0.0):
        ask(limits, 0.0, "b")


def test_idleness_saves_no_more_than_a_burst() -> None:
    limits = Limits(requests=Rate(per_s=1.0, burst=2.0))
    ask(limits, 0.0)
    for _ in range(2):
        ask(limits, 1000.0)
    with pytest.raises(RegistryError):
        ask(limits, 1000.0)


def test_a_place_is_free_again_when_a_request_ends_however_it_ends() -> None:
    limits = Limits(concurrent_max=1)
    with pytest.raises(KeyError), limits.request("a", 0.0):
        with pytest.raises(RegistryError) as refused:
            ask(limits, 0.0)
        assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "1"})
        raise KeyError
    ask(limits, 0.0)


def test_wrong_passwords_are_counted_apart() -> None:
    limits = Limits(wrong_passwords=Rate(per_s=1.0, burst=2.0))
    for _ in range(2):
        limits.check_passwords("x", 0.0)
        limits.wrong_password("x", 0.0)
    with pytest.raises(RegistryError, match="wrong passwords"):
        limits.check_passwords("x", 0.0)
    limits.check_passwords("y", 0.0)
    ask(limits, 0.0, "x")
    limits.check_passwords("x", 1.0)


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::4", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "unknown"),
        (None, "unknown"),
        ("a socket", "a socket"),
    ],
)
def test_what_counts_as_one_address(remote: str | None, address: str) -> None:
    assert address_of(remote) == address


def test_memory_is_bounded_and_those_who_come_often_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLIENTS_MAX", 10)
    rate = Rate(per_s=0.001, burst=2.0)
    rate.take("often", 0.0)
    rate.take("often", 0.0)
    for number in range(100):
        rate.take(f"client-{number}", 0.0)
        rate.take("often", 0.0)
    assert len(rate._levels) == 10
    assert rate.wait_s("often", 0.0) > 0
    assert rate.wait_s("client-0", 0.0) == 0
