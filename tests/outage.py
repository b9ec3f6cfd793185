"""A story that is told while the database is away, and the ways in which it goes away."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from time import monotonic

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.e2e import apps
from tests.e2e.developer import Developer
from tests.invariants import settle
from tests.platform import Answer, Platform
from tests.postgres import Server
from tests.waiting import until

LOCK = """\
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
connection.execute("begin exclusive")
print("locked", flush=True)
sys.stdin.read()
"""
LONGEST_ANSWER = 25.0  # seconds: a write waits for its turn and then for the lock


@asynccontextmanager
async def locked(file: Path) -> AsyncIterator[None]:
    """Another process holds the SQLite database for itself."""
    pipe = asyncio.subprocess.PIPE
    argv = (sys.executable, "-c", LOCK, str(file))
    holder = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe)
    try:
        assert holder.stdout
        assert await holder.stdout.readline() == b"locked\n"
        yield
    finally:
        await holder.communicate(b"")


@asynccontextmanager
async def stopped(server: Server, mode: str = "fast") -> AsyncIterator[None]:
    """The server is down, and everybody's connection with it."""
    await asyncio.to_thread(server.stop, mode)
    try:
        yield
    finally:
        await asyncio.to_thread(server.start)


async def push_through(
    platform: Platform, away: AbstractAsyncContextManager[None], *, seconds: float, reads_go_on: bool
) -> None:
    """A push is in its release step when the database goes away for so long, and ends with the truth."""
    ann = await Developer.join(platform)
    repository = await ann.create("shop")
    await ann.push("shop", repository, apps.answering("'one'"))
    began = platform.home / "release-step"
    following = asyncio.create_task(follow_lines(ann, "through-the-outage"))
    files = apps.answering("'two'")
    files["Procfile"] += f"release: touch {began}; sleep 2; echo migrated\n"
    pushing = asyncio.create_task(ann.push("shop", repository, files))
    await until(began.exists, within=30)
    async with away:
        back = monotonic() + seconds
        await check_away(ann, reads_go_on=reads_go_on)
        await asyncio.sleep(max(0.0, back - monotonic()))
    assert "GET /through-the-outage 200" in await asyncio.wait_for(following, 10)
    done = await pushing
    assert "migrated" in done.err
    assert "is live at" in done.err
    assert (await ann.get("shop")).text == "two"
    await ann.call("POST", "apps/", {"id": "late"}, status=201)
    await until(platform.is_ready)
    await settle(platform)
    assert "Traceback" not in platform.log(), platform.log()
    assert platform.process
    assert platform.process.returncode is None


async def check_away(ann: Developer, *, reads_go_on: bool) -> None:
    """What clients are told meanwhile; apps do not notice."""
    asked = monotonic()
    answers = await asyncio.gather(
        *(ann.platform.api("POST", "/v2/apps/", {"id": f"vain{n}"}, ann.token) for n in range(2))
    )
    assert monotonic() - asked < LONGEST_ANSWER
    for answer in answers:
        assert_unavailable(answer)
    assert_unavailable(await ann.platform.api("GET", "/readiness"))
    read = await ann.platform.api("GET", "/v2/apps/", None, ann.token)
    assert (await ann.get("shop", "/through-the-outage")).text == "one"
    if reads_go_on:
        assert [app["id"] for app in read.json()["results"]] == ["shop"]
    else:
        assert_unavailable(read)
        with pytest.raises(InvalidStatus) as refused:
            await follow_lines(ann, "nothing")
        headers = refused.value.response.headers
        assert (refused.value.response.status_code, headers["Retry-After"]) == (503, "5")


async def follow_lines(ann: Developer, text: str) -> str:
    """The first message of the app's log that has the text in it."""
    url = f"ws://127.0.0.1:{ann.platform.http_port}/v2/apps/shop/logs"
    headers = {"Authorization": f"token {ann.token}"}
    async with connect(url, additional_headers=headers, proxy=None) as websocket:
        await websocket.send(json.dumps({"lines": 1, "follow": True}))
        async for message in websocket:
            if text in str(message):
                return str(message)
    raise AssertionError("the log ended")


def assert_unavailable(answer: Answer) -> None:
    assert (answer.status, answer.headers.get("retry-after")) == (503, "5"), answer
    assert "try again later" in answer.json()["detail"]
