"""Reading back what this package has written into the store."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from fabric.errors import Internal

Value = TypeVar("Value")


def decoded(text: str | bytes, kind: type[Value], path: str) -> Value:
    """The value that was written at ``path``.  Raises Internal when it cannot have been."""
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.MsgspecError as error:
        raise Internal(f"{path} is not what this version writes: {error}") from error
