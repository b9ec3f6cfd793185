"""The source of a build: the commit's files as one tar in the ObjectStore."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Collection
from contextlib import suppress
from uuid import UUID, uuid4

from drycc.backends.objects.base import ObjectStore
from drycc.build.git import environment
from drycc.build.repository import Incoming
from drycc.errors import Unavailable

PREFIX = "sources/"
CHUNK = 1024 * 1024  # bytes: each is one hop to a thread that writes


async def archive(objects: ObjectStore, incoming: Incoming, app: UUID, sha: str) -> str:
    """Store the commit's files durably; gives the object's key. Never more than a chunk is in memory."""
    key = f"{PREFIX}{app}/{uuid4().hex}.tar"
    await objects.put(key, _pack(incoming, sha))
    return key


async def sweep(objects: ObjectStore, wanted: Collection[str]) -> None:
    """Delete all sources but these: those of ended builds, and of pushes that died before there was one."""
    for key in await objects.list(PREFIX):
        if key not in wanted:
            await objects.delete(key)


async def _pack(incoming: Incoming, sha: str) -> AsyncIterator[bytes]:
    """What `git archive` writes; raises when it fails, so that half an archive is never kept."""
    quarantine = {
        "GIT_OBJECT_DIRECTORY": str(incoming.quarantine),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(incoming.repository / "objects"),
    }
    child = await asyncio.create_subprocess_exec(
        *("git", "-c", "tar.umask=0022", "archive", "--format=tar", sha),
        cwd=incoming.repository,
        env=environment(**quarantine),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    assert child.stdout is not None
    try:
        while chunk := await _read_chunk(child.stdout):
            yield chunk
        if status := await child.wait():
            raise Unavailable(f"git could not read the commit (status {status}); push again")
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()


async def _read_chunk(stream: asyncio.StreamReader) -> bytes:
    """A whole one, but for the last; empty at the end."""
    try:
        return await stream.readexactly(CHUNK)
    except asyncio.IncompleteReadError as end:
        return end.partial
