"""Constant load on apps through the edge: half GETs, half POSTs whose unique ids the app records."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import aiohttp

from tests.platform import Platform


@dataclass
class Load:
    """What was asked and what came back; `failures` names each request that did not get 200."""

    sent: dict[str, list[str]] = field(default_factory=dict)
    answered: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def check(self, records: dict[str, Path]) -> None:
        """No request failed, and each app recorded each id exactly once."""
        assert self.failures == [], self.failures[:10]
        for app, ids in self.sent.items():
            assert Counter(records[app].read_text().split()) == Counter(ids)


@asynccontextmanager
async def loading(platform: Platform, apps: list[str], *, clients: int = 4) -> AsyncIterator[Load]:
    """`clients` per app ask one request after another while the body runs."""
    load = Load({app: [] for app in apps})
    stopping = asyncio.Event()
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        for app in apps:
            for _ in range(clients):
                group.create_task(_ask(session, platform, app, load, stopping))
        try:
            yield load
        finally:
            stopping.set()


async def _ask(
    session: aiohttp.ClientSession, platform: Platform, app: str, load: Load, stopping: asyncio.Event
) -> None:
    url = f"http://127.0.0.1:{platform.edge_port}/"
    headers = {"Host": f"{app}.localhost"}
    is_post = False
    while not stopping.is_set():
        is_post = not is_post
        id = uuid4().hex
        if is_post:
            load.sent[app].append(id)
        try:
            async with session.request(
                "POST" if is_post else "GET",
                url,
                headers=headers,
                data=id.encode() if is_post else None,
                timeout=aiohttp.ClientTimeout(total=30),
            ) as answer:
                text = await answer.text()
                if answer.status == 200:
                    load.answered[app] += 1
                else:
                    load.failures.append(f"{app} {answer.status} {text[:80]}")
        except (aiohttp.ClientError, TimeoutError) as error:
            load.failures.append(f"{app} {error!r}")
