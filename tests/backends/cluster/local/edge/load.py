"""Constant load on an edge, half of it POSTs with unique ids that the app records."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

from tests.backends.cluster.local.edge.rig import Message, Pod, Rig, get, post


@dataclass
class Load:
    answered: int = 0
    sent: list[str] = field(default_factory=list)  # ids of POSTs that got a 200
    failures: list[str] = field(default_factory=list)
    is_over: bool = False
    progress: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def more(self, requests: int) -> None:
        """Wait until so many more were answered."""
        wanted = self.answered + requests
        async with asyncio.timeout(30), self.progress:
            await self.progress.wait_for(lambda: self.answered >= wanted)


def executed(*pods: Pod) -> Counter[str]:
    """How often each id was executed."""
    bodies = [request.body.decode() for pod in pods for request in pod.received]
    return Counter(body for body in bodies if body)


@asynccontextmanager
async def constant_load(rig: Rig, clients: int = 6, lifetime: int = 20) -> AsyncIterator[Load]:
    """Every client opens a new connection after `lifetime` requests; failures are collected, not raised."""
    load = Load()
    numbers = count()

    async def work() -> None:
        while not load.is_over:
            try:
                async with rig.connect() as wire:
                    for _ in range(lifetime):
                        number = next(numbers)
                        body = b"id-%d" % number if number % 2 else b""
                        wire.send(post(body) if body else get())
                        await _note(load, body.decode(), await wire.answer())
                        if load.is_over:
                            return
            except (OSError, asyncio.IncompleteReadError) as error:
                load.failures.append(type(error).__name__)

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(work())
        try:
            yield load
        finally:
            load.is_over = True


async def _note(load: Load, body: str, answer: Message) -> None:
    if answer.status != 200:
        load.failures.append(answer.line)
    elif body:
        load.sent.append(body)
    async with load.progress:
        load.answered += 1
        load.progress.notify_all()
