"""A backup under writes: what it holds is of one moment, and all that its rows name is there."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from drycc.backends.db import Database, open_database
from drycc.backends.logstore.base import Line
from drycc.backends.logstore.ring import LocalLogStore
from drycc.backup import parts
from drycc.backup.archive import make_name, open_spool
from drycc.backup.contents import list_repository, read_contents
from drycc.backup.create import create_backup
from drycc.errors import Invalid
from drycc.kit.ids import now
from tests.backup.install import (
    BOUNDS,
    FSCK,
    Install,
    check_named,
    git,
    lose,
    read_lines,
    read_tables,
    read_tree,
    write_lines,
)
from tests.conftest import new_postgres_database

Act = Callable[[], Awaitable[object]]


async def test_what_is_restored_is_the_platform_at_the_snapshots_moment(install: Install) -> None:
    """Rows, images, repositories, objects and lines are written all the time meanwhile."""
    await install.mark("before")
    async with writing(install):
        shown, made = await create_backup(install.platform, str(install.home / "kept"))
    await install.mark("after")
    lost = lose(install)
    await install.restore(shown)

    reference = install.home / "reference.db"
    parts.unpack_file(Path(shown) / "database.zst", reference)
    restored = read_tables(install.rows)
    assert restored == read_tables(reference)
    names = {row[1] for row in restored["users"]}
    assert "before" in names
    assert "after" not in names
    assert {row[1] for row in read_tables(lost / "drycc.db")["users"]} >= {"before", "after"}

    contents = await read_contents(install.rows, now())
    assert len(contents.images) > 2
    for app, build in contents.images:
        image = install.data / "images" / app / str(build)
        assert read_tree(image) == read_tree(lost / "images" / app / str(build))
    for venv in (install.data / "venvs" / "shop").iterdir():
        assert read_tree(venv) == read_tree(lost / "venvs" / "shop" / venv.name)
    await check_named(install)
    for key in contents.sources:
        assert (install.data / "objects" / key).read_bytes() == (lost / "objects" / key).read_bytes()
    assert (install.data / "ssh" / "host_key").read_text() == "a key"
    async with install.logs() as store:
        lines = await read_lines(store, "shop")
    assert lines == [f"line {number}" for number in range(len(lines))]
    assert len(lines) >= 20
    assert made.count("logs") == 1
    assert list(install.data.glob("backup/*")) == []


async def test_an_app_that_is_destroyed_meanwhile_is_not_half_in_it(install: Install) -> None:
    """Its row is in the first snapshot, its files are gone when their turn comes."""
    await install.add_app("gone")
    await install.add_release("gone", venv="abc")
    await install.add_release("gone", state="queued")
    async with acting(install, after=lambda: install.destroy("gone")) as db:
        shown, made = await create_backup(replace(install.platform, db=db), str(install.home / "kept"))
    assert db.snapshots == 2
    lose(install)
    await install.restore(shown)
    assert len(read_tables(install.rows)["apps"]) == 1
    assert not any("gone" in name for name in made.parts)
    assert made.count("repos") == 1
    await check_named(install)


async def test_a_commit_of_between_two_snapshots_is_in_it(install: Install) -> None:
    """The second snapshot names a commit that the copy of the repository lacks: it is copied again."""
    build = await install.add_release("shop")
    image = install.data / "images" / "shop" / str(build)

    async def collect() -> None:
        image.rename(image.with_name(".removed-x"))

    async with acting(install, after=collect, before_second=lambda: install.add_release("shop")) as db:
        shown, made = await create_backup(replace(install.platform, db=db), str(install.home / "kept"))
    assert db.snapshots == 2
    lose(install)
    await install.restore(shown)
    assert made.count("images") == 3
    await check_named(install, but=build)


async def test_an_image_that_the_platform_lacks_itself_keeps_no_backup_from_being_made(
    install: Install,
) -> None:
    build = await install.add_release("shop")
    (install.data / "images" / "shop" / str(build)).rename(install.data / "images" / "shop" / ".removed-x")
    shown, made = await create_backup(install.platform, str(install.home / "kept"))
    assert made.count("images") == 2
    lose(install)
    await install.restore(shown)
    assert len(read_tables(install.rows)["releases"]) == 4


async def test_a_repository_that_is_tidied_while_it_is_copied_is_whole(install: Install) -> None:
    uuid = next(iter(install.repositories.list()))
    kept = install.repositories.open(uuid)
    for _ in range(20):
        await install.add_release("shop")
    tidying = Event()

    def tidy() -> None:
        while not tidying.is_set():
            git(kept, "-c", "gc.pruneExpire=now", "gc", "--quiet")
            install._commit(uuid)

    task = asyncio.create_task(asyncio.to_thread(tidy))
    try:
        for number in range(15):
            shas = git(kept, "for-each-ref", "--format=%(objectname)").split()
            copied = await asyncio.to_thread(copy_repository, install, kept, number)
            assert git(copied, *FSCK) == ""
            assert set(shas) <= set(git(copied, "for-each-ref", "--format=%(objectname)").split())
    finally:
        tidying.set()
        await task


async def test_segments_that_retention_drops_meanwhile_leave_no_gap(install: Install) -> None:
    """The log is dropped from its old end all the time; what is restored ends where some append did."""
    busy = asyncio.Event()

    async def print_lines() -> None:
        number = 20
        async with install.logs() as store:
            while not busy.is_set():
                texts = (f"line {n} {os.urandom(500).hex()}" for n in range(number, number + 50))
                await store.append("shop", [Line(now(), "app", text) for text in texts])
                number += 50

    task = asyncio.create_task(print_lines())
    try:
        for _ in range(3):
            shown, _ = await create_backup(install.platform, str(install.home / "kept"))
            copied = install.home / "copied" / Path(shown).name / "shop"
            parts.unpack_tree(Path(shown) / "logs" / "shop.tar.zst", copied)
            numbers = await read_numbers(install, copied)
            assert numbers == list(range(numbers[0], numbers[-1] + 1))
    finally:
        busy.set()
        await task


async def test_rows_on_a_server_are_refused_with_what_to_use(postgres_url: str, install: Install) -> None:
    async with open_database(await new_postgres_database(postgres_url)) as db:
        install.db = db
        with pytest.raises(Invalid, match="pgBackRest or pg_dump"):
            await create_backup(install.platform, str(install.home / "kept"))
    assert not (install.home / "kept").exists()


async def test_a_damaged_database_is_not_kept_as_a_backup(install: Install) -> None:
    await install.db.close()
    with install.rows.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(os.urandom(2 * 4096))
    done = await install.dryccd("backup", install.home / "kept")
    assert done.code == 1
    assert "dryccd: " in done.err
    assert "Traceback" not in done.err
    assert list((install.home / "kept").glob("*")) == []


async def test_a_target_in_the_data_directory_is_refused(install: Install) -> None:
    with pytest.raises(Invalid, match="on another disk"):
        await create_backup(install.platform, str(install.data / "mine"))


@pytest.mark.parametrize("target", ["", "objects:foo", "file:///mnt/x", "s3://bucket/x", "OBJECTS:"])
async def test_a_target_that_is_no_directory_is_refused(
    install: Install, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = install.home / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(
        Invalid, match=r"name a directory, with \./ before .* or objects: for the object store"
    ):
        await create_backup(install.platform, target)
    assert list(here.iterdir()) == []
    await create_backup(install.platform, "./objects:foo")
    assert len(list((here / "objects:foo").iterdir())) == 1


async def test_only_spools_of_dead_backups_are_swept(install: Install) -> None:
    kept, dead = install.home / "kept", f".part-{make_name(now())}"
    (kept / dead).mkdir(parents=True)
    (kept / ".part-mine").mkdir()
    (kept / ".part-mine" / "notes").write_text("precious")
    (kept / ".part-x").write_text("precious")
    (kept / ".part-20260726T031500.123456Z").write_text("precious")
    (kept / ".part-20260726T031501.123456Z").symlink_to(kept / ".part-mine")
    there = {path.name for path in kept.iterdir()} - {dead}
    shown, _ = await create_backup(install.platform, str(kept))
    assert {path.name for path in kept.iterdir()} == there | {Path(shown).name}
    assert (kept / ".part-mine" / "notes").read_text() == "precious"


@pytest.mark.parametrize("call", ["os.open", "fcntl.flock"])
def test_a_spool_that_another_swept_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """The other one's sweep comes right before this call; after the lock it leaves the spool alone."""
    names = [make_name(now() + timedelta(seconds=seconds)) for seconds in range(3)]
    swept: list[bool] = []

    called = getattr(sys.modules[call.partition(".")[0]], call.partition(".")[2])

    def sweep(*arguments: Any, **options: Any) -> Any:
        if not swept:
            swept.append(False)
            with open_spool(tmp_path, names[1]):
                swept[0] = not (tmp_path / f".part-{names[0]}").exists()
        return called(*arguments, **options)

    monkeypatch.setattr(call, sweep)
    with open_spool(tmp_path, names[0]) as spool:
        assert swept == [True]
        with open_spool(tmp_path, names[2]):
            assert spool.exists()
    assert list(tmp_path.iterdir()) == []


async def test_a_full_disk_ends_in_a_sentence_and_leaves_nothing(install: Install) -> None:
    """A limit on the size of files stands for the disk: a write fails in the middle of a part."""
    kept = install.home / "kept"
    image = install.data / "images" / "shop" / "9"
    await install.add_release("shop")
    big = install.data / "objects" / "big"
    big.write_bytes(os.urandom(4 * 1024 * 1024))
    command = f'ulimit -f 2048; trap "" XFSZ; exec {sys.executable} -m drycc backup {kept}'
    done = await asyncio.to_thread(
        subprocess.run,
        ["sh", "-c", command],
        env=os.environ | install.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done
    assert "the backup cannot be written" in done.stderr
    assert list(kept.glob(".*")) + list(kept.glob("*")) == []
    assert not image.exists()


class Acting(Database):
    """Acts once after its first snapshot, and once before its second."""

    def __init__(self, url: str, after: Act, before_second: Act | None) -> None:
        super().__init__(url)
        self.snapshots = 0
        self._after = after
        self._before_second = before_second

    async def snapshot(self, target: Path) -> None:
        self.snapshots += 1
        if self.snapshots == 2 and self._before_second:
            await self._before_second()
        await super().snapshot(target)
        if self.snapshots == 1:
            await self._after()


@asynccontextmanager
async def acting(install: Install, *, after: Act, before_second: Act | None = None) -> AsyncIterator[Acting]:
    db = Acting(install.settings.database_url, after, before_second)
    try:
        yield db
    finally:
        await db.close()


@asynccontextmanager
async def writing(install: Install) -> AsyncIterator[None]:
    """Releases, queued builds and lines come while the body runs; some of each have come before it."""
    began, over = asyncio.Event(), asyncio.Event()

    async def push() -> None:
        while not over.is_set():
            await install.add_release("shop", venv=f"venv-{install.commits % 3}")
            await install.add_release("shop", state="queued")
            began.set()

    async def print_lines() -> None:
        number = 20
        async with install.logs() as store:
            while not over.is_set():
                await write_lines(store, "shop", number, number + 5)
                number += 5

    async with asyncio.TaskGroup() as group:
        group.create_task(push())
        group.create_task(print_lines())
        await began.wait()
        try:
            yield
        finally:
            over.set()


def copy_repository(install: Install, kept: Path, number: int) -> Path:
    """As a backup does, again when a file has vanished."""
    part, copied = install.home / f"{number}.part", install.home / f"{number}.git"
    while not part.exists():
        with suppress(FileNotFoundError):
            parts.pack_tree(kept, list_repository, part, Event(), may_vanish=False)
    parts.unpack_tree(part, copied)
    return copied


async def read_numbers(install: Install, directory: Path) -> list[int]:
    """Of the lines in a copy of one app's segments."""
    async with LocalLogStore(directory.parent, BOUNDS) as store:
        return [int(text.split()[1]) for text in await read_lines(store, "shop")]
