"""Objects as files below one directory."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from io import BufferedWriter
from pathlib import Path
from uuid import uuid4

from drycc.backends.objects.base import ObjectStore
from drycc.errors import Invalid, NotFound
from drycc.kit.files import sync_directory


class FileStore(ObjectStore):
    def __init__(self, root: Path) -> None:
        self.root = root

    async def put(self, key: str, data: AsyncIterator[bytes]) -> int:
        target = self._file(key)
        part = self.root / f".part-{uuid4().hex}"
        await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
        file = await asyncio.to_thread(open, part, "xb")
        try:
            size = 0
            async for chunk in data:
                size += await asyncio.to_thread(file.write, chunk)
            await asyncio.to_thread(_finish, file, part, target)
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
        await asyncio.to_thread(self._file(key).unlink, missing_ok=True)

    def _file(self, key: str) -> Path:
        if not key or any(part in ("", ".", "..") or part.startswith(".part-") for part in key.split("/")):
            raise Invalid(f"{key!r} is no object key")
        return self.root / key

    def _list(self, prefix: str) -> Sequence[str]:
        files = (
            file for file in self.root.rglob("*") if file.is_file() and not file.name.startswith(".part-")
        )
        keys = (file.relative_to(self.root).as_posix() for file in files)
        return sorted(key for key in keys if key.startswith(prefix))


def _finish(file: BufferedWriter, part: Path, target: Path) -> None:
    """Make the bytes and the name durable, in this order."""
    file.flush()
    os.fsync(file.fileno())
    part.replace(target)
    sync_directory(target.parent)
