"""Which machine this is: the same for two processes that see the same files under the same names."""

from __future__ import annotations

import os
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MOUNTS = "/proc/self/ns/mnt"


def host_id() -> str:
    """An id of this boot of the system and this view of its files; empty where there is none to be had."""
    try:
        return f"{_BOOT_ID.read_text().strip()} {os.readlink(_MOUNTS)}"
    except OSError:
        return ""
