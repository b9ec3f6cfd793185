"""A file that another process writes, read as it grows."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from asyncinotify import Inotify, Mask

from drycc.backends.cluster.base import Output
from drycc.kit.aio import cancel

MOST_AT_ONCE = 64 * 1024  # bytes


async def follow(file: Path, offset: int, over: asyncio.Event) -> AsyncIterator[Output]:
    """Its bytes from `offset` on; ends after the last one that was there when `over` was set.

    The file need not exist yet, its directory must.
    """
    with Inotify() as inotify:
        inotify.add_watch(file.parent, Mask.MODIFY | Mask.CREATE | Mask.MOVED_TO)
        while True:
            is_last = over.is_set()
            while data := await asyncio.to_thread(_read, file, offset):
                offset += len(data)
                yield Output(data, offset)
            if is_last:
                return
            await _first_of(inotify, over)


async def _first_of(inotify: Inotify, over: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(inotify.get()), asyncio.ensure_future(over.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            await cancel(wait)


def _read(file: Path, offset: int) -> bytes:
    try:
        with file.open("rb") as opened:
            opened.seek(offset)
            return opened.read(MOST_AT_ONCE)
    except FileNotFoundError:
        return b""
