"""Asyncio pieces: supervised endless tasks, and waits that end."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic

log = logging.getLogger("drycc.tasks")

RESTARTS_A_MINUTE = 5


async def supervise(name: str, body: Callable[[], Awaitable[None]]) -> None:
    """Run an endless `body`, again when it fails; the sixth failure within a minute is raised."""
    failures: list[float] = []
    while True:
        try:
            return await body()
        except asyncio.CancelledError:
            raise
        except Exception:  # the budget below is what makes this loop honest
            log.exception("task %s failed", name)
            failures = [at for at in failures if monotonic() - at < 60] + [monotonic()]
            if len(failures) > RESTARTS_A_MINUTE:
                raise


@asynccontextmanager
async def task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """A TaskGroup from which a lone failure comes out as itself."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failures:
        if len(failures.exceptions) > 1:
            raise
        raise failures.exceptions[0] from failures.exceptions[0].__cause__


@asynccontextmanager
async def running(*tasks: tuple[str, Callable[[], Awaitable[None]]]) -> AsyncIterator[None]:
    """Supervise the named endless tasks while the body runs; a failure for good ends the body."""
    async with task_group() as group:
        started = [group.create_task(supervise(name, body), name=name) for name, body in tasks]
        try:
            yield
        finally:
            for task in started:
                task.cancel()


async def cancel(task: "asyncio.Task[object]") -> None:
    """Cancel a task and wait until it has ended; a failure of its own is raised."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


async def within(seconds: float, event: Awaitable[object]) -> bool:
    """Await at most so long; says whether it happened."""
    try:
        async with asyncio.timeout(seconds):
            await event
    except TimeoutError:
        return False
    return True
