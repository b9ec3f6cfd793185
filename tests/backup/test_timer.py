"""Backups on a timer into the ObjectStore: when, how many are kept, and what a failure does."""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from time import monotonic

import pytest

from drycc.backends.db import open_database
from drycc.backends.nudges import open_nudges
from drycc.backup import archive, timer
from drycc.backup.create import Platform, create_backup
from drycc.backup.manifest import Manifest
from drycc.errors import Conflict, Invalid, NotFound
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


async def test_a_name_that_is_not_ours_is_neither_counted_nor_removed(quick: Install) -> None:
    """It sorts behind each of ours; whoever has put it there restores it by its name."""
    await create_backup(quick.platform, archive.STORE)
    (ours,) = await archive.list_stored(quick.objects)
    backups = quick.home / "objects" / "backups"
    for name in ("before-upgrade", f"{ours}.old", "20260726T31500.1Z"):
        shutil.copytree(backups / ours, backups / name)
    (backups / "half").mkdir()
    (backups / "half" / "notes").write_text("precious")
    (backups / ours.replace("20", "19", 1)).write_text("no directory")
    seen: set[str] = set()
    began = monotonic()
    async with ticking(quick):

        async def saw_four() -> bool:
            seen.update(await archive.list_stored(quick.objects))
            return len(seen) >= 4

        await until(saw_four, within=30)
    assert monotonic() - began >= 2 * 0.3
    assert len(await archive.list_stored(quick.objects)) >= 2
    assert (backups / "half" / "notes").exists()
    for name in ("before-upgrade", f"{ours}.old", "20260726T31500.1Z"):
        assert (backups / name / "manifest.json").exists()
    newest = await archive.open_source(archive.STORE, quick.objects)
    assert newest.shown == f"objects:{(await archive.list_stored(quick.objects))[-1]}"
    lose(quick)
    await quick.restore("objects:before-upgrade")
    await check_named(quick)


async def test_without_one_of_ours_there_is_no_newest(quick: Install) -> None:
    await create_backup(quick.platform, archive.STORE)
    (ours,) = await archive.list_stored(quick.objects)
    backups = quick.home / "objects" / "backups"
    (backups / ours).rename(backups / "before-upgrade")
    with pytest.raises(NotFound, match=r"no backup with a time for its name .* there are before-upgrade"):
        await archive.open_source(archive.STORE, quick.objects)


async def test_one_of_a_clock_that_ran_ahead_does_not_count(
    quick: Install, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends no timer, pushes none out, and is not taken as the newest."""
    await create_backup(quick.platform, archive.STORE)
    (ours,) = await archive.list_stored(quick.objects)
    ahead = archive.make_name(now() + timedelta(days=400))
    shutil.copytree(quick.home / "objects" / "backups" / ours, quick.home / "objects" / "backups" / ahead)
    seen: set[str] = set()
    async with ticking(quick):

        async def saw_four() -> bool:
            stored = await archive.list_stored(quick.objects)
            seen.update(stored)
            return len(seen) >= 5 and len(stored) == 3

        await until(saw_four, within=30)
    assert (await archive.list_stored(quick.objects))[-1] == ahead
    assert f"dated later than now, and do not count: {ahead}; set the clock, or delete them" in caplog.text
    with pytest.raises(Conflict, match=f"{ahead}, is dated later than now: set the clock, or name"):
        await archive.open_source(archive.STORE, quick.objects)


async def test_whatever_the_store_lists_there_is_a_period_between_two(
    quick: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[float] = []

    async def forget(platform: Platform, target: str) -> tuple[str, Manifest]:
        began.append(monotonic())
        shown, made = await create_backup(platform, target)
        await archive.remove_stored(platform.objects, shown.removeprefix(archive.STORE))
        return shown, made

    monkeypatch.setattr(timer, "create_backup", forget)
    async with ticking(quick):
        await until(lambda: len(began) >= 3, within=30)
    assert all(later - earlier >= 0.3 for earlier, later in pairwise(began))


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
