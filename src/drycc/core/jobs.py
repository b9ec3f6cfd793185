"""Jobs: rows that a worker claims under a lease; retry, order and concurrency live in the table.

Every write of a job carries its owner and its generation: a worker that lost its lease changes
nothing any more.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends.db import Database, db_now
from drycc.backends.nudges.base import Nudges
from drycc.core.models import Job
from drycc.errors import DryccError
from drycc.kit.ids import now

TOPIC = "jobs"
LANES = {"build": "build", "deploy": "deploy", "apply": "deploy", "destroy": "deploy"}
MOST_ATTEMPTS = 20  # also counts restarts of the platform while the job ran


class LeaseLost(DryccError):
    """Another worker has taken the job over, or it was removed; its former holder stops."""

    code = "lease_lost"


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that is ours until its lease ends."""

    id: int
    kind: str
    app_uuid: UUID
    key: str
    payload: dict[str, Any]
    result: dict[str, Any] = field(compare=False)
    owner: str
    generation: int
    attempts: int


async def queue(
    session: AsyncSession, kind: str, app_uuid: UUID, *, key: str = "", payload: dict[str, Any] | None = None
) -> int:
    """Add a job; call `wake` after the commit. Gives its id."""
    job = Job(kind=kind, lane=LANES[kind], app_uuid=app_uuid, key=key, payload=payload or {})
    session.add(job)
    await session.flush()
    return job.id


async def wake(nudges: Nudges) -> None:
    """Tell the workers to look."""
    await nudges.send(TOPIC, "look")


async def claim(db: Database, owner: str, lease: float, lanes: Collection[str]) -> Claim | None:
    """The next job of these lanes that is due, now ours for `lease` seconds; None when there is none."""

    async def body(session: AsyncSession) -> Claim | None:
        job = (await session.scalars(_due, {"lanes": list(lanes)})).first()
        if job is None:
            return None
        job.state, job.lease_owner, job.lease_until = "running", owner, db_now(lease)
        job.attempts += 1
        job.generation += 1
        await session.flush()
        return _claim(job, owner)

    try:
        return await db.write(body)
    except IntegrityError:  # another worker was quicker with a job of the same app and lane
        return None


async def release_own(db: Database, owner: str) -> None:
    """Give back what an earlier process of this owner held, so that it goes on at once."""

    async def body(session: AsyncSession) -> None:
        mine = sa.update(Job).where(Job.state == "running", Job.lease_owner == owner)
        await session.execute(mine.values(lease_until=db_now(0)))

    await db.write(body)


async def renew(db: Database, claim: Claim, lease: float) -> bool:
    """Hold the job for another `lease` seconds; says whether somebody asked to cancel it.

    Raises `LeaseLost`.
    """

    async def body(session: AsyncSession) -> bool:
        await _change(session, claim, lease_until=db_now(lease))
        asked = await session.scalar(sa.select(Job.cancel_requested).where(Job.id == claim.id))
        return bool(asked)

    return await db.write(body)


async def note(session: AsyncSession, claim: Claim, **result: Any) -> None:
    """Keep something about the job's progress, for whoever goes on with it. Raises `LeaseLost`."""
    claim.result.update(result)
    await _change(session, claim, result=dict(claim.result))


async def finish(session: AsyncSession, claim: Claim, state: str, **result: Any) -> None:
    """End the job in the transaction that records what it did. Raises `LeaseLost`."""
    claim.result.update(result)
    await _change(
        session,
        claim,
        state=state,
        result=dict(claim.result),
        finished=now(),
        lease_owner=None,
        lease_until=None,
    )


async def retry(session: AsyncSession, claim: Claim, after: float) -> None:
    """Put the job back, to be claimed in `after` seconds. Raises `LeaseLost`."""
    await _change(session, claim, state="queued", run_at=db_now(after), lease_owner=None, lease_until=None)


async def is_cancelled(db: Database, claim: Claim) -> bool:
    row = await db.read_one(sa.select(Job.cancel_requested).where(Job.id == claim.id))
    return row is None or bool(row.cancel_requested)


async def _change(session: AsyncSession, claim: Claim, **values: Any) -> None:
    mine = (Job.id == claim.id, Job.lease_owner == claim.owner, Job.generation == claim.generation)
    changed = await session.execute(
        sa.update(Job).where(*mine, Job.state == "running").values(**values).returning(Job.id)
    )
    if changed.first() is None:
        raise LeaseLost(f"job {claim.id} is no longer ours")


def _claim(job: Job, owner: str) -> Claim:
    return Claim(
        id=job.id,
        kind=job.kind,
        app_uuid=job.app_uuid,
        key=job.key,
        payload=dict(job.payload),
        result=dict(job.result),
        owner=owner,
        generation=job.generation,
        attempts=job.attempts,
    )


_other = sa.orm.aliased(Job)
_is_free = ~sa.exists().where(
    _other.app_uuid == Job.app_uuid, _other.lane == Job.lane, _other.state == "running"
)
_is_due = sa.or_(
    sa.and_(Job.state == "queued", Job.run_at <= db_now(0), _is_free),
    sa.and_(Job.state == "running", Job.lease_until <= db_now(0)),
)
_due = (
    sa.select(Job)
    .where(Job.lane.in_(sa.bindparam("lanes", expanding=True)), _is_due)
    .order_by(Job.id)
    .limit(1)
    .with_for_update(skip_locked=True)
)
