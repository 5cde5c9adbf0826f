"""Buckets of fids: neighbours together, runs of them spread."""

from __future__ import annotations

from collections import Counter

import pytest

from fabric.ids import bucket_of
from fabric.settings import BUCKETS


@pytest.mark.parametrize("first", [0, 64, 6_400_000, 2**64 - 64])
def test_64_neighbours_share_a_bucket(first: int) -> None:
    assert len({bucket_of(fid) for fid in range(first, first + 64)}) == 1


def test_what_is_written_at_one_time_lies_in_few_buckets() -> None:
    """What replicas that differ by it have to compare, and a batch has to count."""
    for first in range(1, 100_000, 997):
        assert len({bucket_of(fid) for fid in range(first, first + 64)}) <= 2
        assert len({bucket_of(fid) for fid in range(first, first + 1_000)}) <= 17


def test_buckets_are_even_whatever_part_of_the_fids_is_in_use() -> None:
    for first, count in ((1, 1_000_000), (123_456_789, 1_000_000), (2**40, 100_000)):
        sizes = Counter(bucket_of(fid) for fid in range(first, first + count))
        assert len(sizes) == BUCKETS
        assert max(sizes.values()) <= 1.5 * count / BUCKETS
        assert min(sizes.values()) >= 0.5 * count / BUCKETS
