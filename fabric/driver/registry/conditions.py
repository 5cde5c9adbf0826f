"""Conditional requests (RFC 9110, section 13): If-Match and If-None-Match, held against an entity tag.

The entity tag of a blob or manifest is its digest in quotes, always a strong one.  So a client may ask
for a manifest only if its tag has moved, and may move a tag only from where it saw it: the way to change
a list under a tag without losing another client's change.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_ENTITY_TAGS = re.compile(r'[ \t]*(?:,[ \t]*)*((?:W/)?"[^"\x00-\x20\x7f]*")[ \t]*(?=,|$)')

ANY = "*"
"""In place of a list: whatever is there."""


def entity_tag(digest: object) -> str:
    """The ETag header of content with that digest."""
    return f'"{digest}"'


@dataclass(frozen=True, slots=True)
class Conditions:
    """The two lists of a request; None where the header is absent.

    ``if_match`` holds strong tags only: a weak one never matches there.
    """

    if_match: frozenset[str] | None = None
    if_none_match: frozenset[str] | None = None

    def __bool__(self) -> bool:
        return self.if_match is not None or self.if_none_match is not None

    def allows(self, etag: str | None) -> bool:
        """Whether a change may go on; ``etag`` is what is there now, None for nothing."""
        return self._matches(etag) and not self.knows(etag)

    def refuses(self, etag: str) -> bool:
        """Whether a read must be refused with 412, because If-Match names something else."""
        return not self._matches(etag)

    def knows(self, etag: str | None) -> bool:
        """Whether If-None-Match names what is there: a reader has it already (304)."""
        wanted = self.if_none_match
        return etag is not None and wanted is not None and (ANY in wanted or etag in wanted)

    def _matches(self, etag: str | None) -> bool:
        wanted = self.if_match
        return wanted is None or (etag is not None and (ANY in wanted or etag in wanted))


def parse_conditions(if_match: str | None, if_none_match: str | None) -> Conditions:
    """The conditions of a request's two headers, several lines of one joined by commas.

    A list that cannot be read matches nothing, so that a change under a garbled condition does not
    happen, and a read under one is answered in full.
    """
    return Conditions(
        None if if_match is None else frozenset(tag for tag in _tags(if_match) if tag[0] != "W"),
        None if if_none_match is None else frozenset(tag.removeprefix("W/") for tag in _tags(if_none_match)),
    )


def _tags(text: str) -> list[str]:
    if text.strip() == ANY:
        return [ANY]
    found, position = [], 0
    while match := _ENTITY_TAGS.match(text, position):
        found.append(match[1])
        position = match.end()
    return found if not text[position:].strip(" \t,") else []
