"""A database that is away: bounded waits, our own error with a sentence, nothing half made, and back."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from time import monotonic

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends import db as database
from drycc.backends.db import Database, open_database
from drycc.errors import Unavailable
from tests.conftest import MIGRATIONS, new_postgres_database
from tests.outage import locked
from tests.postgres import Server, run_server
from tests.waiting import until

kept = sa.table("kept", sa.column("n", sa.Integer))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with run_server() as running:
        yield running


@pytest.fixture
async def remote(server: Server) -> AsyncIterator[Database]:
    """A database on a server that may be taken away."""
    async with open_database(await new_postgres_database(server.url)) as db:
        await db.migrate(MIGRATIONS)
        await db.write(create)
        yield db


async def create(session: AsyncSession) -> None:
    await session.execute(sa.text("create table kept (n integer)"))


async def insert(session: AsyncSession) -> None:
    await session.execute(sa.insert(kept).values(n=1))


async def insert_slowly(session: AsyncSession) -> None:
    await insert(session)
    await session.execute(sa.text("select pg_sleep(60)"))


async def count(db: Database) -> int:
    return int((await db.read(sa.select(sa.func.count()).select_from(kept)))[0][0])


async def refuse(db: Database, within: float) -> None:
    """Both doors say that the database is away, in that time."""
    began = monotonic()
    for call in (db.ping(), db.read(sa.select(kept.c.n)), db.write(insert)):
        with pytest.raises(Unavailable, match="does not answer, try again later"):
            await call
    assert monotonic() - began < within


async def begin_slowly(db: Database) -> "list[asyncio.Task[object]]":
    """A write and a read, both in the middle of a statement."""
    tasks: list[asyncio.Task[object]] = [
        asyncio.create_task(db.write(insert_slowly)),
        asyncio.create_task(db.read(sa.text("select pg_sleep(60)"))),
    ]

    async def are_both_asleep() -> bool:
        return len(await db.read(sleepers)) == 2

    await until(are_both_asleep)
    return tasks


sleepers = sa.text(
    "select pid from pg_stat_activity where query like '%pg_sleep(60)%' and pid <> pg_backend_pid()"
    " and datname = current_database()"
)


async def test_a_server_that_is_stopped_and_started(server: Server, remote: Database) -> None:
    await remote.write(insert)
    await asyncio.to_thread(server.stop)
    try:
        await refuse(remote, within=5)
    finally:
        await asyncio.to_thread(server.start)
    await remote.ping()
    await remote.write(insert)
    assert await count(remote) == 2


async def test_a_server_that_dies_in_the_middle_of_statements(server: Server, remote: Database) -> None:
    tasks = await begin_slowly(remote)
    await asyncio.to_thread(server.stop, "immediate")
    try:
        ended = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert [type(error) for error in ended] == [Unavailable, Unavailable]
        await refuse(remote, within=5)
    finally:
        await asyncio.to_thread(server.start)
    assert await count(remote) == 0
    await remote.write(insert)
    assert await count(remote) == 1


async def test_a_killed_backend_cuts_all_connections_and_they_come_back(
    server: Server, remote: Database
) -> None:
    tasks = await begin_slowly(remote)
    server.kill_backend((await remote.read(sleepers))[0].pid)
    ended = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
    assert [type(error) for error in ended] == [Unavailable, Unavailable]

    async def is_back() -> bool:
        try:
            await remote.ping()
        except Unavailable:  # it recovers
            return False
        return True

    await until(is_back)
    assert await count(remote) == 0
    await remote.write(insert)
    assert await count(remote) == 1


async def test_connections_cut_by_the_server_are_opened_again(remote: Database) -> None:
    tasks = await begin_slowly(remote)
    cut = "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
    await remote.read(sa.text(f"{cut} and pid <> pg_backend_pid()"))
    ended = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
    assert [type(error) for error in ended] == [Unavailable, Unavailable]
    await remote.write(insert)
    assert await count(remote) == 1


async def test_a_server_that_says_nothing_is_away_after_a_while(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "ANSWER_WITHIN", 0.5)
    monkeypatch.setattr(database, "CONNECT_WITHIN", 0.5)
    async with open_database(await new_postgres_database(server.url)) as db:
        await db.write(create)
        with server.frozen():
            await refuse(db, within=10)
        await db.write(insert)
        assert await count(db) == 1


async def test_a_client_that_stands_still_in_mid_statement_holds_its_rows_no_longer_than_others(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await new_postgres_database(postgres_url)
    async with open_database(url) as db:
        await db.write(create)
        await db.write(insert)
        still = await asyncpg.connect(url.replace("+asyncpg", ""))
        await still.execute("set idle_in_transaction_session_timeout = 300; begin; delete from kept")
        await still.prepare("select 1")  # parsed, not executed: as a process that is stopped between the two
        monkeypatch.setattr(database, "BUSY_MS", 60_000)
        await db.end_silent()
        assert not still.is_closed()
        monkeypatch.setattr(database, "BUSY_MS", 100)

        async def is_ended() -> bool:
            await db.end_silent()
            return bool(still.is_closed())

        await until(is_ended)
        assert await count(db) == 1
        await db.write(lambda session: session.execute(sa.delete(kept)))


async def test_a_locked_sqlite_answers_reads_and_refuses_writes_within_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_MS", 300)
    monkeypatch.setattr(database, "TURN_WITHIN", 0.5)
    file = tmp_path / "drycc.db"
    async with open_database(f"sqlite+aiosqlite:///{file}") as db:
        await db.migrate(MIGRATIONS)
        await db.write(create)
        await db.write(insert)
        async with locked(file):
            began = monotonic()
            ended = await asyncio.gather(*(db.write(insert) for _ in range(20)), return_exceptions=True)
            assert monotonic() - began < 3
            assert {type(error) for error in ended} == {Unavailable}
            assert await count(db) == 1
            with pytest.raises(Unavailable, match="locked by another process"):
                await db.ping()
        await db.write(insert)
        await db.ping()
        assert await count(db) == 2
