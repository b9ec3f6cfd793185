"""How many small transactions several processes commit on one database: `python -m tests.worker.commits`."""

import asyncio
import sys
from time import monotonic

import sqlalchemy as sa

from drycc.backends.db import Database, open_database
from drycc.core.models import User

PROCESSES = 4
SECONDS = 5.0


async def measure(url: str) -> int:
    """Commits a second of all processes together, none of which fails."""
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.worker.commits", url), stdout=asyncio.subprocess.PIPE
        )
        for _ in range(PROCESSES)
    ]
    async with asyncio.timeout(60):
        counts = [int((await process.communicate())[0]) for process in processes]
    return int(sum(counts) / SECONDS)


async def commit(url: str) -> int:
    """Commits of this process; any refusal ends it."""
    async with open_database(url) as db:
        until, count = monotonic() + SECONDS, 0
        while monotonic() < until:
            await _commit_one(db)
            count += 1
    return count


async def _commit_one(db: Database) -> None:
    change = sa.update(User).where(User.id == 1).values(email=str(monotonic()))
    await db.write(lambda session: session.execute(change))


if __name__ == "__main__":
    print(asyncio.run(commit(sys.argv[1])))
