"""When a receiver is tried again, and by whom: the state of one hook, shared by all registries.

One object, ``hooks/<name>/state``, is both the lease of who delivers now and the account of how it went.
Every change of it names the generation that was seen.  Nobody compares clocks: who sees the same
generation for as long as its holder said it would need takes the lease over.  If the holder was only
slow, some events arrive twice, with the same ids.
"""

from __future__ import annotations

import random

import msgspec

from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.hooks.decoding import decoded
from fabric.errors import NotFound
from fabric.wire.messages import ObjectInfo, PutOperation

DELAY_S_MIN = 1.0
DELAY_S_MAX = 60.0
"""Between two tries of a receiver that fails: doubled from the least to the most."""

LEASE_MARGIN_S = 5.0
"""Beyond what a holder has planned: for its commits, and for a machine that is busy."""

ERROR_CHARACTERS_MAX = 300

_STATE = "state"


class State(msgspec.Struct, frozen=True):
    """How it stands with one hook."""

    holder: str = ""
    """The process that delivers; empty: nobody does."""
    lease_s: float = 0.0
    """The holder changes this object again within so long, or has died."""
    failures: int = 0
    """Tries that failed since the last success."""
    delivered: int = 0
    """Events, ever."""
    dropped: int = 0
    """Events that were given up because they had become too old."""
    last_success_ms: int = 0
    last_error_ms: int = 0
    last_error: str = ""
    """Empty since the last success."""


def state_path(hook: str) -> str:
    """Where the state of a hook is."""
    return f"hooks/{hook}/state"


def state_of(info: ObjectInfo) -> State:
    """A state, as the store has it.  Raises Internal."""
    return decoded(info.attributes[_STATE], State, info.path)


def state_step(hook: str, state: State, generation: int) -> PutOperation:
    """The step that changes a state from what it was at that generation (0: there was none)."""
    text = msgspec.json.encode(state).decode()
    return PutOperation(state_path(hook), [], attributes={_STATE: text}, if_generation=generation)


async def read_state(store: ObjectStore, hook: str) -> tuple[State, int]:
    """The state and its generation; a fresh one and 0 for a hook that has none."""
    try:
        info = await store.stat(state_path(hook))
    except NotFound:
        return State(), 0
    return state_of(info), info.generation


def delay_s(failures: int, rng: random.Random) -> float:
    """How long to wait after so many failures, one or more; random within a quarter of it."""
    full = min(DELAY_S_MAX, DELAY_S_MIN * 2.0 ** min(failures - 1, 16))
    return full * rng.uniform(0.75, 1.0)


def batch_max(failures: int, most: int) -> int:
    """How many entries to send at once: fewer to a receiver that fails, perhaps because they are many."""
    return max(1, most >> min(failures, 16))
