"""3,000 jobs on four worker processes, 500 kills, on one SQLite file and on one PostgreSQL."""

from pathlib import Path
from tempfile import TemporaryDirectory

from drycc.backends.db import BUSY_MS
from drycc.worker.leases import BEATS
from tests.conftest import MIGRATIONS, new_postgres_database
from tests.postgres import postgres
from tests.worker.commits import PROCESSES, measure
from tests.worker.fleet import open_fleet
from tests.worker.storm import Storm

LEASE = 5.0
SLACK = 0.5  # seconds that a look may take while everything starts anew
APPS, ROUNDS = 30, 20
ATTACKS = 556  # each tenth is no kill: the worker stands still past its lease


async def drill_workers() -> None:
    with TemporaryDirectory() as directory, postgres() as server:
        for name, url in (
            ("SQLite", f"sqlite+aiosqlite:///{directory}/drycc.db"),
            ("PostgreSQL", await new_postgres_database(server)),
        ):
            shared = Path(directory) / name
            shared.mkdir()
            print(f"{name}: {await _rage(url, shared)}", flush=True)
            print(f"{name}: {await measure(url)} commits/s by {PROCESSES} processes at once", flush=True)


async def _rage(url: str, directory: Path) -> str:
    async with open_fleet(url, directory, MIGRATIONS, lease=LEASE) as fleet:
        storm = Storm(fleet, apps=APPS, rounds=ROUNDS, kills=ATTACKS)
        report = await storm.run()
        print(report, flush=True)
        await storm.check()
        assert report.jobs >= 3_000
        assert report.kills >= 500
        assert max(report.waits) <= LEASE + 1 + SLACK
        assert max(report.stopped) <= max(LEASE, BUSY_MS / 1000 + LEASE / BEATS) + 1 + SLACK
    return f"0 lost, 0 doubled; {report}"
