"""The Nudges port: "look at the table", at most once, never the only way to learn of anything."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

LOST: Final = ""  # an id that means: nudges may be missing, look at the whole table


class Nudges(Protocol):
    async def send(self, topic: str, id: str) -> None:
        """Tell every subscriber of the topic; never waits for one. Call it after the commit."""

    def subscribe(self, topic: str) -> AbstractAsyncContextManager[AsyncIterator[str]]:
        """Ids sent from the moment of entering on, coalescing, in order of their first arrival."""
