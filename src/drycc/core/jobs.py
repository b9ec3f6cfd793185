"""Jobs: rows that a worker claims under a lease; retry, order and concurrency live in the table.

Every write of a job carries its owner and its generation, and whoever takes a job over adds 1 to
its app's generation, too: a worker that lost its lease changes nothing any more, neither here nor
on the cluster.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends.db import Database, db_now
from drycc.backends.nudges.base import Nudges
from drycc.core.models import App, Job
from drycc.errors import DryccError
from drycc.kit.ids import now

TOPIC = "jobs"
LANES = {"build": "build", "deploy": "deploy", "apply": "deploy", "destroy": "deploy"}
SUSPICIOUS = 2  # attempts in a row whose process was gone before its first heartbeat
MOST_ATTEMPTS = 5  # of that kind; then the job is set aside
FORCED_WITHIN = 5.0  # seconds in which a holder must hear that somebody takes its job over


class LeaseLost(DryccError):
    """Another worker has taken the job over, or it was removed; its former holder stops."""

    code = "lease_lost"


@dataclass(slots=True)
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
    attempts: int  # since its last heartbeat, with this one
    has_beaten: bool = field(default=False, compare=False)
    has_heard: bool = field(default=False, compare=False)  # that somebody asked for its end


async def queue(
    session: AsyncSession, kind: str, app_uuid: UUID, *, key: str = "", payload: dict[str, Any] | None = None
) -> int:
    """Add a job; call `wake` after the commit. Gives its id."""
    job = Job(
        kind=kind, lane=LANES[kind], app_uuid=app_uuid, key=key, payload=payload or {}, run_at=db_now(0)
    )
    session.add(job)
    await session.flush()
    return job.id


async def wake(nudges: Nudges) -> None:
    """Tell the workers to look."""
    await nudges.send(TOPIC, "look")


async def claim(
    db: Database,
    owner: str,
    lease: float,
    lanes: Collection[str],
    *,
    is_calm: bool = True,
    takes_over: bool = True,
) -> Claim | None:
    """The next job of these lanes that is due, now ours for `lease` seconds; None when there is none.

    Jobs whose holder is gone come first. A suspicious one goes only to a caller that is calm, that is, in
    whose process no job runs that should it end now were suspicious, too; until then nothing else goes there.
    Who knows from `is_lapsing` that there is none to take over saves the search.
    """
    for lapsed in await db.read(_lapsed, lanes=list(lanes)) if takes_over else ():
        if lapsed.attempts >= SUSPICIOUS and not is_calm:
            return None
        if claim := await _take_over(db, owner, lease, lapsed):
            return claim
    return await _take_queued(db, owner, lease, lanes)


async def _take_queued(db: Database, owner: str, lease: float, lanes: Collection[str]) -> Claim | None:
    async def body(session: AsyncSession) -> Claim | None:
        job = (await session.scalars(_due, {"lanes": list(lanes)})).first()
        return await _hand_over(session, job, owner, lease) if job else None

    try:
        return await db.write(body)
    except IntegrityError:  # another worker was quicker with a job of the same app and lane
        return None


async def _take_over(db: Database, owner: str, lease: float, lapsed: Any) -> Claim | None:
    """Take a job whose holder is gone; None when another worker was quicker, or is at that app.

    It waits for no lock: a holder that stands still may have one.
    """

    async def body(session: AsyncSession) -> Claim | None:
        app = (await session.scalars(_unlocked_app, {"app": lapsed.app_uuid})).first()
        still = (Job.id == lapsed.id, Job.generation == lapsed.generation)
        job = (await session.scalars(_unlocked.where(*still, *_lapses(0)))).first()
        if app is None or job is None:
            return None
        app.generation += 1
        return await _hand_over(session, job, owner, lease)

    return await db.write(body)


async def _hand_over(session: AsyncSession, job: Job, owner: str, lease: float) -> Claim:
    job.state, job.lease_owner, job.lease_until = "running", owner, db_now(lease)
    job.attempts += 1
    job.generation += 1
    await session.flush()
    return _claim(job, owner)


async def is_lapsing(db: Database, within: float) -> bool:
    """Whether the lease of any running job ends in so many seconds, or has ended."""
    return await db.read_one(sa.select(Job.id).where(*_lapses(within)).limit(1)) is not None


async def release_own(db: Database, owner: str) -> None:
    """Give back what an earlier process of this owner held, so that it goes on at once."""

    async def body(session: AsyncSession) -> None:
        mine = sa.update(Job).where(Job.state == "running", Job.lease_owner == owner)
        await session.execute(mine.values(lease_until=db_now(0)))

    await db.write(body)


async def renew(db: Database, claims: Sequence[Claim], lease: float) -> list[Claim]:
    """Hold these jobs of one owner for another `lease` seconds; gives those that are still ours.

    One whose end was asked for is held on only by a holder that has heard of it.
    """

    async def body(session: AsyncSession) -> set[tuple[int, int]]:
        kept = await session.execute(_renewal(claims, lease).returning(Job.id, Job.generation))
        return {(id, generation) for id, generation in kept}

    kept = await db.write(body)
    ours = [claim for claim in claims if (claim.id, claim.generation) in kept]
    for claim in ours:
        claim.has_beaten = True
    return ours


async def confirm(db: Database, claim: Claim) -> None:
    """Raises `LeaseLost`, else what was read before may be told to the cluster.

    Should the job be taken over after this, the cluster refuses the generation that was read.
    """
    if await db.read_one(sa.select(Job.id).where(*_mine(claim))) is None:
        raise LeaseLost(f"job {claim.id} is no longer ours")


async def check(session: AsyncSession, claim: Claim) -> None:
    """Raises `LeaseLost`, else holds the job's row, so that it stays ours until the commit."""
    if await session.scalar(sa.select(Job.id).where(*_mine(claim)).with_for_update()) is None:
        raise LeaseLost(f"job {claim.id} is no longer ours")


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
    await _change(
        session,
        claim,
        state="queued",
        run_at=db_now(after),
        attempts=0,
        lease_owner=None,
        lease_until=None,
    )


async def take_back(session: AsyncSession, app_uuid: UUID) -> None:
    """Ask that the app's deploy under way ends; a holder that does not hear it loses the job soon."""
    theirs = sa.update(Job).where(Job.app_uuid == app_uuid, Job.kind == "deploy", IS_UNDER_WAY)
    await session.execute(theirs.values(cancel_requested=True))
    is_longer = Job.lease_until > db_now(FORCED_WITHIN)
    await session.execute(theirs.where(is_longer).values(lease_until=db_now(FORCED_WITHIN)))


async def is_cancelled(db: Database, claim: Claim) -> bool:
    """Whether somebody asked that the job ends; from then on its holder counts as having heard it."""
    row = await db.read_one(sa.select(Job.cancel_requested).where(Job.id == claim.id))
    claim.has_heard = row is None or bool(row.cancel_requested)
    return claim.has_heard


async def _change(session: AsyncSession, claim: Claim, **values: Any) -> None:
    changed = await session.execute(sa.update(Job).where(*_mine(claim)).values(**values).returning(Job.id))
    if changed.first() is None:
        raise LeaseLost(f"job {claim.id} is no longer ours")


def _mine(claim: Claim) -> tuple[sa.ColumnElement[bool], ...]:
    is_ours = (Job.lease_owner == claim.owner, Job.generation == claim.generation)
    return Job.id == claim.id, *is_ours, Job.state == "running"


def _lapses(within: float) -> tuple[sa.ColumnElement[bool], ...]:
    return Job.state == "running", Job.lease_until <= db_now(within)


def _renewal(claims: Sequence[Claim], lease: float) -> sa.Update:
    """An update of these jobs, where they are still ours."""
    held = sa.tuple_(Job.id, Job.generation).in_([(claim.id, claim.generation) for claim in claims])
    heard = [claim.id for claim in claims if claim.has_heard]
    is_unheard = sa.and_(Job.cancel_requested, Job.id.not_in(heard))
    until = sa.case((is_unheard, Job.lease_until), else_=db_now(lease))
    ours = held & (Job.state == "running") & (Job.lease_owner == claims[0].owner)
    return sa.update(Job).where(ours).values(lease_until=until, attempts=0)


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


IS_UNDER_WAY = sa.and_(Job.state.in_(("queued", "running")), Job.generation > 0)  # also while it waits
_of_lanes = Job.lane.in_(sa.bindparam("lanes", expanding=True))
_lapsed = (
    sa.select(Job.id, Job.app_uuid, Job.generation, Job.attempts)
    .where(_of_lanes, *_lapses(0))
    .order_by(Job.id)
)
_unlocked_app = (
    sa.select(App).where(App.uuid == sa.bindparam("app")).with_for_update(skip_locked=True, key_share=True)
)
_unlocked = sa.select(Job).with_for_update(skip_locked=True)
_other = sa.orm.aliased(Job)
_is_before = sa.or_(_other.state == "running", sa.and_(_other.state == "queued", _other.id < Job.id))
_is_free = ~sa.exists().where(_other.app_uuid == Job.app_uuid, _other.lane == Job.lane, _is_before)
_due = (
    _unlocked.where(_of_lanes, Job.state == "queued", Job.run_at <= db_now(0), _is_free)
    .order_by(Job.id)
    .limit(1)
)
