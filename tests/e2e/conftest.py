"""The whole platform for a test: as root on PostgreSQL, as an ordinary user on SQLite."""

import os
from collections.abc import AsyncIterator

import pytest

from tests.conftest import new_postgres_database
from tests.platform import Platform

QUICK = {"DRYCC_BACKOFF": "0.1", "DRYCC_GRACE": "2", "DRYCC_DEPLOY_TIMEOUT": "20"}


@pytest.fixture
async def database_url(request: pytest.FixtureRequest) -> str | None:
    if os.geteuid() != 0:
        return None  # SQLite in the data directory, what an ordinary user gets by default
    return await new_postgres_database(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def platform(database_url: str | None) -> AsyncIterator[Platform]:
    async with Platform(database_url, QUICK) as running:
        yield running
