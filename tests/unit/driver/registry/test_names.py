"""Grammars of names, tags, digests and ranges, and of paths before anything reads them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric.driver.registry import names
from fabric.driver.registry.errors import RegistryError
from fabric.driver.registry.names import Digest, is_tag, parse_digest, parse_reference, repository_name
from fabric.driver.registry.ranges import (
    RANGES_MAX,
    ByteRange,
    download_ranges,
    progress_header,
    upload_range,
)
from fabric.driver.registry.routes import Endpoint, Route, parse_path
from fabric.settings import PATH_BYTES_MAX

HEX = "0123456789abcdef" * 4


def refusal(call, *arguments):  # type: ignore[no-untyped-def]
    with pytest.raises(RegistryError) as caught:
        call(*arguments)
    return caught.value.status, caught.value.code


@pytest.mark.parametrize(
    "name", ["a", "0", "library/ubuntu", "a.b_c__d-e---f", "a/b/c/d", "a" * 255, "manifests", "blobs/uploads"]
)
def test_names(name: str) -> None:
    assert repository_name(name) == name


BAD_NAMES = [
    "", "A", "a/", "/a", "a//b", ".a", "a.", "a..b", "_a", "a_", "a___b", "-a", "a-", "a/../b", "a/.", "..",
    "a b", "a\0", "a\n", "a%2fb", "é", "ａ", "a:b", "a@b", "a/_tags/b", "a" * 256, "a/" * 127 + "ab",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_are_refused(name: str) -> None:
    assert refusal(repository_name, name) == (400, "NAME_INVALID")


def test_tags() -> None:
    assert all(map(is_tag, ["a", "_", "1.0", "v1.0-rc_1", "A" * 128, "latest"]))
    assert not any(map(is_tag, ["", ".a", "-a", "a" * 129, "a/b", "a:b", "a b", "a\n", "é", "..", "a\0"]))


def test_digests() -> None:
    assert parse_digest(f"sha256:{HEX}") == Digest("sha256", HEX)
    assert str(parse_digest(f"sha512:{HEX}{HEX}")) == f"sha512:{HEX}{HEX}"
    assert parse_reference(f"sha256:{HEX}") == Digest("sha256", HEX)
    assert parse_reference("latest") == "latest"
    for bad in (
        "",
        ":",
        "sha256:",
        f"md5:{HEX}",
        f"sha256:{HEX.upper()}",
        f"sha256:{HEX}\n",
        "sha256:../../x",
    ):
        assert refusal(parse_digest, bad) == (400, "DIGEST_INVALID")
    assert refusal(parse_reference, "sha256:x") == (400, "DIGEST_INVALID")


ROUTES = [
    ("/v2", Route(Endpoint.BASE)),
    ("/v2/", Route(Endpoint.BASE)),
    ("/healthz", Route(Endpoint.HEALTH)),
    ("/v2/_catalog", Route(Endpoint.CATALOG)),
    ("/v2/a/tags/list", Route(Endpoint.TAGS, "a")),
    ("/v2/a/b/manifests/latest", Route(Endpoint.MANIFEST, "a/b", "latest")),
    ("/v2/a/manifests/sha256%3Aabc", Route(Endpoint.MANIFEST, "a", "sha256:abc")),
    ("/v2/a/manifests/..x", Route(Endpoint.MANIFEST, "a", "..x")),
    ("/v2/a/blobs/sha256:abc", Route(Endpoint.BLOB, "a", "sha256:abc")),
    ("/v2/a/blobs/uploads", Route(Endpoint.UPLOADS, "a")),
    ("/v2/a/blobs/uploads/", Route(Endpoint.UPLOADS, "a")),
    ("/v2/a/blobs/uploads/x", Route(Endpoint.UPLOAD, "a", "x")),
    ("/v2/a/referrers/sha256:abc", Route(Endpoint.REFERRERS, "a", "sha256:abc")),
    # Repositories may be named like endpoints.
    ("/v2/manifests/manifests/latest", Route(Endpoint.MANIFEST, "manifests", "latest")),
    ("/v2/blobs/uploads/blobs/uploads/", Route(Endpoint.UPLOADS, "blobs/uploads")),
    ("/v2/tags/list/tags/list", Route(Endpoint.TAGS, "tags/list")),
    ("/v2/a/manifests/tags/list", Route(Endpoint.TAGS, "a/manifests")),
    ("/v2/a/%62/tags/list", Route(Endpoint.TAGS, "a/b")),
]


@pytest.mark.parametrize(("path", "route"), ROUTES)
def test_paths(path: str, route: Route) -> None:
    assert parse_path(path) == route


BAD_PATHS = [
    "/v2/a/../tags/list", "/v2/../a/tags/list", "/v2/a/./tags/list", "/v2/%2e%2e/tags/list",
    "/v2/a/%2E%2e/b/tags/list", "/v2/a%2fb/tags/list", "/v2/a%2Fb/tags/list", "/v2/a%5cb/tags/list",
    "/v2/a%252fb/tags/list", "/v2/%252e%252e/tags/list", "/v2/a%00/tags/list", "/v2/a%0a/tags/list",
    "/v2/a%/tags/list", "/v2/a%2/tags/list", "/v2/a%zz/tags/list", "/v2/a//tags/list", "/v2//tags/list",
    "/v2/A/tags/list", "/v2/_tags/tags/list", "/v2/a b/tags/list", "/v2/é/tags/list", "/v2/%c3%a9/tags/list",
    "/v2/" + "a" * 256 + "/tags/list", "/v2/" + "a/" * 600 + "tags/list", "/v2/a/manifests/sha256:../../x",
    "/v2/a/blobs/sha256:..%2f..%2fx", "/v2/a\x7f/tags/list", "/v2/a/blobs/uploads/../../x",
    "/v2/a/manifests/x%252fy", "/v2/a/manifests/x%2525",
]  # fmt: skip


@pytest.mark.parametrize("path", BAD_PATHS)
def test_paths_that_can_hold_no_name(path: str) -> None:
    assert refusal(parse_path, path) == (400, "NAME_INVALID")


@pytest.mark.parametrize(
    "path",
    ["/", "", "/v1/", "/v22/", "/v2/a", "/v2/a/tags", "/v2/a/blobs/", "/v2/tags/list", "/v2/manifests/x",
     "/v2/_catalog/", "/v2/a/manifests/", "v2/a/tags/list", "/v2/a/tags/list/"],
)  # fmt: skip
def test_paths_to_nowhere(path: str) -> None:
    assert refusal(parse_path, path) == (404, "UNSUPPORTED")


@settings(deadline=None)
@given(
    st.text(max_size=60) | st.from_regex(r"/v2/[a-z./%2eEfF_]{0,30}/(tags/list|manifests/a)", fullmatch=True)
)
def test_whatever_comes_a_path_is_refused_or_has_a_valid_name(text: str) -> None:
    try:
        route = parse_path(text)
    except RegistryError as error:
        assert error.status in (400, 404)
    else:
        assert route.name == "" or repository_name(route.name) == route.name
        assert "/" not in route.reference and "\0" not in route.reference


def test_the_longest_names_fit_the_store() -> None:
    name, digest = "a" * 255, Digest("sha512", "f" * 128)
    for path in (
        names.referrer_path(name, digest, digest),
        names.manifest_link_path(name, digest),
        names.tag_path(name, "t" * 128),
        names.name_path(name),
    ):
        assert len(path) <= PATH_BYTES_MAX


def test_a_repository_inside_another_shares_no_folder_with_it() -> None:
    digest = Digest("sha256", HEX)
    assert names.tags_prefix("a/b").startswith(names.tags_prefix("a")) is False
    assert names.blob_link_path("a", digest) == f"repositories/a/_blobs/sha256/{HEX}"
    assert names.blob_path(digest) == f"blobs/sha256/01/{HEX}"


DOWNLOAD_RANGES = [
    ("bytes=0-9", 100, [ByteRange(0, 10)]),
    ("bytes=90-", 100, [ByteRange(90, 10)]),
    ("bytes=-10", 100, [ByteRange(90, 10)]),
    ("bytes=-200", 100, [ByteRange(0, 100)]),
    ("bytes=95-200", 100, [ByteRange(95, 5)]),
    ("bytes=99-99", 100, [ByteRange(99, 1)]),
    ("BYTES= 0-0 ", 100, [ByteRange(0, 1)]),
    ("bytes=0-" + "9" * 30, 100, [ByteRange(0, 100)]),
    ("bytes=0-1,5-6", 100, [ByteRange(0, 2), ByteRange(5, 2)]),
    ("bytes=-1, 5-6 ,\t0-0", 100, [ByteRange(99, 1), ByteRange(5, 2), ByteRange(0, 1)]),
    ("bytes=,0-1,,", 100, [ByteRange(0, 2)]),
    ("bytes=0-1,100-200", 100, [ByteRange(0, 2)]),
    ("bytes=0-59,40-99", 100, None),
    ("bytes=" + ",".join(f"{n}-{n}" for n in range(RANGES_MAX)), 100,
     [ByteRange(n, 1) for n in range(RANGES_MAX)]),
    ("bytes=" + ",".join(f"{n}-{n}" for n in range(RANGES_MAX + 1)), 100, None),
    ("bytes=-", 100, None),
    ("bytes=0-1,-", 100, None),
    ("bytes=a-b", 100, None),
    ("bytes=0-1;2-3", 100, None),
    ("bytes=", 100, None),
    ("bytes=-5", 0, None),
    ("items=0-1", 100, None),
    ("bytes", 100, None),
    ("bytes=0-" + "9" * 5000, 100, None),
]  # fmt: skip


@pytest.mark.parametrize(("header", "size", "expected"), DOWNLOAD_RANGES)
def test_download_ranges(header: str, size: int, expected: list[ByteRange] | None) -> None:
    assert download_ranges(header, size) == expected


@pytest.mark.parametrize(
    ("header", "size"),
    [("bytes=100-", 100), ("bytes=100-200", 100), ("bytes=-0", 100), ("bytes=0-", 0), ("bytes=5-4", 100),
     ("bytes=0-1,5-4", 100), ("bytes=100-,200-300", 100)],
)  # fmt: skip
def test_download_ranges_of_nothing(header: str, size: int) -> None:
    with pytest.raises(RegistryError) as caught:
        download_ranges(header, size)
    assert (caught.value.status, caught.value.headers) == (416, {"Content-Range": f"bytes */{size}"})


@settings(deadline=None)
@given(st.text(alphabet="bytes=0123456789-, ", max_size=40), st.integers(0, 50))
def test_whatever_is_asked_for_no_more_is_sent_than_there_is(header: str, size: int) -> None:
    try:
        parts = download_ranges(header, size)
    except RegistryError as error:
        assert error.status == 416
        return
    for part in parts or []:
        assert part.length > 0 and 0 <= part.start <= part.last < size
    assert parts is None or 0 < sum(part.length for part in parts) <= size


def test_upload_ranges() -> None:
    assert upload_range("0-0") == ByteRange(0, 1)
    assert upload_range("10-19") == ByteRange(10, 10)
    assert ByteRange(10, 10).last == 19
    for bad in ("", "5", "5-", "-5", "6-5", "a-b", "bytes 0-1/2", "0-1/2", "0-1-2", "٠-٩"):
        assert upload_range(bad) is None
    assert [progress_header(size) for size in (0, 1, 10)] == ["0-0", "0-0", "0-9"]
