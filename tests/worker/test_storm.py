"""Four worker processes on one database, killed or stopped at random, with a model cluster that counts."""

from pathlib import Path

from drycc.backends.db import BUSY_MS
from drycc.worker.leases import BEATS
from tests.conftest import MIGRATIONS
from tests.worker.fleet import open_fleet
from tests.worker.storm import Storm

SLACK = 0.5  # seconds that a look may take on a busy machine


async def test_mq04_kills_lose_nothing_and_double_nothing(db_url: str, tmp_path: Path) -> None:
    async with open_fleet(db_url, tmp_path, MIGRATIONS) as fleet:
        storm = Storm(fleet, apps=8, rounds=3, kills=20)
        report = await storm.run()
        await storm.check()
        assert report.jobs >= 120
        assert max(report.waits, default=0) <= fleet.lease + 1 + SLACK, report


async def test_mq04_workers_that_stand_still_lose_nothing_and_double_nothing(
    db_url: str, tmp_path: Path
) -> None:
    async with open_fleet(db_url, tmp_path, MIGRATIONS) as fleet:
        storm = Storm(fleet, apps=8, rounds=1, stops=2)
        report = await storm.run()
        await storm.check()
        # So long one may hold its apps' rows, too, until the next heartbeat of another ends that.
        standing = max(fleet.lease, BUSY_MS / 1000 + fleet.lease / BEATS)
        assert max(report.waits, default=0) <= standing + 1 + SLACK, report
