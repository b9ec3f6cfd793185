"""Objects as files below one directory."""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from threading import Lock
from uuid import uuid4

from drycc.backends.objects.base import ObjectStore
from drycc.errors import Invalid, NotFound
from drycc.kit.crash import point
from drycc.kit.disk import guarded
from drycc.kit.files import sync_directory

PART = ".part-"  # how an object begins that is not whole


class FileStore(ObjectStore):
    def __init__(self, root: Path) -> None:
        self.root = root
        self._naming = Lock()  # so that no directory goes between its making and the object's

    async def put(self, key: str, data: AsyncIterator[bytes]) -> int:
        target = self._file(key)
        part = self.root / f"{PART}{uuid4().hex}"
        with guarded():
            file = await asyncio.to_thread(self._open, part)
            try:
                size = 0
                async for chunk in data:
                    size += await asyncio.to_thread(_write, file, chunk)
                await asyncio.to_thread(self._finish, file, part, target)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
            finally:
                file.close()
        return size

    async def path(self, key: str) -> Path:
        file = self._file(key)
        if not await asyncio.to_thread(file.is_file):
            raise NotFound(f"there is no object {key!r}")
        return file

    async def list(self, prefix: str) -> Sequence[str]:
        return await asyncio.to_thread(self._list, prefix)

    async def delete(self, key: str) -> None:
        await asyncio.to_thread(self._delete, self._file(key))

    def _file(self, key: str) -> Path:
        if not key or any(part in ("", ".", "..") or part.startswith(PART) for part in key.split("/")):
            raise Invalid(f"{key!r} is no object key")
        return self.root / key

    def _list(self, prefix: str) -> Sequence[str]:
        found = (Path(parent, name) for parent, _, names in os.walk(self.root) for name in names)
        keys = (file.relative_to(self.root).as_posix() for file in found if not file.name.startswith(PART))
        return sorted(key for key in keys if key.startswith(prefix))

    def sweep(self) -> None:
        """Remove the parts of processes that died before their objects were whole."""
        for part in self.root.glob(f"{PART}*"):
            with suppress(FileNotFoundError, BlockingIOError), part.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink()

    def _open(self, part: Path) -> FileIO:
        """For us alone: objects may be secret. Unbuffered: `close` would try again what found no space."""
        self.root.mkdir(parents=True, exist_ok=True)
        while True:
            file = FileIO(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
            fcntl.flock(file, fcntl.LOCK_EX)  # as long as we live
            if part.exists():
                return file
            file.close()  # swept before it was locked

    def _finish(self, file: FileIO, part: Path, target: Path) -> None:
        """Make the bytes durable, then the name, then those of new directories."""
        os.fsync(file.fileno())
        point("object.written")
        with self._naming:
            new = [directory for directory in self._directories(target) if not directory.is_dir()]
            target.parent.mkdir(parents=True, exist_ok=True)
            part.replace(target)
        for directory in (target.parent, *(directory.parent for directory in new)):
            with suppress(FileNotFoundError):  # the object is deleted already
                sync_directory(directory)

    def _delete(self, file: Path) -> None:
        """The file, and the directories in which nothing is left."""
        with self._naming:
            file.unlink(missing_ok=True)
            with suppress(OSError):  # there is more in it
                for directory in self._directories(file)[:-1]:
                    directory.rmdir()

    def _directories(self, file: Path) -> Sequence[Path]:
        """From that of the file up to the root."""
        return [path for path in file.parents if path.is_relative_to(self.root)]


def _write(file: FileIO, chunk: bytes) -> int:
    view = memoryview(chunk)
    while view:
        view = view[file.write(view) :]
    return len(chunk)
