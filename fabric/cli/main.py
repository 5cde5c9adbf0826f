"""Where a process starts: checks that cost nothing, before anything heavy is imported.

This file must compile on any Python 3, so that an unsupported one gets a sentence and not a
SyntaxError or a missing wheel.
"""

import os
import sys

PARENT_VARIABLE = "FABRIC_PARENT_PID"
"""Set by ``fabric up`` in its children: they end when this process does."""

_PR_SET_PDEATHSIG = 1


def unsupported_python(version: "tuple[int, int]") -> str:
    """Why this Python cannot run the fabric; empty when it can."""
    if (3, 11) <= version <= (3, 12):
        return ""
    return (
        "fabric needs Python 3.11 or 3.12 (its LevelDB binding has no wheels for others);"
        " this is Python {}.{}."
    ).format(*version)


def main() -> None:
    """The ``fabric`` command and ``python -m fabric``."""
    reason = unsupported_python((sys.version_info[0], sys.version_info[1]))
    if reason:
        sys.exit(reason)
    parent = os.environ.pop(PARENT_VARIABLE, "")
    if parent:
        _die_with(int(parent))
    from fabric.cli.root import fabric

    fabric(prog_name="fabric")


def _die_with(parent: int) -> None:
    """Be killed by the kernel when the parent ends, however it ends.

    Nothing is lost by a kill, and nothing that outlives its supervisor can hold its ports or data.
    """
    import ctypes
    import signal

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the supervisor has ended before this process started")
