"""The two doors to the database, on both."""

import asyncio
import random
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends.db import Database, db_now, is_migrated, open_database
from drycc.errors import Conflict, Invalid, NotFound, Unavailable
from tests.conftest import MIGRATIONS

counter = sa.table("counter", sa.column("n", sa.Integer))


@pytest.fixture
async def counting(db: Database) -> Database:
    async def create(session: AsyncSession) -> None:
        await session.execute(sa.text("create table counter (n integer)"))
        await session.execute(sa.insert(counter).values(n=0))

    await db.write(create)
    return db


async def increment(session: AsyncSession) -> None:
    """Read, then write; on PostgreSQL the row lock stands for the app's that `write(app)` takes."""
    n = (await session.execute(sa.select(counter.c.n).with_for_update())).scalar_one()
    await session.execute(sa.update(counter).values(n=n + 1))


async def count(db: Database) -> int:
    return int((await db.read(sa.select(counter.c.n)))[0][0])


async def test_no_increment_of_sixteen_tasks_is_lost(counting: Database) -> None:
    async def work() -> None:
        for _ in range(20):
            await counting.write(increment)

    await asyncio.gather(*(work() for _ in range(16)))
    assert await count(counting) == 320


async def test_writes_cancelled_at_random_instants_leave_the_door_open(counting: Database) -> None:
    choose = random.Random(7)
    for _ in range(100):
        task = asyncio.create_task(counting.write(increment))
        for _ in range(choose.randrange(40)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    before = await count(counting)
    async with asyncio.timeout(1):
        await counting.write(increment)
    assert await count(counting) == before + 1


async def test_db01_two_hundred_requests_that_read_then_write(counting: Database) -> None:
    async def request() -> None:
        await counting.read(sa.select(counter.c.n))
        await counting.write(increment)

    await asyncio.gather(*(request() for _ in range(200)))
    assert await count(counting) == 200


async def test_a_read_sees_every_commit_before_it(counting: Database) -> None:
    for n in range(1, 101):
        await counting.write(increment)
        assert await count(counting) == n


async def test_a_write_in_a_write_raises_at_once(counting: Database) -> None:
    async def nested(session: AsyncSession) -> None:
        await counting.write(increment)

    with pytest.raises(RuntimeError, match="already open"):
        await counting.write(nested)
    await counting.write(increment)
    assert await count(counting) == 1


async def test_a_failed_body_leaves_nothing(counting: Database) -> None:
    async def fail(session: AsyncSession) -> None:
        await increment(session)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await counting.write(fail)
    assert await count(counting) == 0


async def test_reads_cannot_write(counting: Database) -> None:
    with pytest.raises(Exception, match=r"(?i)read.?only"):
        await counting.read(sa.text("update counter set n = 1 returning n"))
    assert await count(counting) == 0


async def test_a_write_for_an_unknown_app_is_not_found(counting: Database) -> None:
    with pytest.raises(NotFound):
        await counting.write(increment, app=uuid4())
    assert await count(counting) == 0


async def test_the_databases_clock_runs_with_ours(db: Database) -> None:
    (then, later) = (await db.read(sa.select(db_now(0), db_now(30))))[0]
    assert abs(then - datetime.now(UTC)) < timedelta(seconds=5)
    assert timedelta(seconds=29) < later - then < timedelta(seconds=31)


async def test_db03_several_migrate_an_empty_schema_together(db_url: str) -> None:
    databases = [Database(db_url) for _ in range(3)]
    try:
        await asyncio.gather(*(database.migrate(MIGRATIONS) for database in databases))
        assert is_migrated(await databases[0].revision(), MIGRATIONS)
    finally:
        await asyncio.gather(*(database.close() for database in databases))


async def test_db04_a_newer_schema_is_refused(db: Database) -> None:
    async def raise_revision(session: AsyncSession) -> None:
        await session.execute(sa.text("update alembic_version set version_num = '9999'"))

    await db.write(raise_revision)
    with pytest.raises(Conflict, match="newer than this program"):
        await db.migrate(MIGRATIONS)
    assert await db.revision() == "9999"


async def test_a_statement_that_fails_shows_none_of_its_values(counting: Database) -> None:
    async def body(session: AsyncSession) -> None:
        await session.execute(sa.text("insert into nothing values (:v)"), {"v": "hunter22"})

    with pytest.raises(DBAPIError) as failed:
        await counting.write(body)
    with pytest.raises(DBAPIError) as also:
        await counting.read(sa.text("select * from nothing where v = :v"), v="hunter22")
    assert "hunter22" not in f"{failed.value} {also.value}"


async def test_a_database_that_cannot_be_opened_leaves_no_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    async with open_database(f"sqlite+aiosqlite:///{tmp_path}/none/drycc.db") as db:
        for _ in range(5):
            with pytest.raises(Unavailable, match="does not answer"):
                await db.ping()
    left = [thread for thread in threading.enumerate() if thread not in before]
    assert [thread for thread in left if "connection_worker" in thread.name] == []


async def test_a_file_that_is_no_database_is_unusable_and_said_so(tmp_path: Path) -> None:
    (tmp_path / "drycc.db").write_bytes(b"no database " * 1000)
    async with open_database(f"sqlite+aiosqlite:///{tmp_path}/drycc.db") as db:
        with pytest.raises(Unavailable, match="cannot be used: file is not a database"):
            await db.revision()


@pytest.mark.parametrize("url", ["nonsense", "", "postgresql+asyncpg://ann:hunter22@host:port/x"])
def test_what_is_no_url_is_refused_without_its_text(url: str) -> None:
    with pytest.raises(Invalid, match=r"^DRYCC_DATABASE_URL is no URL of a database$"):
        Database(url)
