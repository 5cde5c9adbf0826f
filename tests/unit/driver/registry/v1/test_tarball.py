"""Layers are read in bounded memory, whatever they are; tarsums are those that Docker's client computes."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import io
import lzma
import random
import tarfile
from typing import Any

import pytest

from fabric.driver.registry.v1 import tarball
from fabric.driver.registry.v1.checksums import TARSUM, TARSUM_V1, Checksum, parse_checksum
from fabric.driver.registry.v1.reading import LayerReading
from fabric.driver.registry.v1.tarball import ReadPiece, UnreadableLayer, listing, tar_sum, unpacked
from fabric.errors import Unavailable
from tests.unit.driver.registry.harness import asynchronous
from tests.unit.driver.registry.memory_store import MemoryStore
from tests.unit.driver.registry.v1.docker import Image, layer_of, legacy
from tests.unit.driver.registry.v1.test_push_http import refused


def pieces_of(data: bytes, size: int = 1000) -> ReadPiece:
    source = io.BytesIO(data)
    return lambda: source.read(size)


def tar_of(*members: tuple[dict[str, Any], bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for fields, data in members:
            member = tarfile.TarInfo()
            for name, value in {"mode": 0, "size": len(data), **fields}.items():
                setattr(member, name, value)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


SOMEBODY = {"uid": 1000, "gid": 1000, "uname": "slartibartfast", "gname": "users"}


def with_attributes(**attributes: str) -> dict[str, Any]:
    found = {f"SCHILY.xattr.user.{name}": value for name, value in attributes.items()}
    return {"name": "xattrs.txt", **SOMEBODY, "pax_headers": found}


def changed(header: bytes, **fields: tuple[int, bytes]) -> bytes:
    """A header with other bytes at some places, and the checksum that they need."""
    block = bytearray(header)
    for at, value in fields.values():
        block[at : at + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def header_of(kind: bytes, size: bytes, **fields: tuple[int, bytes]) -> bytes:
    header = tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT)
    return changed(header, size=(124, size), kind=(156, kind), **fields)


# --- tarsum ---------------------------------------------------------------------------------------

KNOWN = [
    (TARSUM, [], "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    (
        TARSUM,
        [({"name": "file.txt"}, b"")],
        "",
        "626c4a2e9a467d65c33ae81f7f3dedd4de8ccaee72af73223c4bc4718cbc7bbd",
    ),
    (
        TARSUM_V1,
        [({"name": "file.txt"}, b"")],
        "",
        "6ffd43a1573a9913325b4918e124ee982a99c0f3cba90fc032a65f5e20bdd465",
    ),
    (
        TARSUM_V1,
        [({"name": "another.txt", **SOMEBODY}, b"test")],
        "",
        "b38166c059e11fb77bef30bf16fba7584446e80fcc156ff46d47e36c5305d8ef",
    ),
    (
        TARSUM_V1,
        [(with_attributes(key1="value1", key2="value2"), b"test")],
        "",
        "4cc2e71ac5d31833ab2be9b4f7842a14ce595ec96a37af4ed08f87bc374228cd",
    ),
    (
        TARSUM_V1,
        [(with_attributes(KEY1="value1", key2="value2"), b"test")],
        "",
        "65f4284fa32c0d4112dd93c3637697805866415b570587e4fd266af241503760",
    ),
    (
        TARSUM,
        [(with_attributes(NOT="CALCULATED"), b"test")],
        "",
        "c12bb6f1303a9ddbf4576c52da74973c00d14c109bcfa76b708d5da1154a07fa",
    ),
    (
        TARSUM,
        [({"name": "/testdata0", "mode": 0o755, "type": tarfile.AREGTYPE}, bytes(1024 * 1024))],
        "",
        "8bf12d7e67c51ee2e8306cba569398b1b9f419969521a12ffb9d8875e8836738",
    ),
]
"""What Docker's own tests expect of these files."""


@pytest.mark.parametrize(("kind", "members", "said", "expected"), KNOWN)
def test_a_tarsum_is_the_one_that_docker_computes(
    kind: str, members: list[Any], said: str, expected: str
) -> None:
    assert tar_sum(pieces_of(tar_of(*members)), said.encode(), kind) == expected


def test_a_folder_counts_with_its_slash() -> None:
    """The layer that most images began with.  Its mode has bits that ``tarfile`` does not write."""
    said = (
        b'{"id":"511136ea3c5a64f264b78b5433614aec563103b4d4702f3ba7d4d2698e22c158","comment":"Imported from '
        b'-","created":"2013-06-13T14:03:50.821769-07:00","container_config":{"Hostname":"","Domainname":"",'
        b'"User":"","Memory":0,"MemorySwap":0,"CpuShares":0,"AttachStdin":false,"AttachStdout":false,'
        b'"AttachStderr":false,"PortSpecs":null,"ExposedPorts":null,"Tty":false,"OpenStdin":false,'
        b'"StdinOnce":false,"Env":null,"Cmd":null,"Image":"","Volumes":null,"WorkingDir":"",'
        b'"Entrypoint":null,"NetworkDisabled":false,"OnBuild":null},"docker_version":"0.4.0",'
        b'"architecture":"x86_64","Size":0}'
    )
    folder = {"name": "./", "type": tarfile.DIRTYPE, "mtime": 1371157405}
    data = tar_of((folder, b""))
    data = changed(data[:512], mode=(100, b"0040755\0")) + data[512:]
    expected = "ac672ee85da9ab7f9667ae3c32841d3e42f33cc52c273c23341dabba1c8b0c8b"
    assert tar_sum(pieces_of(data), said, TARSUM) == expected


@pytest.mark.parametrize(
    "compress", [gzip.compress, bz2.compress, lzma.compress], ids=lambda one: one.__module__
)
def test_a_tarsum_depends_neither_on_compression_nor_on_order(compress: Any) -> None:
    files = [({"name": f"f{number}"}, random.Random(number).randbytes(70_000)) for number in range(5)]
    plain = tar_sum(pieces_of(tar_of(*files)), b"{}", TARSUM)
    other = compress(tar_of(*reversed(files)))
    for size in (1, 7, 65_536) if compress is gzip.compress else (65_536,):
        assert tar_sum(pieces_of(other, size), b"{}", TARSUM) == plain
    assert tar_sum(pieces_of(tar_of(*files[1:])), b"{}", TARSUM) != plain


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_odd_names_and_sizes_are_read_in_every_form(form: int) -> None:
    name = "a" * 90 + "/" + "b" * 60
    data = tar_of(({"name": name, "mtime": 5}, b"x" * 513), ({"name": "last", "mtime": 6}, b""), form=form)
    assert [entry[:5] for entry in listing(pieces_of(data))] == [
        [f"/{name}", "f", False, 513, 5],
        ["/last", "f", False, 0, 6],
    ]


def test_a_name_that_is_no_unicode_is_hashed_as_it_is_and_listed_as_text() -> None:
    data = tar_of(({"name": b"caf\xe9".decode(errors="surrogateescape")}, b""), form=tarfile.GNU_FORMAT)
    assert listing(pieces_of(data))[0][0] == "/caf�"
    assert len(tar_sum(pieces_of(data), b"", TARSUM)) == 64


def test_several_compressed_parts_are_one() -> None:
    data = tar_of(({"name": "a"}, b"1"))
    parts = gzip.compress(data[:100]) + gzip.compress(data[100:]) + bytes(512)
    assert b"".join(unpacked(pieces_of(parts, 10))) == data


# --- listing --------------------------------------------------------------------------------------


def test_a_listing_tells_kinds_and_deletions() -> None:
    data = tar_of(
        ({"name": "./", "type": tarfile.DIRTYPE, "mode": 0o755}, b""),
        ({"name": "./etc/", "type": tarfile.DIRTYPE, "mode": 0o755}, b""),
        ({"name": "etc/link", "type": tarfile.SYMTYPE, "linkname": "x"}, b""),
        ({"name": "./etc/.wh.gone", "mode": 0o644}, b""),
        ({"name": ".wh..wh.aufs"}, b""),
        ({"name": "dev/null", "type": tarfile.CHRTYPE}, b""),
    )
    assert [entry[:3] for entry in listing(pieces_of(data))] == [
        ["/", "d", False],
        ["/etc", "d", False],
        ["/etc/link", "s", False],
        ["/etc/gone", "f", True],
        ["/dev/null", "c", False],
    ]


def test_a_sparse_file_does_not_hide_the_next_one() -> None:
    """Its size is not that of its bytes."""

    def number(value: int) -> bytes:
        return b"%011o\0" % value

    parts = {"at": (386, number(0)), "bytes": (398, number(512)), "real": (483, number(100_000))}
    sparse = header_of(b"S", number(512), magic=(257, b"ustar  \0"), **parts) + b"x" * 512
    data = sparse + tar_of(({"name": "next"}, b"y"))
    assert [entry[:4] for entry in listing(pieces_of(data))] == [
        ["/x", "f", False, 100_000],
        ["/next", "f", False, 1],
    ]
    assert len(tar_sum(pieces_of(data), b"", TARSUM)) == 64


# --- hostile layers -------------------------------------------------------------------------------

HUGE = b"%011o\0" % (6 * 1024**3)


def small(number: int) -> bytes:
    text = f" k{number:06d}=v\n"
    record = f"{len(text) + 2}{text}".encode()
    return header_of(b"x", b"%011o\0" % len(record)) + record.ljust(512, b"\0")


def globals_of(count: int) -> bytes:
    text = "".join(f"14 k{number:07d}=v\n" for number in range(count)).encode()
    padded = text.ljust(-(-len(text) // 512) * 512, b"\0")
    return header_of(b"g", b"%011o\0" % len(text)) + padded + header_of(b"0", b"%011o\0" % 0) + bytes(1024)


HOSTILE = {
    "a header of gigabytes": header_of(b"x", HUGE) + bytes(100_000),
    "a name of gigabytes": header_of(b"L", HUGE) + bytes(100_000),
    "a chain of headers": b"".join(map(small, range(2000))) + bytes(1024),
    "fields for all files": globals_of(100),
    "a sparse map without end": header_of(b"S", b"%011o\0" % 0, more=(482, b"\1")) + b"\1" * 2**21,
    "no tar file": b"<html>" * 1000,
    "a file that ends": header_of(b"0", b"%011o\0" % 5000) + b"x" * 4000,
    "compression that ends": gzip.compress(random.Random(1).randbytes(9000))[:-5000],
    "broken compression": b"\x1f\x8b\x08\0" + b"\xff" * 100,
    "a compressed bomb as a header": gzip.compress(header_of(b"x", HUGE) + bytes(50_000_000)),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_layer_is_unreadable_and_nothing_worse(data: bytes) -> None:
    for work in (listing, lambda read: tar_sum(read, b"", TARSUM)):
        with pytest.raises(UnreadableLayer):
            work(pieces_of(data, 65_536))


@pytest.mark.parametrize("kind", [b"x", b"L", b"K", b"g"])
def test_a_header_that_claims_gigabytes_is_given_up_at_once(kind: bytes) -> None:
    taken = 0

    def read() -> bytes:
        nonlocal taken
        data = bytes(65_536) if taken else header_of(kind, HUGE)
        taken += len(data)
        return data if taken < 2**25 else b""

    with pytest.raises(UnreadableLayer, match="headers that are too large"):
        listing(read)
    assert taken < 2**20


@pytest.mark.parametrize(
    ("limit", "value"), [("MEMBERS_MAX", 3), ("UNPACKED_BYTES_MAX", 2000), ("LISTING_CHARACTERS_MAX", 10)]
)
def test_there_is_an_end_to_what_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    data = tar_of(*(({"name": f"file-{number}"}, b"x" * 600) for number in range(4)))
    assert len(listing(pieces_of(data))) == 4
    monkeypatch.setattr(tarball, limit, value)
    with pytest.raises(UnreadableLayer):
        listing(pieces_of(data))


# --- over HTTP ------------------------------------------------------------------------------------

FILES = {"etc/passwd": b"root", "etc/.wh.shadow": b""}


@asynchronous
async def test_files_are_listed_and_kept() -> None:
    async with legacy() as docker:
        image = Image("files", layer=layer_of(FILES))
        await docker.push("app", "latest", [image])
        first = await docker.ask("GET", f"images/{image.id}/files")
        assert [entry[:4] for entry in first.json] == [
            ["/etc/passwd", "f", False, 4],
            ["/etc/shadow", "f", True, 0],
        ]
        docker.registry.store.fail("open", Unavailable("x"), after=1)  # the layer is not read again
        second = await docker.ask("GET", f"images/{image.id}/files")
        assert (second.status, second.json) == (200, first.json)


@asynchronous
async def test_a_layer_that_is_no_tar_file_is_told_and_what_the_store_fails_too() -> None:
    async with legacy() as docker:
        image = Image("odd", layer=b"no tar file")
        await docker.push("app", "latest", [image])
        refused(400, "Layer format not supported", await docker.ask("GET", f"images/{image.id}/files"))
        docker.registry.store.fail("read", Unavailable("chunk-1 is away"), after=0)
        refused(503, "chunk-1 is away", await docker.ask("GET", f"images/{image.id}/files"))


@pytest.mark.parametrize("kind", [TARSUM, TARSUM_V1])
def test_an_old_client_proves_its_layer_with_a_tarsum(kind: str) -> None:
    async def run() -> None:
        async with legacy() as docker:
            image = Image("old", layer=layer_of(FILES))
            right = Checksum(kind, tar_sum(pieces_of(image.layer), image.json, kind))
            await docker.announce("app", [image])
            await docker.put_json(image)
            await docker.put_layer(image)
            wrong = str(Checksum(kind, "0" * 64))
            refused(400, "Checksum mismatch", await docker.put_checksum(image, X_Docker_Checksum=wrong))
            assert (await docker.put_checksum(image, X_Docker_Checksum=str(right))).status == 200
            assert (await docker.put_checksum(image, X_Docker_Checksum=str(right))).status == 200
            answer = await docker.ask("GET", f"images/{image.id}/json")
            assert answer.headers["X-Docker-Checksum"] == str(right)
            assert answer.headers["X-Docker-Payload-Checksum"] == image.payload

    asyncio.run(run())


@asynchronous
async def test_the_payloads_checksum_decides_where_both_are_given() -> None:
    async with legacy() as docker:
        image = Image("both", layer=b"no tar file")
        await docker.put_json(image)
        await docker.put_layer(image)
        both = {"X_Docker_Checksum": f"tarsum+sha256:{'0' * 64}", "X_Docker_Checksum_Payload": image.payload}
        assert (await docker.put_checksum(image, **both)).status == 200


@asynchronous
async def test_a_reading_that_is_given_up_ends_its_thread() -> None:
    store = MemoryStore()
    await store.put("layer", b"x")
    began, ended = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def endless(read: ReadPiece) -> None:
        loop.call_soon_threadsafe(began.set)
        try:
            while True:
                read()
        finally:
            loop.call_soon_threadsafe(ended.set)

    reading = LayerReading(store)
    task = asyncio.create_task(reading.run("layer", endless))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(5):
        await ended.wait()
    reading.close()


@pytest.mark.parametrize(
    "text", ["sha256:" + "a" * 64, "tarsum+sha256:" + "b" * 64, "tarsum.v1+sha256:" + "c" * 64]
)
def test_a_checksum_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_checksum(text)) == text
