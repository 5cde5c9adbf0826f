"""Patterns of repositories and tags, as an access file writes them.

``*`` stands for any characters within one component of a name, ``**`` for one component or more:
``team/*`` is ``team/app`` and not ``team/app/base``; ``team/**`` is both, and not ``team`` itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_COMPONENT = re.compile(r"[a-z0-9._*-]+")
_TAG = re.compile(r"[a-zA-Z0-9._*-]{1,128}")


class BadPattern(ValueError):
    """A text that is no pattern; says why."""


class Patterns:
    """Several patterns; a name matches when one of them does."""

    def __init__(self, texts: Sequence[str], compiled: Sequence[re.Pattern[str]]) -> None:
        self.texts = tuple(texts)
        self._compiled = tuple(compiled)

    def match(self, name: str) -> bool:
        """Whether the whole name is described."""
        return any(pattern.fullmatch(name) is not None for pattern in self._compiled)


def repository_patterns(texts: Sequence[str]) -> Patterns:
    """Patterns of repository names.  Raises BadPattern."""
    return Patterns(texts, [_repository(text) for text in texts])


def tag_patterns(texts: Sequence[str]) -> Patterns:
    """Patterns of tags; ``*`` stands for any characters.  Raises BadPattern."""
    for text in texts:
        if _TAG.fullmatch(text) is None or "**" in text:
            raise BadPattern(f"{text!r} is no pattern of tags: letters, digits, . _ - and *")
    return Patterns(texts, [_with_stars(text, ".*") for text in texts])


def _repository(text: str) -> re.Pattern[str]:
    parts = []
    for component in text.split("/"):
        if component == "**":
            parts.append(".+")
        elif _COMPONENT.fullmatch(component) is None or "**" in component:
            raise BadPattern(
                f"{text!r} is no pattern of repositories: lower-case letters, digits, . _ - and *,"
                " joined by /, or ** for a whole component"
            )
        else:
            parts.append(_with_stars(component, "[^/]*").pattern)
    return re.compile("/".join(parts))


def _with_stars(text: str, star: str) -> re.Pattern[str]:
    return re.compile(star.join(re.escape(part) for part in text.split("*")))
