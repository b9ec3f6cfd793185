"""Followers that hardly read beside those that do."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from websockets.asyncio.client import ClientConnection

from tests.logs.door import Door, line

PATH, ASK = "/v2/apps/foo/logs", {"lines": 1, "follow": True}
BATCH, BATCHES = 20, 100
MEBIBYTES = BATCH * BATCHES * 16 // 1024


async def test_slow_followers_hold_up_nobody_and_take_no_memory(door: Door) -> None:
    """What is written is far more than sockets hold; the slow ones take nothing of it."""
    async with AsyncExitStack() as stack, asyncio.timeout(60):
        slow, quick = [
            [await stack.enter_async_context(door.open(PATH, ASK)) for _ in range(4)] for _ in range(2)
        ]
        readings = [asyncio.create_task(read_numbers(websocket)) for websocket in quick]
        await door.store.append("foo", [line(f"-1 {'x' * 16_000}")])
        for websocket in slow:
            await websocket.recv()
            websocket.transport.pause_reading()
        before = find_memory()
        for start in range(0, BATCH * BATCHES, BATCH):
            await door.store.append("foo", [line(f"{n} {'x' * 16_000}") for n in range(start, start + BATCH)])
        for numbers in await asyncio.gather(*readings):
            assert numbers == list(range(-1, BATCH * BATCHES))
        assert find_memory() - before < 2 * MEBIBYTES, "not even two of the four are kept for"
        for websocket in slow:
            websocket.transport.abort()


async def read_numbers(websocket: ClientConnection) -> list[int]:
    numbers: list[int] = []
    while not numbers or numbers[-1] < BATCH * BATCHES - 1:
        lines = str(await websocket.recv()).splitlines()
        numbers += [int(found.split("]: ")[1].split()[0]) for found in lines]
    return numbers


def find_memory() -> int:
    """Of this process, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) // 1024
