"""Names and numbers that identify things, each with its own type."""

from __future__ import annotations

from typing import NewType

Fid = NewType("Fid", int)
"""64-bit id of a fragment, unique for ever; the master leases ranges of them."""

GroupId = NewType("GroupId", int)
"""Id of a replica set, from 1."""

Epoch = NewType("Epoch", int)
"""Counter of a group, raised at every change of its members or state."""

ServerName = NewType("ServerName", str)
"""Logical name of a chunk server, such as ``chunk-1``; stable across restarts."""

Endpoint = NewType("Endpoint", str)
"""A ZeroMQ address, such as ``tcp://127.0.0.1:7400``."""

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = 2**64 - 1

RUN_BITS = 6
"""So many low bits of a fid have no say in its bucket."""


def bucket_of(fid: int) -> int:
    """The bucket of a fid: the top byte of (fid // 64) * 0x9E3779B97F4A7C15 mod 2**64.

    64 neighbours share a bucket, and the multiplication spreads such runs over all of them.  Fids are handed
    out one after the other, so what is written at one time changes few counters, and replicas that
    differ by it have few buckets to compare.
    """
    return (((fid >> RUN_BITS) * _GOLDEN) & _MASK) >> 56
