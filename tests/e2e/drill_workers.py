"""3,000 jobs on four worker processes, 500 kills, on one SQLite file and on one PostgreSQL; then 20 stops."""

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
STANDING = max(LEASE, BUSY_MS / 1000 + LEASE / BEATS)


PHASES = (
    (LEASE + 1 + SLACK, {"rounds": 20, "kills": 500}),
    (STANDING + 1 + SLACK, {"rounds": 3, "stops": 20}),
)


async def drill_workers() -> None:
    with TemporaryDirectory() as directory, postgres() as server:
        for name in ("SQLite", "PostgreSQL"):
            for bound, attacks in PHASES:
                shared = Path(directory) / f"{name}-{attacks['rounds']}"
                shared.mkdir()
                is_sqlite = name == "SQLite"
                url = (
                    f"sqlite+aiosqlite:///{shared}/drycc.db"
                    if is_sqlite
                    else await new_postgres_database(server)
                )
                print(f"{name}: {await _rage(url, shared, bound, attacks)}", flush=True)
            print(f"{name}: {await measure(url)} commits/s by {PROCESSES} processes at once", flush=True)


async def _rage(url: str, directory: Path, bound: float, attacks: dict[str, int]) -> str:
    """Nothing is lost or doubled, and no job waits longer than `bound` seconds for other hands."""
    async with open_fleet(url, directory, MIGRATIONS, lease=LEASE) as fleet:
        storm = Storm(fleet, apps=30, **attacks)
        report = await storm.run()
        print(report, flush=True)
        await storm.check()
    assert max(report.waits) <= bound, f"{max(report.waits)} > {bound}"
    return f"0 lost, 0 doubled, each in other hands within {bound:.2g} s"
