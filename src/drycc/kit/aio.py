"""Asyncio pieces: supervised endless tasks, and waits that end."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import TypeVar

from drycc.errors import NoSpace, Unavailable
from drycc.kit.disk import find_trouble

T = TypeVar("T")

log = logging.getLogger("drycc.tasks")

RESTARTS_A_MINUTE = 5
FIRST_DELAY, LONGEST_DELAY = 0.25, 5.0  # seconds, while something that a task needs does not answer
STEADY_AFTER = 60.0  # seconds without trouble after which the delay is the first one again


async def supervise(name: str, body: Callable[[], Awaitable[None]]) -> None:
    """Run an endless `body`, again when it fails; the sixth failure within a minute is raised.

    What does not answer, or a full disk, is no failure: the body runs again after a growing delay,
    for as long as that lasts.
    """
    failures: list[float] = []
    delay = FIRST_DELAY
    while True:
        began = monotonic()
        try:
            return await body()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # the budget below is what makes this loop honest
            if trouble := _find_trouble(error):
                delay = FIRST_DELAY if monotonic() - began > STEADY_AFTER else delay
                log.warning("task %s waits %g s: %s", name, delay, trouble)
                await asyncio.sleep(delay)
                delay = min(LONGEST_DELAY, 2 * delay)
                continue
            log.exception("task %s failed", name)
            failures = [at for at in failures if monotonic() - at < 60] + [monotonic()]
            if len(failures) > RESTARTS_A_MINUTE:
                raise


def _find_trouble(error: Exception) -> Exception | None:
    """The first thing that did not answer, if there was nothing else."""
    if isinstance(error, ExceptionGroup):
        found = [_find_trouble(part) for part in error.exceptions]
        return found[0] if all(found) else None
    return error if isinstance(error, Unavailable) else find_trouble(error)


async def insist(step: Callable[[], Awaitable[T]], *, within: float, every: float = 1.0) -> T:
    """Take a step that may be repeated, again while something that it needs does not answer.

    Raises `Unavailable` when that lasts for `within` seconds, and `NoSpace` at once: somebody has to
    make space first.
    """
    until = monotonic() + within
    while True:
        try:
            return await step()
        except NoSpace:
            raise
        except Unavailable:
            if monotonic() > until:
                raise
        await asyncio.sleep(every)


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
