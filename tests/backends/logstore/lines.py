"""Lines for the store's tests: numbered ones, written to the app `foo` and read back."""

import random
from datetime import datetime

from drycc.backends.logstore.base import EVERY_LINE, Filter, Line
from drycc.backends.logstore.retention import Bounds
from drycc.backends.logstore.ring import LocalLogStore
from drycc.kit.ids import now

BOUNDS = Bounds(64 * 1024 * 1024, 2**32, age=3600)
SMALL = 64 * 1024  # of an app, in segments of 8 KiB
POD = "foo-web-123456789-abcde"


def line(text: str, pod: str = POD, at: datetime | None = None) -> Line:
    return Line(at or now(), "app", text, "web", 2, pod)


def noise(seed: int) -> str:
    """Text that does not compress, so that segments fill."""
    return f"{seed} {random.Random(seed).randbytes(100).hex()}"


async def append(store: LocalLogStore, first: int, end: int, size: int = 10, app: str = "foo") -> None:
    """Numbered lines, some at a time."""
    for start in range(first, end, size):
        await store.append(app, [line(noise(n)) for n in range(start, min(start + size, end))])


async def read_all(
    store: LocalLogStore,
    cursor: str | None = None,
    *,
    app: str = "foo",
    only: Filter = EVERY_LINE,
    limit: int = 1000,
    scan: int = 100_000,
) -> list[Line]:
    """Page by page to the end."""
    page = await store.read(app, cursor=cursor, only=only, limit=limit, scan=scan)
    lines = list(page.lines)
    while page.has_more:
        page = await store.read(app, cursor=page.cursor, only=only, limit=limit, scan=scan)
        lines += page.lines
    return lines


def numbers(lines: list[Line]) -> list[int]:
    return [int(found.text.split()[0]) for found in lines]
