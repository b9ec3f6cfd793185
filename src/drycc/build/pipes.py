"""Pipes between us and a child, and our ends of them as streams."""

import asyncio
import os
from contextlib import suppress
from fcntl import F_SETPIPE_SZ, fcntl
from io import FileIO


def open_pipe() -> tuple[FileIO, FileIO]:
    """The reading and the writing end; unlike bare numbers, a file may be closed twice."""
    reading, writing = os.pipe()
    return FileIO(reading, "rb"), FileIO(writing, "wb")


def widen(pipe: FileIO) -> None:
    """Let the pipe hold 1 MiB, so that the two sides wait less for each other; a system may refuse that."""
    with suppress(OSError):
        fcntl(pipe, F_SETPIPE_SZ, 1024 * 1024)


async def open_reader(pipe: FileIO) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    """The transport is the caller's to close."""
    stream = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), pipe
    )
    return stream, transport


async def open_writer(pipe: FileIO) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    transport, flow = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), pipe
    )
    return asyncio.StreamWriter(transport, flow, None, loop)
