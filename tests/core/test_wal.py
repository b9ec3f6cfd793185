"""DB-02: no reader holds SQLite's log back, however many read and however long somebody writes."""

from pathlib import Path

from drycc.backends.db import WAL_BYTES, open_database
from tests.conftest import MIGRATIONS
from tests.wal import FOLLOWERS, measure_wal

MIB = 1024 * 1024


async def test_db02_ten_followers_and_a_paging_client_keep_the_log_small(tmp_path: Path) -> None:
    async with open_database(f"sqlite+aiosqlite:///{tmp_path}/drycc.db") as db:
        await db.migrate(MIGRATIONS)
        found = await measure_wal(db, tmp_path, 5_000)
    assert found.followed == [5_000] * FOLLOWERS
    assert found.paged == 5_000
    assert found.largest < 16 * MIB < WAL_BYTES, found
