"""Ten followers that hardly read beside ninety that do: what it costs the quick ones, and memory."""

import asyncio
import json
import socket
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import time

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.e2e.developer import Developer
from tests.e2e.test_lines import find_memory
from tests.platform import Platform

QUICK, SLOW = 90, 10
SECONDS = 180.0
SLOW_PAUSE = 5.0  # between two messages that a slow one takes
WRITER = {
    "Procfile": "writer: exec python3 -u writer.py\n",
    "writer.py": "import time\nwhile True:\n    print(time.time(), 'x' * 4000)\n    time.sleep(0.01)\n",
}


async def drill_followers() -> None:
    async with Platform() as platform:
        ann = await Developer.join(platform)
        repository = await ann.create("shop")
        await ann.push("shop", repository, WRITER)
        await ann.call("POST", "apps/shop/ptypes/scale/", {"writer": 1}, status=204)
        alone = await measure(ann, 0)
        beside = await measure(ann, SLOW)
        assert beside[1] <= 2 * alone[1] + 0.05, "the quick ones are slowed"


async def measure(ann: Developer, slow: int) -> tuple[float, float]:
    """Median and 99th percentile of the seconds from print to arrival."""
    delays: list[float] = []
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_read_quickly(ann, delays)) for _ in range(QUICK)]
        tasks += [group.create_task(_read_slowly(ann)) for _ in range(slow)]
        memory = []
        for _ in range(6):
            await asyncio.sleep(SECONDS / 6)
            memory.append(find_memory(ann.platform) // 1024)
        for task in tasks:
            task.cancel()
    median, late = statistics.median(delays), statistics.quantiles(delays, n=100)[98]
    print(
        f"{QUICK} quick, {slow} slow: {len(delays):,} messages, from print to arrival {median * 1000:.0f} ms "
        f"(p99 {late * 1000:.0f} ms), memory every {SECONDS / 6:.0f} s {memory} MiB"
    )
    return median, late


@asynccontextmanager
async def _follow(ann: Developer, sock: socket.socket) -> AsyncIterator[ClientConnection]:
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", ann.platform.http_port))
    url = f"ws://localhost:{ann.platform.http_port}/v2/apps/shop/logs"
    headers = {"Authorization": f"token {ann.token}"}
    async with connect(
        url, sock=sock, additional_headers=headers, max_size=2**25, max_queue=1, compression=None
    ) as websocket:
        await websocket.send(json.dumps({"lines": 0, "follow": True, "timeout": 300}))
        yield websocket


def _socket(buffer: int | None = None) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    if buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    return sock


async def _read_quickly(ann: Developer, delays: list[float]) -> None:
    async with _follow(ann, _socket()) as websocket:
        async for message in websocket:
            newest = str(message).rstrip().rpartition("\n")[2]
            delays.append(time() - float(newest.split("]: ")[1].split()[0]))


async def _read_slowly(ann: Developer) -> None:
    """The platform leaves one that takes nothing for 30 s; it comes again."""
    while True:
        async with _follow(ann, _socket(8192)) as websocket:
            try:
                while True:
                    await asyncio.sleep(SLOW_PAUSE)
                    await websocket.recv()
            except ConnectionClosed:
                continue
