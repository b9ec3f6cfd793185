"""The lines of an app or a pod, page by page, and those that come after them."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from drycc.backends.logstore.base import Filter, LogStore, Page

PAGE_LINES: Final = 1000
EVERY: Final = 10**12  # lines to look at: a tail of a quiet pod lies far behind those of busy ones


async def read_tail(logs: LogStore, app: str, lines: int, pod: str = "") -> AsyncGenerator[Page, None]:
    """The last `lines` lines; at least one page, which says where to go on."""
    only = Filter(pod)
    page = await logs.read(app, tail=lines, only=only, limit=min(lines, PAGE_LINES), scan=EVERY)
    yield page
    while page.has_more and (lines := lines - len(page.lines)) > 0:
        page = await logs.read(app, cursor=page.cursor, only=only, limit=min(lines, PAGE_LINES))
        yield page


async def read_on(logs: LogStore, app: str, cursor: str) -> AsyncGenerator[Page, None]:
    """All lines after the cursor that there are; at least one page."""
    page = await logs.read(app, cursor=cursor)
    yield page
    while page.has_more:
        page = await logs.read(app, cursor=page.cursor)
        yield page


async def follow_from(
    logs: LogStore,
    app: str,
    pages: AsyncGenerator[Page, None],
    *,
    pod: str = "",
    seconds: float | None = None,
) -> AsyncGenerator[Page, None]:
    """These pages, then each as it comes, for so many seconds or until the pod has ended."""
    deadline = None if seconds is None else asyncio.get_running_loop().time() + seconds
    async for page in pages:
        yield page
    later = logs.follow(app, page.cursor, pod=pod)
    while not page.is_over:
        try:
            async with asyncio.timeout_at(deadline):
                page = await anext(later)
        except TimeoutError:
            return
        yield page
