"""Where backups are kept: a directory, or the ObjectStore below `backups/<name>/`; the same files in both."""

import asyncio
import fcntl
import os
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from drycc.backends.objects.base import ObjectStore
from drycc.backup.manifest import FILE
from drycc.errors import Conflict, Invalid, NotFound
from drycc.kit.crash import point
from drycc.kit.files import sync_directory
from drycc.kit.ids import now

STORE = "objects:"  # how the ObjectStore is named on the command line
PREFIX = "backups/"
CHUNK = 1024 * 1024
TIME = "%Y%m%dT%H%M%S.%fZ"
AHEAD = timedelta(minutes=5)  # that clocks may differ
_PART = ".part-"


class Target(Protocol):
    """A backup under way; parts are written below `directory`, then handed over."""

    directory: Path
    shown: str  # where the backup will be, for people

    async def keep(self, name: str) -> None:
        """The part is written."""

    async def drop(self, name: str) -> None:
        """Forget a part that was kept."""

    async def finish(self, manifest: bytes) -> None:
        """From here on this is a backup, and durable."""


class Source(Protocol):
    shown: str

    async def path(self, name: str) -> Path:
        """A local file with the part; raises `NotFound`."""


def make_name(at: datetime) -> str:
    return at.astimezone(UTC).strftime(TIME)


def read_time(name: str) -> datetime | None:
    """When the backup of this name was made; None for a name that we did not give."""
    try:
        at = datetime.strptime(name, TIME).replace(tzinfo=UTC)
    except ValueError:
        return None
    return at if make_name(at) == name else None


def is_ahead(at: datetime) -> bool:
    """Whether it is of a clock that ran ahead."""
    return at > now() + AHEAD


@contextmanager
def open_spool(parent: Path, name: str) -> Iterator[Path]:
    """A directory for the backup `name` while it is made; what dead ones have left is removed first."""
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for left in parent.glob(f"{_PART}*"):
        if read_time(left.name.removeprefix(_PART)) and left.is_dir() and not left.is_symlink():
            _remove_dead(left)
    path = parent / f"{_PART}{name}"
    handle = _make_locked(path)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(handle)


@contextmanager
def open_directory(parent: Path, name: str) -> Iterator[Target]:
    """A backup that will be the directory `<parent>/<name>`."""
    with open_spool(parent, name) as spool:
        yield _Directory(spool, parent / name)


@asynccontextmanager
async def open_store(objects: ObjectStore, spool: Path, name: str) -> AsyncIterator[Target]:
    """A backup in the ObjectStore; parts wait below `spool` until they are there."""
    target = _Store(spool / "parts", objects, name)
    try:
        yield target
    except BaseException:
        await remove_stored(objects, name)
        raise


async def list_stored(objects: ObjectStore) -> Sequence[str]:
    """Names that we gave to whole backups in the ObjectStore, oldest first."""
    return [name for name in await _list_whole(objects) if read_time(name)]


async def sweep_stored(objects: ObjectStore, spools: Path) -> None:
    """Remove from the ObjectStore what backups have left that died before they were whole."""
    keys = [key.split("/") for key in await objects.list(PREFIX)]
    found = {key[1] for key in keys if len(key) > 2 and read_time(key[1])}
    ended = {name for name in found if not _is_locked(spools / f"{_PART}{name}")}
    for name in ended.difference(await list_stored(objects)):  # some may have ended whole just now
        await remove_stored(objects, name)


async def remove_stored(objects: ObjectStore, name: str) -> None:
    """The manifest goes first: what is left of a backup is none."""
    await objects.delete(f"{PREFIX}{name}/{FILE}")
    for key in await objects.list(f"{PREFIX}{name}/"):
        await objects.delete(key)


async def open_source(text: str, objects: ObjectStore) -> Source:
    """What `dryccd restore` is given: a directory, `objects:<name>`, or `objects:` for the newest."""
    if not text.startswith(STORE):
        return _Files(Path(await asyncio.to_thread(os.path.realpath, text)))
    whole = await _list_whole(objects)
    name = text.removeprefix(STORE) or _find_newest(whole)
    if name not in whole:
        there = f"there are {', '.join(whole)}" if whole else "there is none"
        what = name or ("with a time for its name" if whole else "at all")
        raise NotFound(f"there is no backup {what} in the object store; {there}")
    return _Stored(objects, name)


async def _list_whole(objects: ObjectStore) -> Sequence[str]:
    """Also those that somebody has put there under a name of his own."""
    keys = [key.split("/") for key in await objects.list(PREFIX)]
    return sorted(key[1] for key in keys if len(key) == 3 and key[2] == FILE)


def _find_newest(names: Sequence[str]) -> str:
    """Empty when we gave none of the names."""
    newest = max((at for name in names if (at := read_time(name))), default=None)
    if newest and is_ahead(newest):
        raise Conflict(
            f"the newest backup, {STORE}{make_name(newest)}, is dated later than now: set the clock, "
            f"or name the one that you mean; there are {', '.join(names)}"
        )
    return make_name(newest) if newest else ""


class _Directory(Target):
    def __init__(self, directory: Path, final: Path) -> None:
        self.directory = directory
        self.shown = str(final)
        self._final = final

    async def keep(self, name: str) -> None:
        pass

    async def drop(self, name: str) -> None:
        (self.directory / name).unlink()

    async def finish(self, manifest: bytes) -> None:
        await asyncio.to_thread(self._finish, manifest)

    def _finish(self, manifest: bytes) -> None:
        with os.fdopen(os.open(self.directory / FILE, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(manifest)
            file.flush()
            os.fsync(file.fileno())
        for parent, _, _ in os.walk(self.directory):
            sync_directory(Path(parent))
        point("backup.named")
        self.directory.rename(self._final)
        sync_directory(self._final.parent)


class _Store(Target):
    def __init__(self, directory: Path, objects: ObjectStore, name: str) -> None:
        self.directory = directory
        self.shown = f"{STORE}{name}"
        self._objects = objects
        self._prefix = f"{PREFIX}{name}/"

    async def keep(self, name: str) -> None:
        file = self.directory / name
        await self._objects.put(self._prefix + name, _read(file))
        await asyncio.to_thread(file.unlink)

    async def drop(self, name: str) -> None:
        await self._objects.delete(self._prefix + name)

    async def finish(self, manifest: bytes) -> None:
        async def content() -> AsyncIterator[bytes]:
            yield manifest

        await self._objects.put(self._prefix + FILE, content())


class _Files(Source):
    def __init__(self, directory: Path) -> None:
        self.shown = str(directory)
        self._directory = directory

    async def path(self, name: str) -> Path:
        path = self._directory / name
        try:
            is_there = await asyncio.to_thread(path.is_file)
        except OSError as error:
            raise Invalid(f"{path} cannot be read: {error.strerror}") from error
        if not is_there:
            raise NotFound(f"{path} is missing: this is no whole backup")
        return path


class _Stored(Source):
    def __init__(self, objects: ObjectStore, name: str) -> None:
        self.shown = f"{STORE}{name}"
        self._objects = objects
        self._prefix = f"{PREFIX}{name}/"

    async def path(self, name: str) -> Path:
        return await self._objects.path(self._prefix + name)


async def _read(file: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(file.open, "rb") as content:
        while chunk := await asyncio.to_thread(content.read, CHUNK):
            yield chunk


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield handle
    finally:
        os.close(handle)


def _make_locked(directory: Path) -> int:
    """A new directory, open and locked; made again when another swept it before it was."""
    while True:
        directory.mkdir(mode=0o700)
        try:
            handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        fcntl.flock(handle, fcntl.LOCK_EX)  # others hold it only while they look or sweep
        if _is_at(handle, directory):
            return handle
        os.close(handle)


def _remove_dead(directory: Path) -> None:
    """Remove it unless a living process makes a backup there; locked, so that none begins to meanwhile."""
    with suppress(FileNotFoundError, BlockingIOError, PermissionError), _opened(directory) as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(handle, directory):
            shutil.rmtree(directory, ignore_errors=True)


def _is_at(handle: int, directory: Path) -> bool:
    """Whether what is open still has this name."""
    return directory.exists() and os.path.samestat(os.fstat(handle), directory.stat())


def _is_locked(directory: Path) -> bool:
    """Whether a living process makes a backup there."""
    try:
        with _opened(directory) as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
