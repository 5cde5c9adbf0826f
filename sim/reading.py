"""The rest of an object, fragment by fragment, as the driver reads it.

A fragment may be moved to another group meanwhile: when no replica has it where the list said, the list is
asked for once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fabric.errors import NoGoodCopy
from fabric.node.effects import Effect
from fabric.wire.messages import (
    Failed,
    FragmentData,
    FragmentRef,
    Fragments,
    GetFragment,
    ListFragments,
    Message,
    ObjectData,
)

if TYPE_CHECKING:
    from sim.clients import Client

    End = Callable[[str, bytes | None], list[Effect]]
    """Takes the code of an error, or nothing and the bytes."""


class Reading:
    """What comes behind the first fragment, which came with the object."""

    def __init__(self, client: Client, opened: ObjectData, data: bytes, until: float, end: End) -> None:
        self._client, self._until, self._end = client, until, end
        self._object_id = opened.info.object_id
        self._fragments = list(opened.fragments[1:])
        self._read = data

    def go_on(self) -> list[Effect]:
        """Read the next one, or end."""
        if not self._fragments:
            return self._end("", self._read)
        return self._ask(self._fragments.pop(0), NoGoodCopy.code)

    def _ask(self, fragment: FragmentRef, not_again: str = "") -> list[Effect]:
        def on_answer(answer: Message, data: Any, uncertain: bool) -> list[Effect]:
            if isinstance(answer, Failed) and answer.code == not_again:
                return self._list_again(fragment, answer)
            if not isinstance(answer, FragmentData):
                return self._end(answer.code if isinstance(answer, Failed) else "BAD_MESSAGE", None)
            self._read += bytes(data)
            return self.go_on()

        return self._client.ask(
            lambda ms: GetFragment(ms, fragment, 0, fragment.length),
            None,
            self._until,
            on_answer,
            not_again=not_again,
        )

    def _list_again(self, fragment: FragmentRef, failure: Failed) -> list[Effect]:
        position = len(self._read)

        def on_answer(answer: Message, data: Any, uncertain: bool) -> list[Effect]:
            if not isinstance(answer, Fragments):
                # The object was deleted meanwhile, or nobody can tell.
                return self._end(failure.code, None)
            start, named = answer.start, fragment
            for listed in answer.fragments:
                named = listed if start == position else named
                start += listed.length
            return self._ask(named)

        return self._client.ask(
            lambda ms: ListFragments(ms, self._object_id, position), None, self._until, on_answer
        )
