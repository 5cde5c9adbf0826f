"""The Host header of a request: where a client believes to be."""

from __future__ import annotations

import re

_HOST = re.compile(r"[A-Za-z0-9.-]{1,255}(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](?::[0-9]{1,5})?")


def is_host(text: str) -> bool:
    """Whether it is a name or an address, perhaps with a port, and nothing more."""
    return _HOST.fullmatch(text) is not None
