"""The door of an app `foo`, for what comes after the handshake."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from drycc.backends.db import open_database
from tests.conftest import MIGRATIONS
from tests.logs.door import Door, opened


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """On one database: what comes after the handshake asks none."""
    async with open_database(f"sqlite+aiosqlite:///{tmp_path}/drycc.db") as db:
        await db.migrate(MIGRATIONS)
        async with opened(db, tmp_path) as door:
            yield door
