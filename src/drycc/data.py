"""The data directory: closed to others, owned by one process; and the rows of a platform that is there."""

import asyncio
import fcntl
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from io import FileIO
from pathlib import Path

from drycc.backends.db import Database, is_migrated, open_database
from drycc.errors import Conflict, Invalid, NotFound
from drycc.kit.disk import find_trouble, guarded
from drycc.kit.files import close_to_others, remove_leftovers
from drycc.settings import LONGEST_RUN, Settings

log = logging.getLogger("drycc.data")

PID_BYTES = 10
MARKS = ("lock", "drycc.db", "repos")  # of a directory that was ours before


@contextmanager
def lock_data(settings: Settings) -> Iterator[None]:
    """Make and own the data directory; `Conflict` when a living process does, `Invalid` when it cannot be."""
    data = Path(settings.data)
    try:
        _prepare(settings)
        lock = FileIO(os.open(data / "lock", os.O_RDWR | os.O_CREAT, 0o600), "r+")
    except OSError as error:
        if trouble := find_trouble(error):
            raise trouble from error
        raise Invalid(f"{data} cannot be the data directory: {error.filename}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                f"{data} belongs to a running dryccd (pid {running_pid(settings)}); "
                "stop it with `dryccd stop`, or name another directory with --data"
            ) from None
        with guarded():
            lock.write(f"{os.getpid():<{PID_BYTES}}".encode())  # in place, which a full disk takes, too
            remove_leftovers(data)
        yield


def check_run(settings: Settings) -> None:
    """Raises `Invalid` for a directory in whose sockets' names the kernel finds no room."""
    size = len(os.fsencode(settings.run))
    if size > LONGEST_RUN:
        raise Invalid(
            f"DRYCC_RUN: {settings.run} has {size} bytes, and sockets need a path of at most {LONGEST_RUN}; "
            "name a shorter directory"
        )


def make_run(settings: Settings) -> None:
    """The directory for sockets; raises `Conflict` when somebody else could put his own there."""
    Path(settings.run).mkdir(parents=True, exist_ok=True, mode=0o700)
    found = os.stat(settings.run)
    owners = {found.st_uid, os.lstat(settings.run).st_uid}
    if owners != {os.geteuid()} or found.st_mode & 0o022:
        raise Conflict(f"{settings.run} is not ours alone; set DRYCC_RUN to another directory")


def running_pid(settings: Settings) -> int | None:
    """The process that owns the data directory now; raises `Invalid` when that may not be known."""
    try:
        with (Path(settings.data) / "lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read() or 0) or None
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise Invalid(f"{error.filename} cannot be read: {error.strerror}") from error
    return None


def migrations() -> Path:
    """Where Alembic's scripts are: inside an installed package, else beside `src`."""
    packaged = Path(__file__).parent / "migrations"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "migrations"


@asynccontextmanager
async def open_existing(settings: Settings) -> AsyncIterator[Database]:
    """The rows of a platform that is there; raises `NotFound`, or `Conflict` for an older schema."""
    async with open_database(settings.database_url) as db:
        is_absent = db.is_sqlite and not await asyncio.to_thread(_is_there, db.file())
        revision = None if is_absent else await db.revision()
        if revision is None:
            raise NotFound(
                f"there is no platform at {settings.data} yet: run `dryccd serve` or `dryccd migrate`"
            )
        if not is_migrated(revision, migrations()):
            raise Conflict("the database is of an older version: run `dryccd migrate` first")
        yield db


def _is_there(file: Path) -> bool:
    try:
        return file.exists()
    except OSError as error:
        raise Invalid(f"{file} cannot be read: {error.strerror}") from error


def close_path(path: Path) -> None:
    """Let nobody but us read it; one that is not ours to change, such as a mounted one, stays as it is."""
    try:
        if close_to_others(path):
            log.warning("%s was open to other users; it is ours alone now", path)
    except OSError as error:
        log.warning("%s is open to other users and stays so: %s", path, error.strerror)


def _prepare(settings: Settings) -> None:
    data = Path(settings.data)
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    if strange := _find_strange(settings):
        raise Conflict(
            f"{data} holds {strange} and no platform: name an empty or a new directory with --data"
        )
    close_path(data)


def _find_strange(settings: Settings) -> str | None:
    """A directory that we did not make, such as /tmp or a home has; closing these would do harm."""
    data = Path(settings.data)
    if any((data / mark).exists() for mark in MARKS):
        return None
    named = [Path(settings.keyring), Path(settings.run)]
    for entry in sorted(data.iterdir()):
        is_named = any(path.is_relative_to(entry) for path in named)
        if entry.is_dir() and entry.name != "lost+found" and not is_named:
            return entry.name
    return None
