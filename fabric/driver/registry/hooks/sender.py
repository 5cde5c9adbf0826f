"""Sends notifications: one POST each, and no more trust in the receiver than that takes.

A redirect is not followed: a signed body and a receiver's Authorization go to the address that the
operator wrote, or nowhere.  Of an answer a few KiB are read and the rest is cut off, whatever its length;
it has to come within the hook's timeout as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp

from fabric.driver.registry.hooks.envelope import MEDIA_TYPE, SIGNATURE_HEADER, Event, body_of, signature
from fabric.driver.registry.hooks.load import Hook
from fabric.settings import KIB

ANSWER_BYTES_MAX = 4 * KIB
_TOLD_CHARACTERS_MAX = 120


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver said."""

    status: int
    reason: str
    text: str
    """The beginning of its body."""

    @property
    def error(self) -> str:
        """Why it does not count as delivered; empty for any 2xx."""
        if 200 <= self.status < 300:
            return ""
        note = " (redirects are not followed)" if 300 <= self.status < 400 else ""
        said = " ".join(self.text.split())[:_TOLD_CHARACTERS_MAX]
        return f"the receiver answered {self.status} {self.reason}{note}" + (f": {said}" if said else "")


class NoAnswer(Exception):
    """The receiver could not be reached, or did not answer in time."""


class Sender:
    """One hook's.  Create it in a running event loop."""

    def __init__(self, hook: Hook) -> None:
        self._hook = hook
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=hook.table.timeout_s),
            connector=aiohttp.TCPConnector(ssl=hook.trusted if hook.trusted is not None else True),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"User-Agent": "speedy-fabric"},
        )

    async def close(self) -> None:
        """End its connections."""
        await self._session.close()

    async def send(self, events: Sequence[Event]) -> str:
        """Send events in one request; an empty text when the receiver has them, else what went wrong."""
        try:
            return (await self.ask(events)).error
        except NoAnswer as error:
            return str(error)

    async def ask(self, events: Sequence[Event]) -> Answer:
        """The same, with the answer whatever it is.  Raises NoAnswer."""
        body = body_of(events)
        headers = {**self._hook.table.headers, "Content-Type": MEDIA_TYPE}
        if self._hook.secret:
            headers[SIGNATURE_HEADER] = signature(self._hook.secret, body)
        try:
            async with self._session.post(
                self._hook.table.url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                text = await answer.content.read(ANSWER_BYTES_MAX)
                return Answer(answer.status, answer.reason or "", text.decode("latin-1"))
        except TimeoutError as error:
            raise NoAnswer(f"no answer within {self._hook.table.timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise NoAnswer(str(error) or type(error).__name__) from error
