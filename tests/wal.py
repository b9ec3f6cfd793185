"""SQLite's log while one writes without end, ten follow a build and one reads it page by page."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends.db import Database
from drycc.core import build_log, builds
from drycc.core.models import Build, BuildLine
from drycc.kit.ids import now
from tests.core.story import Story

FOLLOWERS = 10
PAGE = 100
TEXT = "a line of a build that prints what builds print"
BURST = 100  # commits between two nudges, and two looks at the log


@dataclass(frozen=True)
class Measured:
    commits: int
    seconds: float
    largest: int  # bytes of the log, ever seen
    last: int  # when it was over
    followed: list[int]  # lines, by follower
    paged: int  # lines


async def measure_wal(db: Database, directory: Path, commits: int) -> Measured:
    """One line of build output a commit. Everybody has read all of them when it returns."""
    story = await Story.begin(db, directory)
    build = await story.push(web="run")
    log = Path(f"{db.file()}-wal")
    over = asyncio.Event()
    began = monotonic()
    async with asyncio.TaskGroup() as group:
        followers = [group.create_task(_follow(story, build)) for _ in range(FOLLOWERS)]
        paging = group.create_task(_page(story, build, over))
        largest = await _write(story, build, commits, log)
        over.set()
    followed = [task.result() for task in followers]
    took = monotonic() - began
    return Measured(commits, took, largest, log.stat().st_size, followed, paging.result())


async def _write(story: Story, build: int, commits: int, log: Path) -> int:
    """The largest size of the log."""
    largest, at = 0, now()
    for number in range(1, commits + 1):
        line = {"build_id": build, "seq": number, "at": at, "text": TEXT, "source": "build", "offset": number}
        await story.db.write(partial(_add, line=line))
        if number % BURST == 0:
            await story.nudges.send(builds.TOPIC, str(build))
            largest = max(largest, log.stat().st_size)
    await story.db.write(lambda session: _end(session, build))
    await story.nudges.send(builds.TOPIC, str(build))
    return max(largest, log.stat().st_size)


async def _add(session: AsyncSession, line: Mapping[str, Any]) -> None:
    await session.execute(sa.insert(BuildLine), [line])


async def _end(session: AsyncSession, build: int) -> None:
    (await session.get_one(Build, build)).finished = now()


async def _follow(story: Story, build: int) -> int:
    count = 0
    async for _ in builds.follow(story.db, story.nudges, build):
        count += 1
    return count


async def _page(story: Story, build: int, over: asyncio.Event) -> int:
    """Reads from the beginning again and again, as a client that knows no cursor; the last pass counts."""
    while True:
        is_last = over.is_set()
        count, cursor = 0, ""
        while (page := await build_log.read(story.db, build, cursor, PAGE)).lines:
            count, cursor = count + len(page.lines), page.cursor
            await asyncio.sleep(0.02)  # somebody looks at it
        if is_last:
            return count
        await asyncio.sleep(0.02)
