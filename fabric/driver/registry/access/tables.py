"""Tables of an operator's TOML file, typed.  Every mistake is told with its key, such as ``rules[2].may``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

Values = TypeVar("Values")


class Mistake(ValueError):
    """Something in the file is not as it must be."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}" if key else reason)


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table with no keys but these."""


def converted(values: Mapping[str, Any], kind: type[Values]) -> Values:
    """A file's content as a table of that kind.  Raises Mistake."""
    try:
        return msgspec.convert(values, kind, strict=True)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$")
        place = place.strip("`.").replace("[...]", "")
        place = re.sub(r"\[(\d+)\]", lambda found: f"[{int(found[1]) + 1}]", place)  # people count from 1
        raise Mistake(place, reason[:1].lower() + reason[1:]) from error
