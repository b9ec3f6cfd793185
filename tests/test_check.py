"""`dryccd check` says what is wrong with disk and database, and fails only where `serve` would."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from drycc.backends import db as database
from drycc.backends.db import WAL_BYTES, open_database
from drycc.check import check
from drycc.check_disk import check_owner, check_wal, check_writable, count_needed
from drycc.data import lock_data
from drycc.errors import Invalid
from drycc.settings import Settings, load
from tests.conftest import MIGRATIONS
from tests.outage import locked
from tests.postgres import free_port
from tests.smalldisk import small_disk

MIB = 1024 * 1024
NOBODY = 65534


def make_settings(data: Path, **more: str) -> Settings:
    free = {f"DRYCC_{door}_LISTEN": f"127.0.0.1:{free_port()}" for door in ("HTTP", "SSH", "EDGE")}
    return load({"DRYCC_DATA": str(data), **free, **more})


async def look(settings: Settings, capsys: pytest.CaptureFixture[str]) -> tuple[bool, dict[str, str]]:
    """Whether the check succeeds, and its lines by part."""
    capsys.readouterr()
    try:
        await check(settings)
    except Invalid:
        is_good = False
    else:
        is_good = True
    lines = capsys.readouterr().out.splitlines()
    return is_good, dict(line.split(": ", 1) for line in lines if ": " in line)


async def test_space_that_is_short_is_a_warning_and_none_is_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(tmp_path / "disk", 16) as disk:
        settings = make_settings(disk.seen / "data", DRYCC_LOG_TOTAL=str(MIB))
        is_good, said = await look(settings, capsys)
        assert is_good, said
        needed = 2 * (512 + 4 * 1024) + 1 + WAL_BYTES // MIB
        assert said["space"].startswith(f"WARNING: 16 MiB are free and the settings may need {needed}")
        small = {"DRYCC_PUSH_LIMIT": "4096", "DRYCC_TREE_LIMIT": "4096", "DRYCC_LOG_TOTAL": "4096"}
        assert count_needed(make_settings(disk.seen, **small)) < WAL_BYTES + MIB
        disk.fill(leave=100_000)
        is_good, said = await look(settings, capsys)
        assert not is_good
        assert said["space"].startswith("FAILED: no space is left on the platform's disk")


async def test_a_read_only_disk_is_said_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with small_disk(tmp_path / "disk", 1) as disk:
        disk.make_read_only()
        is_good, said = await look(make_settings(disk.seen / "data"), capsys)
        assert not is_good
        assert "is on a file system that is read-only" in said["data"]


@contextmanager
def as_nobody() -> Iterator[None]:
    """An ordinary user stays what they are."""
    us = os.geteuid()
    if us == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(us)


def test_a_directory_or_a_database_of_somebody_else_is_named(tmp_path: Path) -> None:
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    tmp_path.chmod(0o555)
    settings = make_settings(tmp_path)
    file = tmp_path / "drycc.db"
    with (
        as_nobody(),
        pytest.raises(Invalid, match=r"belongs to \w+ and may not be written by"),
    ):
        check_owner(settings)
    tmp_path.chmod(0o755)
    file.touch()
    file.chmod(0o444)
    with as_nobody(), pytest.raises(Invalid, match=r"drycc\.db belongs to \w+ and may not be written by"):
        check_writable(file)
    tmp_path.chmod(0o777)
    if os.geteuid() == 0:
        with as_nobody():
            assert check_owner(settings).startswith("WARNING: it belongs to root")
    assert check_owner(settings) == ""


async def test_a_locked_database_is_a_failure_while_it_lasts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_MS", 200)
    settings = make_settings(tmp_path / "data")
    with lock_data(settings):
        async with open_database(settings.database_url) as db:
            await db.migrate(MIGRATIONS)
    async with locked(tmp_path / "data" / "drycc.db"):
        is_good, said = await look(settings, capsys)
        assert not is_good
        assert said["database"] == "FAILED: the database is locked by another process, try again later"
    is_good, said = await look(settings, capsys)
    assert is_good, said
    assert said["database"].endswith("up to date")


async def test_a_server_that_is_away_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"postgresql+asyncpg://ann:s3cr3t@127.0.0.1:{free_port()}/none"
    is_good, said = await look(make_settings(tmp_path / "data", DRYCC_DATABASE_URL=url), capsys)
    assert not is_good
    assert said["database"] == "FAILED: the database does not answer, try again later"


async def test_a_log_beyond_its_bound_is_a_warning(tmp_path: Path) -> None:
    """A reader that stays in its transaction makes SQLite keep everything; measured on the real thing."""
    file = tmp_path / "drycc.db"
    log = Path(f"{file}-wal")
    assert check_wal(file) == ""
    await asyncio.to_thread(log.touch)
    os.truncate(log, WAL_BYTES)
    assert check_wal(file) == ""
    os.truncate(log, WAL_BYTES + MIB)
    assert check_wal(file).startswith(f"WARNING: {log} has 65 MiB, its bound is 64: some process holds")
