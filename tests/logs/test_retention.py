"""The timer that keeps the store's bounds."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from drycc.backends.db import open_database
from drycc.backends.logstore.base import Line
from drycc.backends.logstore.retention import Bounds
from drycc.backends.logstore.ring import LocalLogStore
from drycc.core.secrets import Keyring
from drycc.errors import Unavailable
from drycc.kit.aio import cancel
from drycc.kit.ids import now
from drycc.logs import role
from drycc.logs.retention import choose_pause, keep_bounds
from drycc.settings import Settings
from tests.logs.printed import PrintedCluster
from tests.waiting import until

DAY = 86400
MARK = "WARN 2 lines are no longer kept"


@asynccontextmanager
async def opened(root: Path, age: float) -> AsyncIterator[tuple[LocalLogStore, Callable[[], Awaitable[str]]]]:
    """A store with three lines, and how to ask what a reader who stood after the first is told."""
    async with LocalLogStore(root, Bounds(2**26, 2**32, age=age)) as store:
        await store.append("foo", [Line(now(), "app", f"{n}") for n in range(3)])
        cursor = (await store.read("foo", limit=1)).cursor

        async def read_mark() -> str:
            found = (await store.read("foo", cursor=cursor)).lines[0]
            return found.text if found.source == "platform" else ""

        yield store, read_mark


async def test_the_clock_decides_what_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that fails is asked again."""
    times = iter([now() + timedelta(days=29)] * 2)
    marks = []
    async with opened(tmp_path, 30 * DAY) as (store, read_mark):
        real, failures = store.drop_old, iter([True])

        async def fail_once(at: datetime) -> None:
            marks.append(await read_mark())
            if next(failures, False):
                raise Unavailable("old lines cannot be dropped: Input/output error")
            await real(at)

        monkeypatch.setattr(store, "drop_old", fail_once)
        clock = partial(next, times, now() + timedelta(days=31))
        timer = asyncio.create_task(keep_bounds(store, 0.01, clock))
        with caplog.at_level(logging.WARNING, "drycc.logs"):
            assert await until(read_mark) == MARK
        await cancel(timer)
    assert "Input/output error" in caplog.text
    assert marks[:3] == [""] * 3


async def test_the_role_runs_the_timer(tmp_path: Path) -> None:
    (tmp_path / "pods").mkdir()
    cluster, keyring = PrintedCluster(tmp_path / "pods"), Keyring.create(tmp_path / "keyring")
    async with (
        open_database(f"sqlite+aiosqlite:///{tmp_path}/drycc.db") as db,
        opened(tmp_path / "logs", 0.5) as (store, read_mark),
        role.lifespan(role.Needs(Settings(log_age=0.5), db, keyring, cluster, store)),
    ):
        assert await until(read_mark) == MARK


def test_it_looks_once_a_minute_or_more_often() -> None:
    assert [choose_pause(age) for age in (0, 1.6, 160, 30 * DAY)] == [0.1, 0.1, 10, 60]
