"""A builder for each test: on SQLite, but for the stories that run on both databases."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from drycc.backends.db import Database, open_database
from tests.build.builder import Builder, open_builder
from tests.conftest import MIGRATIONS


@pytest.fixture
async def builder(tmp_path: Path) -> AsyncIterator[Builder]:
    """Serving, with a worker."""
    async with open_database(f"sqlite+aiosqlite:///{tmp_path}/drycc.db") as db:
        await db.migrate(MIGRATIONS)
        made = await open_builder(db, tmp_path)
        async with made.working(), made.serving():
            yield made


@pytest.fixture
async def builder_on_both(db: Database, tmp_path: Path) -> AsyncIterator[Builder]:
    made = await open_builder(db, tmp_path)
    async with made.working(), made.serving():
        yield made
