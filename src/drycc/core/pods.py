"""One-offs run to their end, with each line of their output kept once, before anybody is sent it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends.cluster.base import Exit, OneOff, Output, Pods
from drycc.backends.db import Database
from drycc.backends.nudges.base import Nudges
from drycc.core import build_log, builds, jobs
from drycc.core.build_log import Place, Printed
from drycc.core.jobs import Claim
from drycc.core.output import Lines
from drycc.errors import DryccError, Unavailable
from drycc.kit.aio import cancel, task_group, within
from drycc.kit.crash import point

LOOK_AGAIN = 1.0  # seconds: a nudge between processes may be lost
BATCH = 200  # lines that are kept with one write
GATHER = 0.05  # seconds for which a smaller batch waits for more


class Cancelled(DryccError):
    """Somebody asked that the job ends."""

    code = "cancelled"


@dataclass(frozen=True, slots=True)
class Kept:
    """Where the output goes: the log of a build, without these values."""

    db: Database
    nudges: Nudges
    build_id: int
    secrets: Sequence[str]


async def run_one_off(pods: Pods, kept: Kept, job: Claim, one_off: OneOff) -> Exit:
    """Run it, or go on with one that an earlier attempt started; raises `Cancelled` when asked to end it."""
    await pods.run(one_off)
    async with task_group() as group:
        stopping = group.create_task(_cancel_when_asked(pods, kept, job, one_off.id))
        await _keep_output(pods, kept, job, one_off)
        exit = await pods.wait(one_off.id)
        await cancel(stopping)
    if await jobs.is_cancelled(kept.db, job):
        raise Cancelled("cancelled")
    return exit


async def _keep_output(pods: Pods, kept: Kept, job: Claim, one_off: OneOff) -> None:
    looked = last = await build_log.find_place(kept.db, kept.build_id, one_off.kind)
    printed = pods.output(one_off.id, last.end)
    cutting = Lines(last.end, kept.secrets)
    async with (
        aclosing(printed) as output,  # type: ignore[type-var]
        aclosing(_gather(output, cutting)) as batches,
    ):
        async for lines in batches:
            for start in range(0, len(lines), BATCH):
                last = await _keep_lines(kept, job, one_off.kind, lines[start : start + BATCH])
            if last.is_far_from(looked):
                await _leave_out(kept, job, one_off.kind, last)
                looked = last
    if last.is_beyond_head:
        await _leave_out(kept, job, one_off.kind, last)


async def _gather(output: AsyncIterator[Output], cutting: Lines) -> AsyncGenerator[list[Printed], None]:
    """Lines as they come, a batch or what came within `GATHER` seconds; reads on while one is kept."""
    clock = asyncio.get_running_loop().time
    coming = asyncio.ensure_future(anext(output, None))
    try:
        while printed := await coming:
            lines, due = list(cutting.feed(printed.data)), clock() + GATHER
            coming = asyncio.ensure_future(anext(output, None))
            while len(lines) < BATCH and (await asyncio.wait({coming}, timeout=due - clock()))[0]:
                if (printed := coming.result()) is None:
                    break
                lines += cutting.feed(printed.data)
                coming = asyncio.ensure_future(anext(output, None))
            yield lines
        yield list(cutting.flush())
    finally:
        await cancel(coming)


async def _keep_lines(kept: Kept, job: Claim, source: str, lines: Sequence[Printed]) -> Place:
    async def body(session: AsyncSession) -> Place:
        await jobs.check(session, job)
        return await build_log.add_output(session, kept.build_id, source, lines)

    place = await kept.db.write(body)
    point("lines.kept")
    await kept.nudges.send(builds.TOPIC, str(kept.build_id))
    return place


async def _leave_out(kept: Kept, job: Claim, source: str, last: Place) -> None:
    async def body(session: AsyncSession) -> None:
        await jobs.check(session, job)
        await build_log.leave_out(session, kept.build_id, source, last)

    await kept.db.write(body)


async def _cancel_when_asked(pods: Pods, kept: Kept, job: Claim, id: str) -> None:
    async with kept.nudges.subscribe(jobs.TOPIC) as nudged:
        while not await _is_cancelled(kept, job):
            await within(LOOK_AGAIN, anext(nudged))
    await pods.cancel(id)


async def _is_cancelled(kept: Kept, job: Claim) -> bool:
    """Not known while the database does not answer; whoever keeps the output says so."""
    with suppress(Unavailable):
        return await jobs.is_cancelled(kept.db, job)
    return False
