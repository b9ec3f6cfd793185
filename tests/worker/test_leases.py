"""Heartbeats: a blocked loop keeps its jobs, a job that is lost ends its handler."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends import db as backend
from drycc.backends.db import Database, open_database
from drycc.core import jobs
from drycc.core.jobs import Claim
from drycc.core.models import App, Job
from drycc.errors import Unavailable
from drycc.kit.aio import cancel
from drycc.worker.leases import Leases
from tests.conftest import MIGRATIONS, new_postgres_database
from tests.core.story import Story
from tests.waiting import until

LANES = ("build", "deploy")
LEASE = 0.6


@pytest.fixture
async def claim(db: Database, tmp_path: Path) -> Claim:
    app = await Story.make_app(db, "one")
    await db.write(lambda session: jobs.queue(session, "deploy", app))
    claim = await jobs.claim(db, "ours", LEASE, LANES)
    assert claim
    return claim


@pytest.fixture
async def leases(db: Database) -> AsyncIterator[Leases]:
    leases = Leases(db, LEASE)
    beating = asyncio.create_task(leases.run())
    yield leases
    await cancel(beating)


async def hold(leases: Leases, claim: Claim) -> None:
    """What a handler is, to its lease."""
    with leases.hold(claim):
        await asyncio.Event().wait()


async def test_a_handler_that_blocks_the_loop_keeps_its_job(
    db: Database, leases: Leases, claim: Claim
) -> None:
    holding = asyncio.create_task(hold(leases, claim))
    await until(lambda: claim.has_beaten)
    time.sleep(2.5 * LEASE)  # noqa: ASYNC251 - the point of it
    assert await jobs.claim(db, "other", LEASE, LANES) is None
    assert not holding.done()
    await cancel(holding)
    await until(lambda: jobs.claim(db, "other", LEASE, LANES))  # nobody beats for it any more


async def test_a_job_that_was_taken_over_ends_its_handler(db: Database, leases: Leases, claim: Claim) -> None:
    holding = asyncio.create_task(hold(leases, claim))
    await db.write(lambda session: session.execute(sa.update(Job).values(lease_until=sa.func.db_now(-1))))
    taken = await jobs.claim(db, "other", 60, LANES)
    assert taken
    assert taken.generation == claim.generation + 1
    async with asyncio.timeout(5):
        await asyncio.wait([holding])
    assert holding.cancelled()
    assert not claim.has_beaten


async def test_a_handler_ends_when_the_database_is_away_for_longer_than_its_lease(
    leases: Leases, claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def renew(db: Database, claims: list[Claim], lease: float) -> list[Claim]:
        raise Unavailable("the database does not answer")

    holding = asyncio.create_task(hold(leases, claim))
    await until(lambda: claim.has_beaten)
    monkeypatch.setattr(jobs, "renew", renew)
    began = time.monotonic()
    async with asyncio.timeout(5):
        await asyncio.wait([holding])
    assert holding.cancelled()
    assert time.monotonic() - began >= LEASE / 2


async def test_two_claims_of_one_job_are_told_apart(db: Database, leases: Leases, claim: Claim) -> None:
    """Lost and taken again by the same process, before it heard of the loss."""
    await db.write(lambda session: session.execute(sa.update(Job).values(lease_until=sa.func.db_now(-1))))
    again = await jobs.claim(db, "ours", LEASE, LANES)
    assert again
    former, latter = (asyncio.create_task(hold(leases, one)) for one in (claim, again))
    await until(former.done)
    await until(lambda: again.has_beaten)
    assert (former.cancelled(), latter.done()) == (True, False)
    await cancel(latter)


async def test_a_writer_that_stands_still_frees_its_rows_and_is_told(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "BUSY_MS", 300)
    stands, goes_on = asyncio.Event(), asyncio.Event()
    async with open_database(await new_postgres_database(postgres_url)) as db:
        await db.migrate(MIGRATIONS)
        app = await Story.make_app(db, "one")
        change = sa.update(App).values(generation=1)

        async def stand_still(session: AsyncSession) -> None:
            await session.execute(change)
            stands.set()
            await goes_on.wait()
            await session.execute(change)

        async def is_free() -> bool:
            with suppress(Unavailable):  # one that waits for so long is told, too
                await db.write(lambda session: session.execute(change.values(generation=2)), app=app)
                return True
            return False

        standing = asyncio.create_task(db.write(stand_still, app=app))
        await stands.wait()
        await until(is_free)
        goes_on.set()
        with pytest.raises(Unavailable):
            await standing
        assert (await db.read(sa.select(App.generation)))[0].generation == 2
