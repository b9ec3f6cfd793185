"""Restoring a backup into an empty data directory: all of it is checked before anything is written.

While a restore is under way the file `restoring` stands in the directory: `serve` refuses such a one, and
the next restore begins by removing what the one before had written.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from json import dumps
from pathlib import Path
from uuid import uuid4

from drycc.backends.db import is_migrated
from drycc.backends.objects.base import ObjectStore
from drycc.backup import manifest, parts
from drycc.backup.archive import Source
from drycc.backup.manifest import DATABASE, OBJECT, OBJECTS, TREE, Manifest
from drycc.core.secrets import Keyring
from drycc.errors import Conflict, Invalid
from drycc.kit.crash import point
from drycc.kit.files import delete_tree, sync_directory
from drycc.settings import Settings

MARK = "restoring"
BLOCK = 1024 * 1024  # bytes, a multiple of what any file system gives space in


def check_empty(settings: Settings, rows: Path) -> None:
    """Raises `Conflict` when a restore would go over something; `rows` is the database's file."""
    data = Path(settings.data)
    if (data / MARK).exists():
        return
    ours = {data / "lock", Path(settings.run), Path(settings.keyring)}
    there = sorted(set(data.iterdir()) - ours) if data.is_dir() else []
    there += [file for file in _database_files(rows) if file.exists()]
    if there:
        raise Conflict(
            f"{there[0]} is there already, and a restore goes over nothing: "
            "move it aside, or name an empty directory with --data"
        )


def check_whole(data: Path) -> None:
    """Raises `Conflict` for a data directory whose restore has not come to its end."""
    if (data / MARK).exists():
        raise Conflict(f"a restore into {data} was interrupted: repeat it with `dryccd restore`")


async def restore(
    settings: Settings, rows: Path, objects: ObjectStore, source: Source, scripts: Path
) -> Manifest:
    """Needs the data directory's lock. Raises `Conflict` when something stands in the way or the keyring is
    not in place, `Invalid` for a backup that is damaged."""
    await asyncio.to_thread(check_empty, settings, rows)
    file = await source.path(manifest.FILE)
    read = manifest.parse(await asyncio.to_thread(file.read_bytes))
    await asyncio.to_thread(_check_fitting, settings, read, scripts)
    await asyncio.to_thread(_check_outside, settings, file)
    files = {name: await source.path(name) for name in read.parts}
    for name, part in read.parts.items():
        if not await asyncio.to_thread(parts.verify, files[name], part):
            raise Invalid(f"{files[name]} is damaged: it is not what the backup wrote; restore another one")
    await asyncio.to_thread(_begin, settings, rows)
    point("restore.begun")
    for name, file in files.items():
        await _unpack(name, file, Path(settings.data), rows, objects)
    await asyncio.to_thread(_end, Path(settings.data), read)
    return read


def find_broken(data: Path) -> list[Path]:
    """Virtual environments whose interpreter is not on this machine."""
    return [venv for venv in sorted(data.glob("venvs/*/*")) if not (venv / "bin" / "python").exists()]


def _check_fitting(settings: Settings, read: Manifest, scripts: Path) -> None:
    is_migrated(read.revision, scripts)
    _check_keyring(Path(settings.keyring), read)
    if read.count("venvs") and read.data != settings.data:
        raise Conflict(
            f"the backup holds virtual environments, which work at {read.data} alone: "
            f"restore with --data {read.data}"
        )


def _check_outside(settings: Settings, file: Path) -> None:
    if file.resolve().is_relative_to(Path(settings.data).resolve()):
        raise Conflict(f"the backup lies in {settings.data}: move it elsewhere first")


def _check_keyring(path: Path, read: Manifest) -> None:
    if not path.exists():
        raise Conflict(
            f"the keyring {path} is missing; the backup holds no keys: put your copy of {read.keyring} there"
        )
    missing = sorted(set(read.keys).difference(Keyring.load(path).ids))
    if missing:
        raise Conflict(
            f"the keyring {path} lacks {', '.join(missing)}: put your copy of {read.keyring} there, "
            "with which the backup was made"
        )


def _begin(settings: Settings, rows: Path) -> None:
    """Mark the directory, and remove what an interrupted restore has written."""
    data = Path(settings.data)
    (data / MARK).touch()
    sync_directory(data)
    ours = {data / MARK, data / "lock", Path(settings.run), Path(settings.keyring)}
    for path in set(data.iterdir()) - ours:
        if path.is_dir():
            delete_tree(path)
        else:
            path.unlink()
    for file in _database_files(rows):
        file.unlink(missing_ok=True)


async def _unpack(name: str, file: Path, data: Path, rows: Path, objects: ObjectStore) -> None:
    if name == DATABASE:
        await asyncio.to_thread(parts.unpack_file, file, rows)
    elif name.startswith(OBJECTS):
        key = name.removeprefix(OBJECTS).removesuffix(OBJECT)
        await objects.put(key, _read(file))
    else:
        directory = data / name.removesuffix(TREE)
        await asyncio.to_thread(parts.unpack_tree, file, directory)
        if directory.parent == data / "logs":
            await asyncio.to_thread(_renew_log, directory)


async def _read(file: Path) -> AsyncIterator[bytes]:
    chunks = parts.read_chunks(file)
    while chunk := await asyncio.to_thread(next, chunks, b""):
        yield chunk


def _renew_log(directory: Path) -> None:
    """A cursor of after the backup stands at the beginning, not among lines that it has not seen."""
    life = uuid4().hex[:8]
    for segment in directory.glob("*-*.log"):
        segment.rename(segment.with_name(f"{segment.name.partition('-')[0]}-{life}.log"))


def _end(data: Path, read: Manifest) -> None:
    _begin_access(data / "edge" / "access", read.access)
    os.sync()
    point("restore.unpacked")
    (data / MARK).unlink()
    sync_directory(data)


def _begin_access(file: Path, size: int) -> None:
    """A hole as long as the access lines that were, and a record of no app: logs know how far they have
    read them, and would take new ones for old."""
    file.parent.mkdir(parents=True)
    record = {"app": "", "at": datetime.now(UTC).isoformat(timespec="microseconds"), "text": ""}
    with file.open("xb") as access:
        access.truncate((size // BLOCK + 1) * BLOCK)
        access.seek(0, os.SEEK_END)
        access.write(f"{dumps(record)}\n".encode())
    file.chmod(0o600)


def _database_files(rows: Path) -> list[Path]:
    return [rows.with_name(rows.name + suffix) for suffix in ("", "-wal", "-shm")]
