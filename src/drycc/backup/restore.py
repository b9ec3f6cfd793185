"""Restoring a backup into an empty data directory: all of it is checked before anything is written.

While a restore is under way the file `restoring` stands in the directory: `serve` refuses such a one. It says
what this restore makes, which the next one begins by removing, and nothing else. The rows come into a file
of another name, which gets theirs last: one that has it before is not ours.
"""

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from json import dumps
from pathlib import Path
from uuid import uuid4

from drycc.backends.db import is_migrated
from drycc.backends.objects import find_directory
from drycc.backends.objects.base import ObjectStore
from drycc.backup import manifest, parts
from drycc.backup.archive import Source
from drycc.backup.manifest import DATABASE, OBJECT, OBJECTS, TREE, Manifest
from drycc.core.secrets import Keyring
from drycc.errors import Conflict, Invalid
from drycc.kit.crash import point
from drycc.kit.files import delete_tree, read_json, sync_directory, write_json
from drycc.settings import Settings

MARK = "restoring"
ROWS = ".restoring"  # how the rows' file ends until all is unpacked
BLOCK = 1024 * 1024  # bytes, a multiple of what any file system gives space in
_LEFTOVER = re.compile(r"\.part-[0-9a-f]{32}")  # of a mark that was not written whole


@dataclass(frozen=True, slots=True)
class Mark:
    """What a restore under way makes, and so may be removed when it is repeated."""

    database: str = ""  # the rows' file
    sha256: str = ""  # of the rows' file, as soon as it has its name
    entries: tuple[str, ...] = ()  # names in the data directory


def check_empty(settings: Settings, rows: Path, makes: frozenset[str] = frozenset()) -> None:
    """Raises `Conflict` when a restore would go over something that none before it made; `rows` is the
    database's file, `makes` the names in the data directory that it makes."""
    data, rows = Path(settings.data), rows.resolve()
    mark = _read_mark(data)
    if mark.database and mark.database != str(rows):
        raise Conflict(
            f"an interrupted restore into {data} was writing the rows to {mark.database}, not to {rows}: "
            f"repeat it with the same DRYCC_DATABASE_URL, or move {data} aside"
        )
    files = {rows, rows.with_name(rows.name + "-wal"), rows.with_name(rows.name + "-shm"), _unpacked(rows)}
    entries = set(data.iterdir()) if data.is_dir() else set()
    strange = [
        path
        for path in sorted(entries)
        if Path(os.path.realpath(path)) not in files and not _is_allowed(settings, path, mark, makes)
    ]
    strange += [
        file for file in sorted(files) if os.path.lexists(file) and not _is_row_file(file, rows, mark)
    ]
    if strange:
        raise Conflict(
            f"{strange[0]} is there already, and a restore goes over nothing: "
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
    rows = await asyncio.to_thread(rows.resolve)
    await asyncio.to_thread(check_empty, settings, rows)
    file = await source.path(manifest.FILE)
    read = manifest.parse(await asyncio.to_thread(file.read_bytes))
    await asyncio.to_thread(_check_fitting, settings, read, scripts)
    await asyncio.to_thread(_check_outside, settings, file)
    makes = _list_made(settings, read)
    await asyncio.to_thread(check_empty, settings, rows, makes)
    files = {name: await source.path(name) for name in read.parts}
    for name, part in read.parts.items():
        if not await asyncio.to_thread(parts.verify, files[name], part):
            raise Invalid(f"{files[name]} is damaged: it is not what the backup wrote; restore another one")
    await asyncio.to_thread(_begin, Path(settings.data), rows, makes)
    point("restore.begun")
    for name, file in files.items():
        await _unpack(name, file, Path(settings.data), rows, objects)
    await asyncio.to_thread(_end, Path(settings.data), rows, read)
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


def _read_mark(data: Path) -> Mark:
    """One without a word says that nothing is ours."""
    content = read_json(data / MARK)
    try:
        mark = Mark(**content or {})
        return replace(mark, entries=tuple(mark.entries))
    except TypeError:
        return Mark()


def _is_allowed(settings: Settings, path: Path, mark: Mark, makes: frozenset[str]) -> bool:
    """Whether this entry of the data directory may be there: it is removed first, or it stays."""
    named = (Path(settings.keyring), Path(settings.run))
    holds_named = any(each.is_relative_to(path) for each in named)
    if path.name in mark.entries:
        return not holds_named
    if path.name == "lost+found":
        return path.is_dir()
    is_own = path.name in (MARK, "lock") or _LEFTOVER.fullmatch(path.name) is not None
    return is_own or (holds_named and path.name not in makes)


def _is_row_file(file: Path, rows: Path, mark: Mark) -> bool:
    """Whether the restore before made it: the rows' own file is whole, or not there."""
    if file == _unpacked(rows):
        return bool(mark.database)
    return file == rows and bool(mark.sha256) and file.is_file() and _digest(file) == mark.sha256


def _list_made(settings: Settings, read: Manifest) -> frozenset[str]:
    """Names in the data directory that a restore of this backup makes, but for the rows."""
    data, objects = Path(settings.data), find_directory(settings.objects_url)
    paths = [data / "edge"]
    for name in read.parts:
        if name.startswith(OBJECTS):
            paths.append(objects / name.removeprefix(OBJECTS))
        elif name != DATABASE:
            paths.append(data / name.removesuffix(TREE))
    return frozenset(path.relative_to(data).parts[0] for path in paths if path.is_relative_to(data))


def _begin(data: Path, rows: Path, makes: frozenset[str]) -> None:
    """Remove what an interrupted restore has made, and mark the directory."""
    mark = _read_mark(data)
    for path in data.iterdir():
        if path.name not in mark.entries:
            continue
        if path.is_dir() and not path.is_symlink():
            delete_tree(path)
        else:
            path.unlink()
    if mark.database:
        _unpacked(rows).unlink(missing_ok=True)
    if mark.sha256:
        rows.unlink(missing_ok=True)
    write_json(data / MARK, asdict(Mark(str(rows), entries=tuple(sorted(makes)))))


async def _unpack(name: str, file: Path, data: Path, rows: Path, objects: ObjectStore) -> None:
    if name == DATABASE:
        await asyncio.to_thread(parts.unpack_file, file, _unpacked(rows))
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


def _end(data: Path, rows: Path, read: Manifest) -> None:
    _begin_access(data / "edge" / "access", read.access)
    os.sync()
    write_json(data / MARK, asdict(replace(_read_mark(data), sha256=_digest(_unpacked(rows)))))
    _unpacked(rows).rename(rows)
    sync_directory(rows.parent)
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


def _unpacked(rows: Path) -> Path:
    return rows.with_name(rows.name + ROWS)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
