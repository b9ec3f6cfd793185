"""A builder for each test: on SQLite, but for the stories that run on both databases."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from drycc.backends.db import Database, open_database
from tests.build.builder import Builder, open_builder
from tests.conftest import MIGRATIONS


@pytest.fixture
async def idle_builder(tmp_path: Path) -> AsyncIterator[Builder]:
    async with open_database(f"sqlite+aiosqlite:///{tmp_path}/drycc.db") as db:
        await db.migrate(MIGRATIONS)
        yield await open_builder(db, tmp_path)


@pytest.fixture
async def builder(idle_builder: Builder) -> AsyncIterator[Builder]:
    """Serving, with a worker."""
    async with idle_builder.working(), idle_builder.serving():
        yield idle_builder


@pytest.fixture
async def builder_on_both(db: Database, tmp_path: Path) -> AsyncIterator[Builder]:
    made = await open_builder(db, tmp_path)
    async with made.working(), made.serving():
        yield made
