"""Jobs under leases and fences, on both databases."""

import asyncio
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends.db import Database
from drycc.core import jobs
from drycc.core.jobs import Claim, LeaseLost
from drycc.core.models import Job
from tests.core.story import Story

LANES = ("build", "deploy")


@pytest.fixture
async def app(db: Database) -> UUID:
    return await Story.make_app(db, "one")


async def add(db: Database, app: UUID, *kinds: str) -> list[int]:
    async def body(session: AsyncSession) -> list[int]:
        return [await jobs.queue(session, kind, app) for kind in kinds]

    return await db.write(body)


async def take(db: Database, owner: str = "a", lease: float = 30) -> Claim | None:
    return await jobs.claim(db, owner, lease, LANES)


async def states(db: Database) -> list[str]:
    return [row.state for row in await db.read(sa.select(Job.state).order_by(Job.id))]


async def test_one_job_a_lane_runs_at_a_time_and_in_order(db: Database, app: UUID) -> None:
    first, second, build = await add(db, app, "deploy", "apply", "build")
    claims = [await take(db), await take(db), await take(db)]
    assert [claim.id if claim else None for claim in claims] == [first, build, None]
    assert claims[0]
    await db.write(lambda session: jobs.finish(session, claims[0], "succeeded", said="done"))  # type: ignore[arg-type]
    third = await take(db)
    assert third
    assert third.id == second
    assert await states(db) == ["succeeded", "running", "running"]


async def test_many_workers_claim_each_job_once(db: Database) -> None:
    apps = [await Story.make_app(db, f"app{n}") for n in range(8)]
    for app in apps:
        await add(db, app, "build", "deploy")

    async def work(owner: str) -> list[int]:
        taken = []
        misses = 0
        while misses < 3:
            claim = await take(db, owner)
            misses = 0 if claim else misses + 1
            taken += [claim.id] if claim else []
        return taken

    taken = await asyncio.gather(*(work(f"w{n}") for n in range(4)))
    assert sorted(id for ids in taken for id in ids) == list(range(1, 17))


async def test_mq04_a_worker_that_lost_its_lease_changes_nothing(db: Database, app: UUID) -> None:
    await add(db, app, "deploy")
    late = await take(db, "late", lease=0)
    quick = await take(db, "quick")
    assert late
    assert quick
    assert (quick.id, quick.generation, quick.attempts) == (late.id, late.generation + 1, 2)
    for change in (
        lambda session: jobs.finish(session, late, "failed"),
        lambda session: jobs.note(session, late, moved=["web"]),
        lambda session: jobs.retry(session, late, 0),
    ):
        with pytest.raises(LeaseLost):
            await db.write(change)
    with pytest.raises(LeaseLost):
        await jobs.renew(db, late, 30)
    await db.write(lambda session: jobs.finish(session, quick, "succeeded"))
    assert await states(db) == ["succeeded"]


async def test_what_an_earlier_process_of_ours_held_is_due_at_once(db: Database, app: UUID) -> None:
    await add(db, app, "deploy")
    before = await take(db, "ours")
    assert before
    await db.write(lambda session: jobs.note(session, before, former={"web": 1}))
    assert await take(db, "ours") is None
    await jobs.release_own(db, "ours")
    after = await take(db, "ours")
    assert after
    assert (after.id, after.result) == (before.id, {"former": {"web": 1}})


async def test_a_retry_waits_its_time(db: Database, app: UUID) -> None:
    await add(db, app, "deploy")
    claim = await take(db)
    assert claim
    await db.write(lambda session: jobs.retry(session, claim, 60))
    assert await take(db) is None
    await db.write(lambda session: session.execute(sa.update(Job).values(run_at=sa.func.db_now(0))))
    assert await take(db) is not None


async def test_a_cancel_request_is_seen_at_the_next_heartbeat(db: Database, app: UUID) -> None:
    await add(db, app, "build")
    claim = await take(db)
    assert claim
    assert not await jobs.renew(db, claim, 30)
    await db.write(lambda session: session.execute(sa.update(Job).values(cancel_requested=True)))
    assert await jobs.renew(db, claim, 30)
    assert await jobs.is_cancelled(db, claim)
