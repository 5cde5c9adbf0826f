"""How many hooks there may be."""

from __future__ import annotations

HOOKS_MAX = 8
"""Every commit that receivers are told of has an entry for each, so commits leave room for so many steps."""
