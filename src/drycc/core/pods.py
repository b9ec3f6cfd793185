"""One-offs run to their end, with each line of their output kept once."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from drycc.backends.cluster.base import Exit, OneOff, Pods
from drycc.backends.db import Database
from drycc.backends.nudges.base import Nudges
from drycc.core import builds, jobs
from drycc.core.jobs import Claim
from drycc.core.secrets import mask
from drycc.errors import DryccError
from drycc.kit.aio import cancel, within

LOOK_AGAIN = 1.0  # seconds: a nudge between processes may be lost
MOST_REST = 64 * 1024  # bytes of a line without an end, then it is cut


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
    stopping = asyncio.create_task(_cancel_when_asked(pods, kept, job, one_off.id))
    try:
        await _keep_output(pods, kept, one_off)
        exit = await pods.wait(one_off.id)
    finally:
        await cancel(stopping)
    if await jobs.is_cancelled(kept.db, job):
        raise Cancelled("cancelled")
    return exit


async def _keep_output(pods: Pods, kept: Kept, one_off: OneOff) -> None:
    offset = await builds.reached(kept.db, kept.build_id, one_off.kind)
    rest = b""
    async for output in pods.output(one_off.id, offset):
        *whole, rest = (rest + output.data).split(b"\n")
        if len(rest) > MOST_REST:
            whole, rest = [*whole, rest], b""
        offset = output.offset
        await _keep_lines(kept, one_off.kind, offset - len(rest), whole)
    if rest:
        await _keep_lines(kept, one_off.kind, offset, [rest])


async def _keep_lines(kept: Kept, source: str, offset: int, lines: Sequence[bytes]) -> None:
    if not lines:
        return
    texts = [mask(line.decode("utf-8", "replace").rstrip("\r"), kept.secrets) for line in lines]
    printed = builds.Printed(source, offset, texts)
    await kept.db.write(lambda session: builds.add_output(session, kept.build_id, printed))
    await kept.nudges.send(builds.TOPIC, str(kept.build_id))


async def _cancel_when_asked(pods: Pods, kept: Kept, job: Claim, id: str) -> None:
    async with kept.nudges.subscribe(jobs.TOPIC) as nudged:
        while not await jobs.is_cancelled(kept.db, job):
            await within(LOOK_AGAIN, anext(nudged))
    await pods.cancel(id)
