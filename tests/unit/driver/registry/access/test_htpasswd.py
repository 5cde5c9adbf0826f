"""Password files: parsing, and what counts as the password."""

from __future__ import annotations

import bcrypt
import pytest

from fabric.driver.registry.access.htpasswd import BadPasswordFile, parse_htpasswd

HASH = bcrypt.hashpw(b"secret", b"$2b$04$abcdefghijklmnopqrstuu")


def file_of(*passwords: bytes) -> bytes:
    return b"\n".join(
        b"user-%d:%s" % (number, bcrypt.hashpw(password, bcrypt.gensalt(4)))
        for number, password in enumerate(passwords)
    )


def test_a_right_password_and_wrong_ones() -> None:
    file = parse_htpasswd(b"# people\n\n  alice:" + HASH + b"  \r\n")
    assert file.users == {"alice"}
    assert file.verify("alice", b"secret")
    for user, password in [("alice", b"Secret"), ("alice", b""), ("bob", b"secret"), ("", b"")]:
        assert not file.verify(user, password)


@pytest.mark.parametrize("prefix", [b"$2a$", b"$2b$", b"$2y$"])
def test_every_prefix_of_bcrypt(prefix: bytes) -> None:
    assert parse_htpasswd(b"alice:" + prefix + HASH[4:]).verify("alice", b"secret")


def test_72_bytes_are_a_password_and_73_are_none() -> None:
    file = parse_htpasswd(file_of(b"a" * 72))
    assert file.verify("user-0", b"a" * 72)
    assert not file.verify("user-0", b"a" * 73)
    assert not file.verify("user-0", b"a" * 72 + b"different")


def test_what_stands_in_for_an_unusable_password_is_none_itself() -> None:
    file = parse_htpasswd(file_of(b"x"))
    assert file.verify("user-0", b"x")
    assert not file.verify("user-0", b"y" * 73)


def test_a_nul_ends_no_password() -> None:
    file = parse_htpasswd(file_of(b"secret"))
    assert not file.verify("user-0", b"secret\0more")
    assert not file.verify("user-0", b"\0")


def test_whatever_is_wrong_costs_one_comparison_at_the_highest_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = bcrypt.hashpw(b"secret", bcrypt.gensalt(6))
    file = parse_htpasswd(b"fast:" + HASH + b"\nslow:" + slow)
    compared: list[bytes] = []
    real = bcrypt.checkpw

    def checkpw(password: bytes, hashed: bytes) -> bool:
        compared.append(hashed[:7])
        return real(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", checkpw)
    for user, password in [
        ("nobody", b"x"),
        ("", b""),
        ("slow", b"wrong"),
        ("slow", b"y" * 100),
        ("slow", b"\0"),
    ]:
        assert not file.verify(user, password)
    assert compared == [b"$2b$06$"] * 5


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"alice", "line 1: not NAME:HASH"),
        (b"\n:" + HASH, "line 2: not NAME:HASH"),
        (b"alice:secret", "line 1: the hash of 'alice' is not bcrypt"),
        (b"alice:$apr1$xxxxxxxx$yyyyyyyyyyyyyyyyyyyyyy", "not bcrypt; make it with `htpasswd -B`"),
        (b"alice:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "not bcrypt"),
        (b"alice:" + HASH[:-1], "not bcrypt"),
        (b"a:" + HASH + b"\na:" + HASH, "line 2: 'a' is here twice"),
        (b"@users:" + HASH, "as only groups do"),
        (b"\xff:" + HASH, "not UTF-8"),
        (b"alice:$2b$31$" + HASH[7:], "the cost of 'alice' is 31, not 4 to 14"),
    ],
)
def test_a_mistake_is_told_with_its_line(data: bytes, reason: str) -> None:
    with pytest.raises(BadPasswordFile) as refused:
        parse_htpasswd(data)
    assert reason in str(refused.value)


def test_a_file_without_users_lets_nobody_in() -> None:
    assert not parse_htpasswd(b"").verify("", b"")
