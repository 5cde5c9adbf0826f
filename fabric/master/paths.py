"""Which names an object may have."""

from __future__ import annotations

from fabric.errors import BadRequest
from fabric.settings import PATH_BYTES_MAX

_FORBIDDEN_SEGMENTS = frozenset({"", ".", ".."})


def check_path(path: str) -> None:
    """Raise BadRequest unless ``path`` is a name for an object.

    Segments separated by ``/``, none of them empty, ``.`` or ``..``; no NUL; at most
    ``PATH_BYTES_MAX`` bytes of UTF-8.
    """
    if not _FORBIDDEN_SEGMENTS.isdisjoint(path.split("/")):
        raise BadRequest(f"path {path[:200]!r} has an empty, '.' or '..' segment")
    if "\0" in path:
        raise BadRequest(f"path {path[:200]!r} contains NUL")
    check_text(path)


def check_text(text: str) -> None:
    """Raise BadRequest unless ``text`` has a UTF-8 form of at most ``PATH_BYTES_MAX`` bytes."""
    try:
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError as error:
        raise BadRequest(f"not Unicode text: {text[:200]!r}") from error
    if size > PATH_BYTES_MAX:
        raise BadRequest(f"{size} bytes, {PATH_BYTES_MAX} allowed: {text[:200]!r}…")
