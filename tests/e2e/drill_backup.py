"""The drill of a lost disk: apps of thousands of files, hundreds of thousands of rows, constant load."""

import asyncio
import os
import statistics
import sys
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends.db import open_database
from drycc.core.models import Build, BuildLine
from drycc.kit.ids import now
from tests.conftest import QUICK
from tests.e2e.developer import Developer
from tests.e2e.test_backup import APPS, check_logs_go_on, lose_and_restore, source
from tests.invariants import check_invariants
from tests.platform import Platform

LINES = 200_000
FILES = 2_000  # of each app
ROUNDS = 10


async def drill_backup() -> None:
    """Print what was lost, what came back, and what it took."""
    print(f"{len(APPS)} apps of {FILES} files, {LINES} lines of a build's log, {os.cpu_count()} cores")
    async with Platform(None, QUICK) as platform:
        ann = await Developer.join(platform)
        await ann.push("ballast", await ann.create("ballast"), source("ballast", "ballast"))
        await fill(platform)
        report = await lose_and_restore(ann, rounds=ROUNDS, weight=FILES)
        assert report.work.failures == [], report.work.failures
        await check_logs_go_on(ann)
        await check_invariants(platform)
    work = report.work
    print(f"load: {work.pushes} pushes, {work.configs} config changes, {work.asked} requests, 0 failed")
    print(report.said.replace(str(platform.home), "…"), end="")
    print(
        f"equal: {report.rows} rows of all tables, {report.images} images byte by byte, repositories by fsck"
    )
    print(f"every app answered {report.back:.1f} s after `dryccd serve`, and its newest release, once what")
    print(f"was under way at the snapshot had come to its end, after {report.settled:.1f} s")
    print(f"API under load: {describe(report.before)}; while the backup was made: {describe(report.during)}")


async def fill(platform: Platform) -> None:
    async with open_database(f"sqlite+aiosqlite:///{platform.data}/drycc.db") as db:
        (row,) = await db.read(sa.select(sa.func.min(Build.id)))

        async def body(session: AsyncSession) -> None:
            lines = [
                {
                    "build_id": row[0],
                    "seq": 10_000 + n,
                    "at": now(),
                    "text": f"line {n} {os.urandom(40).hex()}",
                }
                for n in range(LINES)
            ]
            await session.execute(sa.insert(BuildLine), lines)

        await db.write(body)


def describe(seconds: Sequence[float]) -> str:
    worst = sorted(seconds)[int(len(seconds) * 0.99)]
    return f"median {statistics.median(seconds) * 1000:.0f} ms, 99th {worst * 1000:.0f} ms ({len(seconds)})"


if __name__ == "__main__":
    sys.exit(asyncio.run(drill_backup()))
