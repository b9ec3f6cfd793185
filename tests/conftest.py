"""Fixtures of more than one suite: both databases, each migrated and empty, and the whole platform."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from drycc.backends.db import Database, open_database
from tests.platform import Platform
from tests.postgres import postgres

MIGRATIONS = Path(__file__).parent.parent / "migrations"
QUICK = {"DRYCC_BACKOFF": "0.1", "DRYCC_GRACE": "2", "DRYCC_DEPLOY_TIMEOUT": "20"}


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    with postgres() as url:
        yield url


async def new_postgres_database(server: str) -> str:
    """The URL of a new, empty database on that server."""
    name = f"t{uuid4().hex}"
    connection = await asyncpg.connect(server.replace("+asyncpg", ""))
    await connection.execute(f"create database {name}")
    await connection.close()
    return server.rsplit("/", 1)[0] + f"/{name}"


@pytest.fixture(params=["sqlite", "postgresql"])
async def db_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/drycc.db"
    return await new_postgres_database(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def db(db_url: str) -> AsyncIterator[Database]:
    async with open_database(db_url) as database:
        await database.migrate(MIGRATIONS)
        yield database


@pytest.fixture
async def database_url(request: pytest.FixtureRequest) -> str | None:
    """Where a whole platform keeps its rows: as root on PostgreSQL, as an ordinary user on SQLite."""
    if os.geteuid() != 0:
        return None  # a file in the data directory
    return await new_postgres_database(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def platform(database_url: str | None) -> AsyncIterator[Platform]:
    async with Platform(database_url, QUICK) as running:
        yield running
