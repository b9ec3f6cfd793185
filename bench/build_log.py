"""What a line of a build's log costs: kept from a pod's file into the database, and read back by cursor.

A line has 100 bytes. `python -m bench build_log` on SQLite; with DRYCC_BENCH_DATABASE_URL on that database.
"""

import os
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

from tests.cluster import ModelCluster
from tests.conftest import MIGRATIONS
from tests.core.story import Story

from bench.tables import show
from drycc.backends.cluster.base import Output
from drycc.backends.cluster.local.follow import follow
from drycc.backends.db import open_database
from drycc.core import build_log

LINES = 200_000


class FileCluster(ModelCluster):
    """A build whose output is a file, read as the local cluster reads it."""

    def __init__(self, out: Path) -> None:
        super().__init__()
        self.out = out

    async def output(self, id: str, offset: int = 0) -> AsyncIterator[Output]:
        async for output in follow(self.out, offset, self.ended[id]):
            yield output


async def measure() -> None:
    with TemporaryDirectory() as name:
        home = Path(name)
        url = os.environ.get("DRYCC_BENCH_DATABASE_URL", f"sqlite+aiosqlite:///{home}/drycc.db")
        (home / "out").write_text("".join(f"{number:06d} ".ljust(99, "x") + "\n" for number in range(LINES)))
        async with open_database(url) as db:
            await db.migrate(MIGRATIONS)
            story = await Story.begin(db, home)
            story.ports.cluster.pods = FileCluster(home / "out")
            id = await story.push(web="./serve")
            kept = await _time(story.work())
            read = await _time(_read_all(story, id))
        rows = [("keep", *_row(*kept)), ("read", *_row(*read))]
        title = f"A build's log, {LINES:,} lines of 100 bytes, {db.url.get_backend_name()}"
        show(title, ("", "lines/s", "µs CPU/line"), rows)


async def _time(act: Awaitable[None]) -> tuple[float, float]:
    wall, cpu = perf_counter(), process_time()
    await act
    return perf_counter() - wall, process_time() - cpu


async def _read_all(story: Story, id: int) -> None:
    cursor = ""
    while not (page := await build_log.read(story.db, id, cursor, 1000)).is_over:
        cursor = page.cursor


def _row(wall: float, cpu: float) -> tuple[str, str]:
    return f"{LINES / wall:,.0f}", f"{cpu / LINES * 1e6:.1f}"
