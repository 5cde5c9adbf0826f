"""Tokens: who signed what, for whom, until when.  Security case 6."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest

from fabric.driver.registry.access import tokens
from fabric.driver.registry.access.policy import Identity, Right
from fabric.driver.registry.access.token_keys import BadKeys, parse_keys
from fabric.driver.registry.access.tokens import BadToken, Trust
from tests.unit.driver.registry.access.access_world import (
    EC,
    ISSUER,
    PRIVATE,
    RSA,
    SERVICE,
    STRANGER,
    claims,
    jwk,
    jwks,
    public_pem,
    sign,
)

NOW_S = 1_800_000_000.0


def trust(keys: str | bytes | None = None) -> Trust:
    data = jwks() if keys is None else keys
    return Trust(
        parse_keys(data if isinstance(data, bytes) else data.encode()), ISSUER, SERVICE, leeway_s=10.0
    )


def refused(token: str, reason: str, keys: str | bytes | None = None) -> None:
    with pytest.raises(BadToken, match=reason):
        trust(keys).verify(token, NOW_S)


def by_hand(header: dict[str, Any], payload: dict[str, Any], signature: bytes = b"") -> str:
    """A token as an attacker would make one."""
    parts = [json.dumps(header).encode(), json.dumps(payload).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


# --- good ones ------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", PRIVATE)
@pytest.mark.parametrize("form", ["jwks", "pem"])
def test_a_good_token_says_who_and_what(algorithm: str, form: str) -> None:
    keys = public_pem(algorithm) if form == "pem" else jwks()
    identity, grants = trust(keys).verify(sign(claims(NOW_S), algorithm), NOW_S)
    assert identity == Identity("alice")
    assert grants.of("app") == {Right.PULL, Right.PUSH}
    assert grants.of("other") == set() and not grants.catalog


def test_what_tokens_may_have_otherwise() -> None:
    access = [
        {"type": "repository", "name": "app", "class": "image", "actions": ["pull", "unknown"]},
        {"type": "repository(plugin)", "name": "app", "actions": ["delete"]},
        {"type": "repository", "name": "all", "actions": ["*"]},
        {"type": "registry", "name": "catalog", "actions": ["*"]},
        {"type": "something", "name": "app", "actions": ["push"]},
    ]
    payload = claims(
        NOW_S, sub=None, nbf=None, aud=["other", SERVICE], access=access, jti="x", exp=NOW_S + 1.5
    )
    identity, grants = trust().verify(sign(payload), NOW_S)
    assert identity == Identity("")
    assert grants.of("app") == {Right.PULL, Right.DELETE}
    assert grants.of("all") == set(Right)
    assert grants.catalog


def test_a_token_without_access_allows_nothing_but_to_come_in() -> None:
    _, grants = trust().verify(sign(claims(NOW_S, access=None)), NOW_S)
    assert grants.repositories == {} and not grants.catalog


def test_clocks_may_differ_by_the_leeway() -> None:
    trust().verify(sign(claims(NOW_S, exp=NOW_S - 9)), NOW_S)
    trust().verify(sign(claims(NOW_S, nbf=NOW_S + 9)), NOW_S)


def test_certificates_in_the_header_are_passed_over() -> None:
    trust().verify(sign(claims(NOW_S), x5c=["MIIB"]), NOW_S)


def test_a_remembered_token_still_ends_and_its_signature_is_looked_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[str] = []
    real = Trust._claims
    monkeypatch.setattr(Trust, "_claims", lambda self, token: (looked.append(token), real(self, token))[1])
    server, token = trust(), sign(claims(NOW_S))
    for _ in range(3):
        server.verify(token, NOW_S)
    assert looked == [token]
    with pytest.raises(BadToken, match="expired"):
        server.verify(token, NOW_S + 400)
    for _ in range(2):
        with pytest.raises(BadToken, match="no key"):
            server.verify(sign(claims(NOW_S), key=STRANGER), NOW_S)
    assert len(looked) == 3, "what is bad is not remembered"


def test_a_bounded_number_of_tokens_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "REMEMBERED_MAX", 3)
    server = trust()
    for number in range(10):
        server.verify(sign(claims(NOW_S, jti=f"{number}")), NOW_S)
    assert len(server._verified) == 3


# --- security case 6 ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["none", "None", "NONE", ""])
def test_security_case_06_no_algorithm(name: str) -> None:
    for key_id in ("key-ES256", "key-RS256"):
        refused(by_hand({"alg": name, "kid": key_id}, claims(NOW_S)), "no key that we trust")
    refused(by_hand({"kid": "key-ES256"}, claims(NOW_S)), "no key that we trust")


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_security_case_06_hmac_with_the_public_key(algorithm: str) -> None:
    import hashlib
    import hmac

    hashes = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}
    for kind in PRIVATE:
        unsigned = by_hand({"alg": algorithm, "kid": f"key-{kind}"}, claims(NOW_S)).rstrip(".")
        secret = public_pem(kind)
        mac = hmac.new(secret, unsigned.encode(), hashes[algorithm]).digest()
        token = unsigned + "." + base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
        assert jwt.PyJWS().decode_complete(
            token, options={"verify_signature": False}
        )["signature"] == mac  # fmt: skip
        refused(token, "no key that we trust")
        refused(token, "no key that we trust", secret)


@pytest.mark.parametrize("parameter", ["jwk", "jku", "x5u"])
def test_security_case_06_a_key_in_the_header(parameter: str) -> None:
    own = jwt.get_algorithm_by_name("ES256").to_jwk(STRANGER.public_key(), as_dict=True)
    value = own if parameter == "jwk" else "https://evil.example.org/keys"
    refused(sign(claims(NOW_S), key=STRANGER, **{parameter: value}), "a key of its own")
    # Even when one of ours signed it: nobody needs that.
    refused(sign(claims(NOW_S), **{parameter: value}), "a key of its own")
    refused(sign(claims(NOW_S), key=STRANGER), "no key that we trust")


@pytest.mark.parametrize(
    "key_id",
    [
        "key-RS256",
        "unknown",
        "",
        "../../../../dev/null",
        "/etc/passwd",
        "key-ES256\0",
        "key-ES256' or '1'='1",
        "k" * 4000,
    ],
    ids=lambda key_id: repr(key_id[:20]),
)
def test_security_case_06_tricks_with_the_key_id(key_id: str) -> None:
    refused(sign(claims(NOW_S), kid=key_id), "no key that we trust")


@pytest.mark.parametrize("key_id", [0, ["key-ES256"], {"key-ES256": 1}, True])
def test_security_case_06_a_key_id_that_is_no_text(key_id: object) -> None:
    header = {"alg": "ES256", "kid": key_id}
    refused(by_hand(header, claims(NOW_S), b"x" * 64), "not a token|no key")


def test_security_case_06_an_algorithm_of_another_key() -> None:
    refused(sign(claims(NOW_S), "RS256", kid="key-ES256"), "no key that we trust")
    refused(sign(claims(NOW_S), "PS256", key=RSA, kid="key-RS256"), "no key that we trust")
    refused(sign(claims(NOW_S), "RS512", key=RSA, kid="key-RS256"), "no key that we trust")


def test_security_case_06_a_signature_of_other_bytes() -> None:
    head, payload, signature = sign(claims(NOW_S)).split(".")
    richer = by_hand({}, claims(NOW_S, sub="root")).split(".")[1]
    refused(f"{head}.{richer}.{signature}", "no key that we trust")
    refused(f"{head}.{payload}.", "no key that we trust")
    refused(f"{head}.{payload}.{'A' * 86}", "no key that we trust")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"iss": "evil.example.org"}, "another issuer"),
        ({"iss": ISSUER.upper()}, "another issuer"),
        ({"iss": None}, "claims"),
        ({"iss": [ISSUER]}, "not a token|claims"),
        ({"aud": "other"}, "another service"),
        ({"aud": []}, "another service"),
        ({"aud": f"{SERVICE}.evil.org"}, "another service"),
        ({"aud": None}, "claims"),
        ({"aud": {SERVICE: 1}}, "claims"),
        ({"exp": NOW_S - 10}, "expired"),
        ({"exp": 0}, "expired"),
        ({"exp": None}, "claims"),
        ({"exp": "9999999999"}, "claims"),
        ({"exp": True}, "claims"),
        ({"nbf": NOW_S + 11}, "not valid yet"),
        ({"nbf": "soon"}, "claims"),
        ({"sub": 7}, "not a token|claims"),
        ({"sub": "@builders"}, "looks like a group"),
        ({"sub": "@everybody"}, "looks like a group"),
        ({"access": "app:pull"}, "claims"),
        ({"access": [{"type": "repository", "name": "app"}]}, "claims"),
        ({"access": [{"type": "repository", "name": "app", "actions": "pull"}]}, "claims"),
    ],
    ids=str,
)
def test_security_case_06_wrong_claims(changed: dict[str, Any], reason: str) -> None:
    payload = {name: value for name, value in {**claims(NOW_S), **changed}.items() if value is not None}
    text = jwt.PyJWS().encode(json.dumps(payload).encode(), EC, "ES256", {"kid": "key-ES256"})
    refused(text, reason)


@pytest.mark.parametrize("exp", ["Infinity", "NaN", "1e999"])
def test_security_case_06_a_time_that_is_no_number(exp: str) -> None:
    payload = json.dumps(claims(NOW_S)).replace(str(claims(NOW_S)["exp"]), exp).encode()
    refused(jwt.PyJWS().encode(payload, EC, "ES256", {"kid": "key-ES256"}), "claims|expired")


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "a.b",
        "a.b.c",
        "é.é.é",
        "e30.e30.",
        "bnVsbA.e30.",
        "W10.e30.AA",
        "x" * 20_000,
        "." * 5000,
    ],
    ids=lambda token: token[:10],
)
def test_what_is_no_token_at_all(token: str) -> None:
    refused(token, "token")


def test_json_that_is_deep_is_refused_like_any_other() -> None:
    deep = "[" * 5000 + "]" * 5000
    header = base64.urlsafe_b64encode(f'{{"alg":"ES256","x":{deep}}}'.encode()).rstrip(b"=").decode()
    refused(f"{header}.e30.AA", "token")
    payload = f'{{"access":{deep}}}'.encode()
    refused(jwt.PyJWS().encode(payload, EC, "ES256", {"kid": "key-ES256"}), "token")


# --- files of keys --------------------------------------------------------------------------------


def test_several_keys_in_one_pem_file_and_any_key_id() -> None:
    keys = b"remarks\n" + public_pem("RS256") + public_pem("ES256") + public_pem("EdDSA")
    for algorithm in PRIVATE:
        trust(keys).verify(sign(claims(NOW_S), algorithm, kid="PYYO:TEWU:V7JH"), NOW_S)
        trust(keys).verify(sign(claims(NOW_S), algorithm, kid=None), NOW_S)


def test_keys_for_something_else_are_passed_over() -> None:
    keys = parse_keys(jwks(jwk("ES256", use="enc"), jwk("RS256", use="sig")).encode())
    assert [key.algorithm for key in keys] == ["RS256"]


def test_a_new_key_is_taken_beside_the_old_one() -> None:
    both = jwks(jwk("ES256"), jwk("EdDSA"))
    for algorithm in ("ES256", "EdDSA"):
        trust(both).verify(sign(claims(NOW_S), algorithm), NOW_S)


def private_pem() -> bytes:
    from cryptography.hazmat.primitives import serialization

    return EC.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def small_rsa() -> dict[str, Any]:
    return {**jwk("RS256"), "n": base64.urlsafe_b64encode(b"\xff" * 64).rstrip(b"=").decode()}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "neither PEM nor JSON"),
        (b"[]", "not a JWKS"),
        (b'{"keys": [1]}', "not a JWKS"),
        (b'{"keys": []}', "no key in it"),
        (b"[" * 100_000, "neither PEM nor JSON"),
        (jwks({"kty": "oct", "k": "c2VjcmV0"}).encode(), "keys.0.: not RSA, EC"),
        (jwks(jwk("ES256", crv="P-384")).encode(), "keys.0.: not RSA, EC"),
        (jwks(jwk("ES256"), jwk("RS256", d="AQAB")).encode(), "keys.1. is a private key"),
        (jwks(jwk("ES256", alg="HS256")).encode(), "alg is 'HS256'"),
        (jwks(jwk("ES256", x="AAAA")).encode(), "keys.0."),
        (jwks(jwk("ES256", kid=3)).encode(), "kid is not a string"),
        (jwks(jwk("ES256"), jwk("RS256", kid="key-ES256")).encode(), "the same kid"),
        (jwks(small_rsa()).encode(), "2048"),
        (private_pem(), "block 1 is a private key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "cannot be read"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n", "no key in it"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_of_keys_that_cannot_be_used_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(BadKeys, match=reason):
        parse_keys(data)
