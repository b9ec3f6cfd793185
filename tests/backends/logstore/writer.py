"""A process that appends numbered lines to a store and says, line by line, what was accepted.

Meanwhile it drops what is too much for all apps together, which is less than for one.
Arguments: the store's root, bytes per app, the first number, lines per append.
"""

import asyncio
import sys
from pathlib import Path

from drycc.backends.logstore.base import Line, Reached
from drycc.backends.logstore.retention import Bounds
from drycc.backends.logstore.ring import LocalLogStore
from drycc.kit.ids import now


async def write(root: Path, limit: int, number: int, size: int) -> None:
    async with LocalLogStore(root, Bounds(limit, limit // 2, age=3600)) as store:
        offset = await store.reached("foo", "foo-web-1")
        if offset:
            number = offset
        while True:
            lines = [
                Line(now(), "app", f"line {n}", "web", 2, "foo-web-1") for n in range(number, number + size)
            ]
            number += size
            await store.append("foo", lines, Reached("foo-web-1", number))
            print(number, flush=True)
            if number % (20 * size) == 0:
                await store.drop_old(now())


asyncio.run(write(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
