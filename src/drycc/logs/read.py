"""The last lines of an app or a pod, page by page, and those that come after them."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from drycc.backends.logstore.base import LogStore, Page

PAGE_LINES: Final = 1000


async def read_tail(logs: LogStore, app: str, lines: int, pod: str = "") -> AsyncGenerator[Page, None]:
    """The last `lines` lines; at least one page, which says where to go on."""
    page = await logs.read(app, tail=lines, pod=pod, limit=min(lines, PAGE_LINES))
    yield page
    while page.lines and (lines := lines - len(page.lines)) > 0:
        page = await logs.read(app, cursor=page.cursor, pod=pod, limit=min(lines, PAGE_LINES))
        yield page


async def follow_tail(
    logs: LogStore, app: str, lines: int, *, pod: str = "", seconds: float | None = None
) -> AsyncGenerator[Page, None]:
    """The last lines, then each as it comes, for so many seconds or until the pod has ended."""
    deadline = None if seconds is None else asyncio.get_running_loop().time() + seconds
    async for page in read_tail(logs, app, lines, pod):
        yield page
    pages = logs.follow(app, page.cursor, pod=pod)
    while not page.is_over:
        try:
            async with asyncio.timeout_at(deadline):
                page = await anext(pages)
        except TimeoutError:
            return
        yield page
