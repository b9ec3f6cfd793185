"""Backups on a timer into the ObjectStore: when, how many are kept, and what a failure does."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from drycc.backends.db import open_database
from drycc.backends.nudges import open_nudges
from drycc.backup import archive, timer
from drycc.backup.create import create_backup
from drycc.errors import Invalid
from drycc.kit.ids import now
from drycc.worker import role as worker
from tests.backup.install import Install, check_named, lose, open_install
from tests.cluster import ModelCluster
from tests.core.story import ListLog
from tests.waiting import until


@asynccontextmanager
async def ticking(install: Install) -> AsyncIterator[None]:
    task = asyncio.create_task(timer.run_timer(install.platform))
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture
async def quick(tmp_path: Path) -> AsyncIterator[Install]:
    """Its objects are on another disk."""
    environment = {
        "DRYCC_BACKUP_EVERY": "0.3",
        "DRYCC_BACKUP_KEEP": "2",
        "DRYCC_OBJECTS_URL": f"file://{tmp_path}/objects",
    }
    async with open_install(tmp_path, environment) as install:
        await install.add_app("shop")
        await install.add_release("shop", venv="abc")
        yield install


async def test_the_newest_are_kept_and_any_of_them_restores(quick: Install) -> None:
    async with ticking(quick):
        seen: set[str] = set()

        async def saw_four() -> bool:
            stored = await archive.list_stored(quick.objects)
            seen.update(stored)
            return len(seen) >= 4 and len(stored) == 2

        await until(saw_four, within=30)
    stored = await archive.list_stored(quick.objects)
    assert set(stored) <= set(sorted(seen)[-3:])
    assert list((quick.data / "backup").iterdir()) == []
    lose(quick)
    await quick.restore(f"objects:{stored[0]}")
    await check_named(quick)


async def test_a_restart_waits_until_the_newest_is_old_enough(quick: Install) -> None:
    await create_backup(quick.platform, archive.STORE)
    (name,) = await archive.list_stored(quick.objects)
    made = archive.read_time(name)
    assert made is not None
    async with ticking(quick):

        async def has_two() -> bool:
            return len(await archive.list_stored(quick.objects)) == 2

        await until(has_two, within=30)
    newest = archive.read_time((await archive.list_stored(quick.objects))[-1])
    assert newest is not None
    assert newest - made >= timedelta(seconds=0.3)
    assert now() - made < timedelta(seconds=60)


async def test_one_that_fails_is_told_and_tried_again(
    quick: Install, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timer, "TRY_AGAIN", 0.05)
    store = quick.home / "objects"
    aside = store.rename(quick.home / "aside") if store.exists() else None
    store.write_text("no directory")
    with caplog.at_level(logging.ERROR):
        async with ticking(quick):
            await until(lambda: "no backup was made" in caplog.text)
            store.unlink()
            if aside:
                aside.rename(store)

            async def has_one() -> bool:
                return bool(await archive.list_stored(quick.objects))

            await until(has_one, within=30)


async def test_an_end_of_the_platform_ends_a_backup_at_once(quick: Install) -> None:
    """Half of it is in the store then; it is none, and the next one removes it."""
    for _ in range(30):
        await quick.add_release("shop")
    task = asyncio.create_task(create_backup(quick.platform, archive.STORE))
    await until(lambda: list((quick.home / "objects").rglob("images/shop/*")), within=30)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert await archive.list_stored(quick.objects) == []
    assert await quick.objects.list("backups/") == []
    assert list((quick.data / "backup").iterdir()) == []


async def test_a_timer_beside_rows_on_a_server_is_refused_at_the_start(
    postgres_url: str, quick: Install
) -> None:
    async with open_database(postgres_url) as db:
        needs = worker.Needs(
            settings=quick.settings,
            db=db,
            keyring=quick.keyring,
            cluster=ModelCluster(),
            objects=quick.objects,
            nudges=await open_nudges("memory:"),
            logs=ListLog(),
        )
        with pytest.raises(Invalid, match="pgBackRest"):
            async with worker.lifespan(needs):
                pass
