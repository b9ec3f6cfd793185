"""A way to a server on loopback that can be cut and mended, as a restart of the server does it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Self

from tests.postgres import free_port


class Between:
    """Listens on `port` and passes on to the server's port."""

    def __init__(self, server: int) -> None:
        self.port = free_port()
        self._server = server
        self._listening: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, server: int) -> AsyncIterator[Self]:
        between = cls(server)
        await between.mend()
        try:
            yield between
        finally:
            await between.cut()

    async def mend(self) -> None:
        self._listening = await asyncio.start_server(self._pass_on, "127.0.0.1", self.port)

    async def cut(self) -> None:
        """Every connection ends at once, and none is accepted."""
        assert self._listening is not None
        self._listening.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._server)
        self._writers |= {writer, back}
        await asyncio.gather(_copy(reader, back), _copy(there, writer))
        self._writers -= {writer, back}


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
