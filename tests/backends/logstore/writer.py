"""A process that appends numbered lines to a store and says, line by line, what was accepted.

Arguments: the store's root, bytes per app, the first number, lines per append.
"""

import asyncio
import sys
from pathlib import Path

from drycc.backends.logstore.base import Line, Reached
from drycc.backends.logstore.ring import LocalLogStore
from drycc.kit.ids import now


async def write(root: Path, limit: int, number: int, size: int) -> None:
    async with LocalLogStore(root, limit) as store:
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


asyncio.run(write(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
