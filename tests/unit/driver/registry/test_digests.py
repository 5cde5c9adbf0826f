"""Running digests: right whatever the pieces, one batch at a time, and parked within limits."""

from __future__ import annotations

import asyncio
import hashlib
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from fabric.driver.registry.digests import ParkedDigests
from fabric.driver.registry.hashing import BATCH_BYTES, ThreadedDigest, digests_on
from tests.unit.driver.registry.harness import asynchronous


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@asynchronous
async def test_any_pieces_give_the_digest_of_the_whole(algorithm: str) -> None:
    rng = random.Random(7)
    data = rng.randbytes(3 * BATCH_BYTES + 17)
    with ThreadPoolExecutor(2) as executor:
        digest = digests_on(executor)(algorithm)
        position = 0
        while position < len(data):
            size = rng.choice([1, 1000, 70_000, BATCH_BYTES + 1])
            await digest.update(memoryview(data)[position : position + size])
            position += size
        await digest.settle()
        assert digest.size == len(data)
        assert digest.value() == hashlib.new(algorithm, data).hexdigest()


@asynchronous
async def test_nothing_has_a_digest_and_settling_twice_is_harmless() -> None:
    with ThreadPoolExecutor(1) as executor:
        digest = ThreadedDigest(executor, "sha256")
        await digest.settle()
        await digest.settle()
        assert (digest.size, digest.value()) == (0, hashlib.sha256().hexdigest())


@asynchronous
async def test_a_copy_goes_its_own_way() -> None:
    with ThreadPoolExecutor(1) as executor:
        digest = ThreadedDigest(executor, "sha256")
        await digest.update(b"same ")
        await digest.settle()
        twin = digest.copy()
        await digest.update(b"one")
        await twin.update(b"two")
        await asyncio.gather(digest.settle(), twin.settle())
        assert digest.value() == hashlib.sha256(b"same one").hexdigest()
        assert twin.value() == hashlib.sha256(b"same two").hexdigest()
        assert (digest.size, twin.size) == (8, 8)


@asynchronous
async def test_a_digest_under_way_has_neither_value_nor_copy() -> None:
    with ThreadPoolExecutor(1) as executor:
        digest = ThreadedDigest(executor, "sha256")
        await digest.update(b"x")
        with pytest.raises(AssertionError):
            digest.value()
        with pytest.raises(AssertionError):
            digest.copy()


async def settled(executor: ThreadPoolExecutor, data: bytes, algorithm: str = "sha256") -> ThreadedDigest:
    digest = ThreadedDigest(executor, algorithm)
    await digest.update(data)
    await digest.settle()
    return digest


@asynchronous
async def test_parked_digests_are_found_by_upload_algorithm_and_size() -> None:
    with ThreadPoolExecutor(1) as executor:
        parked = ParkedDigests()
        parked.park("a", await settled(executor, b"abc"), now=0.0)
        parked.park("a", await settled(executor, b"abc", "sha512"), now=0.0)
        found = parked.copy_of("a", "sha256", 3, now=0.0)
        assert found is not None and found.value() == hashlib.sha256(b"abc").hexdigest()
        await found.update(b"more")
        await found.settle()
        again = parked.copy_of("a", "sha256", 10, now=0.0)
        assert again is not None and again.value() == hashlib.sha256(b"abc").hexdigest()
        assert parked.copy_of("a", "sha256", 2, now=0.0) is None, "it covers more than is stored"
        assert parked.copy_of("b", "sha256", 3, now=0.0) is None
        parked.drop("a")
        parked.drop("a")
        assert len(parked) == 0


@asynchronous
async def test_parked_digests_expire_and_are_bounded() -> None:
    with ThreadPoolExecutor(1) as executor:
        digest = await settled(executor, b"x")
        parked = ParkedDigests(count_max=3, ttl_s=10.0)
        for number in range(5):
            parked.park(str(number), digest, now=float(number))
        assert [parked.copy_of(str(n), "sha256", 1, now=4.0) is None for n in range(5)] == [
            True,
            True,
            False,
            False,
            False,
        ]
        assert parked.copy_of("2", "sha256", 1, now=12.0) is None
        parked.park("9", digest, now=13.0)
        assert len(parked) == 2, "3 and older are gone"
