"""What a registry of the first generation expects of a storage driver, whatever is behind it.

One suite for every ``Storage``: over a proxy in memory and over a whole fabric.  ``storage`` is a fixture of
the module that inherits the class.
"""

from __future__ import annotations

import io
import itertools
import random

import pytest

from fabric.driver import Storage
from fabric.settings import FRAGMENT_BYTES_MAX

_names = itertools.count()

LARGE = random.Random(3).randbytes(64 * 1024) * ((2 * FRAGMENT_BYTES_MAX) // (64 * 1024)) + b"the rest"
"""Three fragments, the last one short."""


@pytest.fixture
def name() -> str:
    """A path that nobody has used, in a folder of its own."""
    return f"expectations/{next(_names)}"


class StorageExpectations:
    """The expectations; each test makes what it needs."""

    # --- content ----------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "content",
        [b"", b"a", b"\xc3\x9f", "ß".encode(), b"\0\xff" * 500, b"x" * 1024 * 1024, LARGE],
        ids=["nothing", "a letter", "two bytes", "text", "binary", "a mebibyte", "several fragments"],
    )
    def test_content_is_read_as_often_as_wanted(self, storage: Storage, name: str, content: bytes) -> None:
        storage.put_content(name, content)
        assert [storage.get_content(name) for _ in range(2)] == [content, content]
        assert storage.get_size(name) == len(content)

    @pytest.mark.parametrize(
        "path",
        ["ß", "Ω/λ/名前", "a b/c+d", "%2e%2e", "e\u0301", "😀", "a:b@c#d?e", "-", "a" * 200, ".hidden"],
    )
    def test_a_path_is_any_text(self, storage: Storage, name: str, path: str) -> None:
        storage.put_content(f"{name}/{path}", path.encode())
        assert storage.get_content(f"{name}/{path}") == path.encode()
        assert storage.exists(f"{name}/{path}")
        assert storage.list_directory(name) == [f"{name}/{path.partition('/')[0]}"]

    def test_paths_that_look_alike_are_different(self, storage: Storage, name: str) -> None:
        alike = ["a", "A", "a ", "é", "e\u0301"]
        for path in alike:
            storage.put_content(f"{name}/{path}", path.encode())
        assert [storage.get_content(f"{name}/{path}").decode() for path in alike] == alike
        assert storage.list_directory(name) == sorted(f"{name}/{path}" for path in alike)

    def test_content_is_overwritten_by_more_and_by_less(self, storage: Storage, name: str) -> None:
        for content in (b"first", LARGE, b"second", b""):
            storage.put_content(name, content)
            assert storage.get_content(name) == content
            assert storage.get_size(name) == len(content)
        storage.stream_write(name, io.BytesIO(LARGE))
        assert storage.get_content(name) == LARGE

    # --- existence --------------------------------------------------------------------------------

    def test_only_what_was_written_exists(self, storage: Storage, name: str) -> None:
        assert not storage.exists(name)
        storage.put_content(name, b"")
        assert storage.exists(name)
        assert not storage.exists(name[:-1] + "x")
        assert not storage.exists(f"{name}/below")

    def test_a_folder_exists_while_it_has_something(self, storage: Storage, name: str) -> None:
        storage.put_content(f"{name}/folder/file", b"")
        assert storage.exists(f"{name}/folder")
        assert storage.exists(name)
        storage.remove(f"{name}/folder/file")
        assert not storage.exists(name)

    @pytest.mark.parametrize(
        "ask",
        [
            lambda storage, path: storage.get_content(path),
            lambda storage, path: storage.get_size(path),
            lambda storage, path: storage.remove(path),
            lambda storage, path: list(storage.stream_read(path)),
            lambda storage, path: list(storage.stream_read(path, (0, 1))),
            lambda storage, path: next(iter(storage.list_directory(path))),
            lambda storage, path: storage.move(path, path + "-2"),
        ],
        ids=["get_content", "get_size", "remove", "stream_read", "a range", "list_directory", "move"],
    )
    def test_a_missing_path_is_a_missing_file(self, storage: Storage, name: str, ask) -> None:  # type: ignore[no-untyped-def]
        with pytest.raises(FileNotFoundError):
            ask(storage, name)
        assert not storage.exists(name)
        assert not storage.exists(name + "-2")

    def test_a_folder_has_no_content(self, storage: Storage, name: str) -> None:
        storage.put_content(f"{name}/file", b"x")
        for ask in (storage.get_content, storage.get_size, lambda path: list(storage.stream_read(path))):
            with pytest.raises(FileNotFoundError):
                ask(name)

    # --- removal ----------------------------------------------------------------------------------

    def test_what_is_removed_is_gone_and_can_be_written_again(self, storage: Storage, name: str) -> None:
        storage.put_content(name, b"old")
        storage.remove(name)
        assert not storage.exists(name)
        with pytest.raises(FileNotFoundError):
            storage.remove(name)
        storage.put_content(name, b"new")
        assert storage.get_content(name) == b"new"

    def test_a_folder_is_removed_with_all_in_it(self, storage: Storage, name: str) -> None:
        inside = [f"{name}/a/1", f"{name}/a/2", f"{name}/a/b/c/3"]
        for path in [*inside, f"{name}/ab"]:
            storage.put_content(path, b"x")
        storage.remove(f"{name}/a")
        assert not any(storage.exists(path) for path in [*inside, f"{name}/a/b", f"{name}/a"])
        for path in inside:
            with pytest.raises(FileNotFoundError):
                storage.get_content(path)
        assert storage.list_directory(name) == [f"{name}/ab"]

    # --- streams ----------------------------------------------------------------------------------

    def test_a_stream_is_written_read_and_removed(self, storage: Storage, name: str) -> None:
        assert not storage.exists(name)
        storage.stream_write(name, io.BytesIO(LARGE))
        assert storage.exists(name)
        assert storage.get_size(name) == len(LARGE)
        assert b"".join(storage.stream_read(name)) == LARGE
        storage.remove(name)
        assert not storage.exists(name)

    def test_streams_and_content_are_the_same_thing(self, storage: Storage, name: str) -> None:
        storage.put_content(name, LARGE)
        assert b"".join(storage.stream_read(name)) == LARGE
        storage.stream_write(name, io.BytesIO(b""))
        assert storage.get_content(name) == b""
        assert b"".join(storage.stream_read(name)) == b""

    def test_a_source_may_give_less_than_was_asked_for(self, storage: Storage, name: str) -> None:
        class Trickle(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                return super().read(min(size or 0, 3001))

        storage.stream_write(name, Trickle(LARGE[:100_000]))
        assert storage.get_content(name) == LARGE[:100_000]

    def test_a_range_names_its_first_and_its_last_byte(self, storage: Storage, name: str) -> None:
        storage.stream_write(name, io.BytesIO(LARGE))
        rng = random.Random(7)
        ranges = [sorted(rng.sample(range(len(LARGE)), 2)) for _ in range(5)]
        edge = FRAGMENT_BYTES_MAX
        ranges += [[0, 0], [0, len(LARGE) - 1], [edge - 1, edge], [edge, edge], [len(LARGE) - 1] * 2]
        for first, last in ranges:
            assert b"".join(storage.stream_read(name, (first, last))) == LARGE[first : last + 1]

    # --- folders ----------------------------------------------------------------------------------

    def test_a_folder_lists_files_and_folders_by_their_whole_paths(self, storage: Storage, name: str) -> None:
        for path in ("file-1", "file-2", "folder-1/x", "folder-1/y", "folder-2/z/deep"):
            storage.put_content(f"{name}/{path}", b"x")
        expected = [f"{name}/{path}" for path in ("file-1", "file-2", "folder-1", "folder-2")]
        assert storage.list_directory(name) == expected
        assert storage.list_directory(f"{name}/folder-2") == [f"{name}/folder-2/z"]

    def test_a_file_is_no_folder(self, storage: Storage, name: str) -> None:
        storage.put_content(name, b"x")
        with pytest.raises(FileNotFoundError):
            storage.list_directory(name)

    def test_a_folder_without_its_files_is_no_folder(self, storage: Storage, name: str) -> None:
        for path in (f"{name}/1", f"{name}/2"):
            storage.put_content(path, b"x")
            storage.remove(path)
        with pytest.raises(FileNotFoundError):
            storage.list_directory(name)

    def test_the_root_lists_what_is_at_the_top(self, storage: Storage, name: str) -> None:
        storage.put_content(name, b"x")
        assert "expectations" in storage.list_directory()
        assert storage.list_directory("") == storage.list_directory("/")

    # --- moves ------------------------------------------------------------------------------------

    def test_a_move_takes_everything_along(self, storage: Storage, name: str) -> None:
        storage.stream_write(f"{name}/old", io.BytesIO(LARGE))
        storage.put_content(f"{name}/new", b"in the way")
        storage.move(f"{name}/old", f"{name}/new")
        assert storage.list_directory(name) == [f"{name}/new"]
        assert storage.get_content(f"{name}/new") == LARGE

    def test_a_move_to_itself_changes_nothing(self, storage: Storage, name: str) -> None:
        storage.put_content(name, b"x")
        storage.move(name, name)
        assert storage.get_content(name) == b"x"
