"""At full length what CI tells shortly: a database that is away for longer than a lease, and DB-02's log."""

from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from drycc.backends.db import WAL_BYTES, open_database
from tests.conftest import MIGRATIONS
from tests.outage import locked, push_through, stopped
from tests.platform import Platform
from tests.postgres import run_server
from tests.wal import FOLLOWERS, measure_wal

AWAY = 40.0  # seconds; a lease is 30
COMMITS = 100_000
MIB = 1024 * 1024


async def drill_trouble() -> None:
    began = monotonic()
    async with Platform(None) as platform:
        lock = locked(platform.data / "drycc.db")
        await push_through(platform, lock, seconds=AWAY, reads_go_on=True)
    print(f"SQLite locked for {AWAY:g} s in the midst of a push: it went live, {monotonic() - began:.0f} s")
    for mode in ("fast", "immediate"):
        await _stop_server(mode)
    with TemporaryDirectory() as directory:
        await _measure(Path(directory))


async def _stop_server(mode: str) -> None:
    began = monotonic()
    with run_server() as server:
        async with Platform(server.url, {"DRYCC_DATABASE_URL": server.url}) as platform:
            await push_through(platform, stopped(server, mode), seconds=AWAY, reads_go_on=False)
    took = monotonic() - began
    print(f"PostgreSQL stopped ({mode}) for {AWAY:g} s in the midst of a push: it went live, {took:.0f} s")


async def _measure(directory: Path) -> None:
    async with open_database(f"sqlite+aiosqlite:///{directory}/drycc.db") as db:
        await db.migrate(MIGRATIONS)
        found = await measure_wal(db, directory, COMMITS)
    assert found.followed == [COMMITS] * FOLLOWERS
    assert found.paged == COMMITS
    assert found.largest < WAL_BYTES, found
    print(
        f"{COMMITS:,} commits beside {FOLLOWERS} followers and a paging client in {found.seconds:.0f} s: "
        f"SQLite's log had at most {found.largest / MIB:.1f} MiB and {found.last / MIB:.1f} at the end, "
        f"its bound is {WAL_BYTES // MIB}"
    )
