"""What takes too long is ended. The clock is the test's: `sweep` is told what time it is."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from drycc.backends.cluster.local.edge.access import AccessLog
from drycc.backends.cluster.local.edge.client import HEAD_WITHIN, LINGER, Client
from drycc.backends.cluster.local.edge.server import Server
from tests.backends.cluster.local.edge.rig import Wire, get, until


@asynccontextmanager
async def connected(tmp_path: Path) -> AsyncIterator[tuple[Server, Wire]]:
    """One client's connection to an edge without a process."""
    access = AccessLog(tmp_path / "access")
    server = Server(access, tmp_path / "snapshot.json", 3600)
    listening = await server.loop.create_server(lambda: Client(server), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
    try:
        yield server, Wire(reader, writer)
    finally:
        writer.transport.abort()
        for client in server.clients:
            client.abort()
        listening.close()
        await asyncio.to_thread(access.close)


def sweep(server: Server, seconds: float) -> None:
    """As if so much time had passed."""
    for client in list(server.clients):
        client.sweep(server.loop.time() + seconds)


async def test_a_head_that_drips_in_is_cut(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, wire):
        for byte in get()[:-4]:
            wire.send(bytes([byte]))
            await asyncio.sleep(0)
        await until(lambda: any(client._is_reading_head for client in server.clients))
        sweep(server, HEAD_WITHIN - 5)
        sweep(server, HEAD_WITHIN + 5)
        answer = await wire.answer()
        assert (answer.status, answer.get("connection")) == (408, "close")
        assert await wire.rest() == b""
        sweep(server, LINGER + 1)  # the client keeps its half open
        await until(lambda: not server.clients)


async def test_an_idle_connection_stays_until_the_limit(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, wire):
        for _ in range(2):
            wire.send(get())
            assert (await wire.answer()).status == 404
            sweep(server, 3599)
        sweep(server, 3601)
        assert await wire.rest() == b""
