"""Jobs under leases and fences, on both databases."""

import asyncio
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends.db import Database
from drycc.core import jobs
from drycc.core.jobs import Claim, LeaseLost
from drycc.core.models import App, Job
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
    assert await jobs.renew(db, [late], 30) == []
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


async def test_a_job_that_waits_for_its_retry_is_overtaken_by_none_of_its_app(
    db: Database, app: UUID
) -> None:
    first, _second, build = await add(db, app, "deploy", "apply", "build")
    claim = await take_surely(db)
    await db.write(lambda session: jobs.retry(session, claim, 60))
    assert (await take_surely(db)).id == build
    assert await take(db) is None
    await db.write(lambda session: session.execute(sa.update(Job).values(run_at=sa.func.db_now(0))))
    assert (await take_surely(db)).id == first


async def request_end(db: Database) -> None:
    await db.write(lambda session: session.execute(sa.update(Job).values(cancel_requested=True)))


async def rest(db: Database) -> float:
    """Seconds until the lease of the one job ends."""
    left = sa.select(Job.lease_until, sa.func.db_now(0).label("now"))
    row = await db.read_one(left)
    assert row
    return float((row.lease_until - row.now).total_seconds())


async def generation(db: Database) -> int:
    row = await db.read_one(sa.select(App.generation))
    assert row
    return int(row.generation)


async def test_a_take_over_adds_to_the_generation_of_the_app(db: Database, app: UUID) -> None:
    await add(db, app, "deploy")
    before = await generation(db)
    assert await take(db, "late", lease=0)
    assert await generation(db) == before
    assert await take(db, "quick")
    assert await generation(db) == before + 1


async def test_of_many_that_see_a_lapsed_lease_one_takes_over(db: Database, app: UUID) -> None:
    await add(db, app, "deploy")
    await take(db, "late", lease=0)
    before = await generation(db)
    claims = [claim for claim in await asyncio.gather(*(take(db, f"w{n}") for n in range(8))) if claim]
    assert [claim.generation for claim in claims] == [2]
    assert await generation(db) == before + 1


async def test_a_heartbeat_holds_many_jobs_and_tells_the_lost_ones(db: Database, app: UUID) -> None:
    other = await Story.make_app(db, "two")
    await add(db, app, "deploy")
    await add(db, other, "deploy")
    lost = await take(db, lease=0)
    mine = await take(db)
    assert lost
    assert mine
    (again,) = [claim for claim in [await take(db, "a")] if claim]
    assert await jobs.renew(db, [lost, mine, again], 30) == [mine, again]
    assert (lost.has_beaten, mine.has_beaten) == (False, True)


async def test_a_holder_that_hears_of_the_cancel_keeps_its_job(db: Database, app: UUID) -> None:
    await add(db, app, "build")
    claim = await take(db)
    assert claim
    assert not await jobs.is_cancelled(db, claim)
    await request_end(db)
    assert await jobs.is_cancelled(db, claim)
    assert await jobs.renew(db, [claim], 99) == [claim]
    assert await rest(db) > 90


async def test_a_holder_that_does_not_hear_of_a_forced_deploy_loses_its_job(db: Database, app: UUID) -> None:
    await add(db, app, "deploy")
    claim = await take(db)
    assert claim
    await db.write(lambda session: jobs.take_back(session, app), app=app)
    left = await rest(db)
    assert 0 < left <= jobs.FORCED_WITHIN
    assert await jobs.renew(db, [claim], 30) == [claim]
    assert await rest(db) <= left
    await db.write(lambda session: session.execute(sa.update(Job).values(lease_until=sa.func.db_now(0))))
    assert await take(db, "other")
    with pytest.raises(LeaseLost):
        await db.write(lambda session: jobs.check(session, claim))


async def take_surely(db: Database, lease: float = 30) -> Claim:
    claim = await take(db, lease=lease)
    assert claim
    return claim


async def test_mq05_attempts_count_only_since_the_last_heartbeat(db: Database, app: UUID) -> None:
    await add(db, app, "deploy")
    assert [(await take_surely(db, 0)).attempts for _ in range(3)] == [1, 2, 3]
    claim = await take_surely(db)
    assert await jobs.renew(db, [claim], 0) == [claim]
    claim = await take_surely(db)
    assert claim.attempts == 1
    await db.write(lambda session: jobs.retry(session, claim, 0))
    assert (await take_surely(db)).attempts == 1


async def test_mq05_a_suspicious_job_waits_for_a_calm_worker_and_all_others_for_it(
    db: Database, app: UUID
) -> None:
    other = await Story.make_app(db, "two")
    (first,) = await add(db, app, "deploy")
    for _ in range(jobs.SUSPICIOUS):
        assert await take(db, lease=0)
    (second,) = await add(db, other, "deploy")
    assert await jobs.claim(db, "a", 30, LANES, is_calm=False) is None
    calm = await jobs.claim(db, "b", 30, LANES, is_calm=True)
    next = await jobs.claim(db, "a", 30, LANES, is_calm=False)
    assert [claim.id for claim in (calm, next) if claim] == [first, second]
