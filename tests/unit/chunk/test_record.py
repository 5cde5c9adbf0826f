"""The bytes of the formats: once written, they never change."""

from __future__ import annotations

import pytest

from fabric.chunk.index import (
    VERSION_VALUE,
    BucketTotals,
    Entry,
    FileTotals,
    IndexLost,
    Watermark,
    bucket_key,
    decode_bucket,
    decode_file,
    decode_key,
    decode_note,
    decode_value,
    encode_bucket,
    encode_file,
    encode_key,
    encode_note,
    encode_value,
    encode_watermark,
    file_key,
    note_key,
)
from fabric.chunk.record import (
    RECORD_HEADER_BYTES,
    SUPERBLOCK_BYTES,
    TOMBSTONE,
    RecordHeader,
    Superblock,
    decode_header,
    decode_superblock,
    encode_header,
    encode_superblock,
    record_bytes,
)

SALT = 0x0123456789ABCDEF
HEADER = RecordHeader(
    fid=0x1122334455667788,
    offset=0x1000,
    checksum=0xA1A2A3A4A5A6A7A8,
    epoch=5,
    time_ms=1_700_000_000_000,
    batch=0x1000,
    group=3,
    length=100,
)
HEADER_HEX = (
    "46526563" "01" "00" "0000"
    "8877665544332211" "0010000000000000" "a8a7a6a5a4a3a2a1" "0500000000000000"
    "0068e5cf8b010000" "0010000000000000" "03000000" "64000000"
)  # fmt: skip


def test_a_header_is_these_bytes() -> None:
    encoded = encode_header(HEADER, SALT)
    assert len(encoded) == RECORD_HEADER_BYTES
    assert encoded.hex() == HEADER_HEX + "cf581dadb94e455f"


def test_a_superblock_is_these_bytes() -> None:
    encoded = encode_superblock(Superblock(bytes(range(16)), 3, SALT, 1_700_000_000_000))
    half = "46414252494344460100000003000000000102030405060708090a0b0c0d0e0f"
    half += "efcdab89674523010068e5cf8b0100006bf4e0209377ac32"
    assert len(encoded) == SUPERBLOCK_BYTES
    assert encoded[:56].hex() == half
    assert encoded[56:2048] == bytes(2048 - 56)
    assert encoded[2048:] == encoded[:2048]


def test_an_index_row_is_these_bytes() -> None:
    key = encode_key(0x1122334455667788)
    assert key.hex() == "668e1122334455667788"
    assert decode_key(key) == 0x1122334455667788
    value = encode_value(
        key, Entry(file=3, offset=0x1000, length=100, checksum=0xA1A2A3A4A5A6A7A8, flags=1, stale=2)
    )
    assert value.hex() == "0010000000000000a8a7a6a5a4a3a2a1030000006400000001000000020000004e1ecef984872ee1"
    assert encode_watermark(Watermark(3, 0x1000)).hex() == "001000000000000003000000d4352bcb4938cc53"


def test_counters_and_notes_of_an_index_are_these_bytes() -> None:
    assert VERSION_VALUE.hex() == "03000000df9741f6f655c422"
    key, totals = bucket_key(7), BucketTotals(digest=0x0102, fragments=3, live_bytes=400)
    assert key.hex() == "6207"
    assert (
        encode_bucket(key, totals).hex()
        == "0000000000000000000000000000010203000000000000009001000000000000e0338c643990a3f3"
    )
    assert decode_bucket(key, encode_bucket(key, totals)) == totals
    key, in_file = file_key(0x010203), FileTotals(records=3, record_bytes=400, end=5000, complete=True)
    assert key.hex() == "6700010203"
    assert (
        encode_file(key, in_file).hex()
        == "0300000000000000900100000000000088130000000000000100000035b168af8b0e7672"
    )
    assert decode_file(key, encode_file(key, in_file)) == (0x010203, in_file)
    key = note_key("scrub")
    assert key == b"nscrub"
    assert encode_note(key, b"abc").hex() == "6162630cd1e97f548deba0"
    assert decode_note(key, encode_note(key, b"abc")) == b"abc"


def test_any_flipped_bit_in_an_index_value_is_noticed() -> None:
    key = encode_key(5)
    value = encode_value(key, Entry(file=3, offset=0x1000, length=100, checksum=7))
    for bit in range(len(value) * 8):
        damaged = bytearray(value)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(IndexLost):
            decode_value(key, bytes(damaged))
    with pytest.raises(IndexLost):
        decode_value(encode_key(6), value)


def test_headers_come_back() -> None:
    data = b"12345678" + encode_header(HEADER, SALT)
    assert decode_header(data, 8, 0x1000, SALT) == HEADER
    assert decode_header(memoryview(data), 8, 0x1000, SALT) == HEADER


def test_a_header_holds_in_its_place_and_its_file_only() -> None:
    data = encode_header(HEADER, SALT)
    assert decode_header(data, 0, 0x1008, SALT) is None
    assert decode_header(data, 0, 0x1000, SALT + 1) is None
    assert decode_header(data[:-1], 0, 0x1000, SALT) is None


def test_any_flipped_bit_in_a_header_is_noticed() -> None:
    data = encode_header(HEADER, SALT)
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        assert decode_header(bytes(damaged), 0, 0x1000, SALT) is None, bit


def test_zeros_are_no_header() -> None:
    assert decode_header(bytes(100), 0, 0, 0) is None


@pytest.mark.parametrize(
    ("payload_bytes", "whole"), [(0, 72), (1, 80), (8, 80), (9, 88), (4 << 20, 72 + (4 << 20))]
)
def test_records_are_padded_to_eight(payload_bytes: int, whole: int) -> None:
    assert record_bytes(payload_bytes) == whole


def test_a_tombstone_has_no_payload() -> None:
    dead = RecordHeader(1, 4096, 7, 1, 0, 4096, 1, 100, TOMBSTONE)
    assert (dead.is_tombstone, dead.payload_bytes, dead.end) == (True, 0, 4096 + 72)
    assert (HEADER.is_tombstone, HEADER.payload_bytes, HEADER.end) == (False, 100, 0x1000 + 176)


def test_a_superblock_with_one_sound_copy_is_read() -> None:
    block = Superblock(bytes(range(16)), 3, SALT, 1)
    data = encode_superblock(block)
    for place in range(56):
        for start in (0, 2048):
            damaged = bytearray(data)
            damaged[start + place] ^= 1
            assert decode_superblock(bytes(damaged)) == block
        damaged[2048 - start + place] ^= 1
        assert decode_superblock(bytes(damaged)) is None
    assert decode_superblock(data[:2048]) == block
    assert decode_superblock(data[:55]) is None
    assert decode_superblock(b"") is None
