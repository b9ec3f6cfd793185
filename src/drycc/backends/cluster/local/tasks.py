"""The running tasks of the local cluster: each supervised, all of them ended together."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from drycc.kit.aio import cancel, supervise


class Tasks:
    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._running: set[asyncio.Task[None]] = set()

    def keep(self, name: str, body: Callable[[], Awaitable[None]]) -> "asyncio.Task[None]":
        """Run `body`, which may be run again when it fails, to its end."""
        task = self._group.create_task(supervise(name, body), name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def end(self) -> None:
        for task in list(self._running):
            await cancel(task)


@asynccontextmanager
async def open_tasks() -> AsyncIterator[Tasks]:
    """A task that fails for good ends the body; what the body itself raises comes out unwrapped."""
    failure: Exception | None = None
    try:
        async with asyncio.TaskGroup() as group:
            tasks = Tasks(group)
            try:
                yield tasks
            except Exception as error:
                failure = error
                raise
            finally:
                await tasks.end()
    except BaseExceptionGroup:
        if failure is not None:
            raise failure from None
        raise
