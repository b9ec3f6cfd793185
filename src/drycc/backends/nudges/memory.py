"""Nudges within one process."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from drycc.backends.nudges.base import Nudges


class _Waiting:
    """Ids that one subscriber has not seen yet; as many as there are different ones."""

    def __init__(self) -> None:
        self.ids: dict[str, None] = {}
        self.arrived = asyncio.Event()

    def add(self, id: str) -> None:
        self.ids[id] = None
        self.arrived.set()

    def __aiter__(self) -> "_Waiting":
        return self

    async def __anext__(self) -> str:
        """A cancelled wait loses nothing, so it may stand under a deadline."""
        while not self.ids:
            self.arrived.clear()
            await self.arrived.wait()
        id = next(iter(self.ids))
        del self.ids[id]
        return id


class MemoryNudges(Nudges):
    def __init__(self) -> None:
        self._topics: defaultdict[str, set[_Waiting]] = defaultdict(set)

    async def send(self, topic: str, id: str) -> None:
        for waiting in self._topics.get(topic, ()):
            waiting.add(id)

    @asynccontextmanager
    async def subscribe(self, topic: str) -> AsyncIterator[AsyncIterator[str]]:
        waiting = _Waiting()
        self._topics[topic].add(waiting)
        try:
            yield waiting
        finally:
            self._topics[topic].discard(waiting)
            if not self._topics[topic]:
                del self._topics[topic]
