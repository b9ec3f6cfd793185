"""The log websockets through a real server, as the client speaks to them."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from drycc.backends.db import Database, open_database
from drycc.backends.logstore.base import Line, Reached
from drycc.backends.logstore.ring import LocalLogStore
from drycc.core import apps, identity, tokens
from drycc.core.secrets import Keyring
from drycc.errors import Unavailable
from drycc.kit.ids import now
from drycc.logs import role
from drycc.logs.role import Needs
from drycc.logs.streams import Streams
from tests.conftest import MIGRATIONS
from tests.logs.printed import PrintedCluster

POD = "foo-web-123456789-abcde"
PASSWORD = "correct horse battery"


@dataclass
class Door:
    """The role's routes behind uvicorn, an app `foo` of ann's, and what stands behind them."""

    port: int
    store: LocalLogStore
    cluster: PrintedCluster
    tokens: dict[str, str]
    needs: Needs

    @asynccontextmanager
    async def open(self, path: str, ask: object = None, user: str = "ann") -> AsyncIterator[ClientConnection]:
        """As the client does: its headers, no sub-protocol, one text message."""
        headers = {"User-Agent": "Drycc Client v1.10.2", "X-Drycc-Builder-Auth": ""}
        if user:
            headers["Authorization"] = self.tokens.get(user, user)
        url = f"ws://127.0.0.1:{self.port}{path}"
        origin = Origin(f"http://127.0.0.1:{self.port}")
        async with connect(
            url, origin=origin, additional_headers=headers, proxy=None, compression=None
        ) as websocket:
            if ask is not None:
                await websocket.send(ask if isinstance(ask, str | bytes) else json.dumps(ask))
            yield websocket

    async def read(self, path: str, ask: object = None, user: str = "ann") -> tuple[list[Any], int | None]:
        """All messages and the close code."""
        async with self.open(path, ask, user) as websocket, asyncio.timeout(20):
            return [message async for message in messages(websocket)], websocket.close_code

    async def status(self, path: str, user: str = "ann") -> int:
        try:
            async with self.open(path, user=user):
                return 101
        except InvalidStatus as refused:
            return refused.response.status_code


async def messages(websocket: ClientConnection) -> AsyncIterator[Any]:
    try:
        while True:
            yield await websocket.recv()
    except ConnectionClosed:
        return


async def make_token(db: Database, keyring: Keyring, username: str) -> str:
    await identity.create_user(db, username, PASSWORD)
    user = await identity.log_in(db, identity.Throttle(), username, PASSWORD, "127.0.0.1")
    collected = await tokens.collect(db, keyring, await tokens.open_login(db, keyring, user), "")
    assert collected
    if username == "ann":
        await apps.create(db, keyring, user, id="foo")
    return f"token {collected.token}"


@asynccontextmanager
async def serving(app: Starlette) -> AsyncIterator[int]:
    config = uvicorn.Config(app, ws="websockets-sansio", lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config.load()
        server.lifespan = config.lifespan_class(config)
        await server.startup([listener])
        ticking = asyncio.create_task(server.main_loop())
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await ticking
            await server.shutdown([listener])


@asynccontextmanager
async def opened(db: Database, home: Path) -> AsyncIterator[Door]:
    keyring = Keyring.create(home / "keyring")
    users = {name: await make_token(db, keyring, name) for name in ("ann", "bob")}
    (home / "pods").mkdir()
    cluster = PrintedCluster(home / "pods")
    async with LocalLogStore(home / "logs", 64 * 1024 * 1024) as store:
        needs = Needs(db, keyring, cluster, store)
        async with serving(Starlette(routes=role.routes(needs))) as port:
            yield Door(port, store, cluster, users, needs)


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """On one database: what comes after the handshake asks none."""
    async with open_database(f"sqlite+aiosqlite:///{tmp_path}/drycc.db") as db:
        await db.migrate(MIGRATIONS)
        async with opened(db, tmp_path) as door:
            yield door


def line(text: str, pod: str = POD) -> Line:
    return Line(now(), "app", text, "web", 2, pod)


async def test_handshakes_are_refused_with_403(db: Database, tmp_path: Path) -> None:
    async with opened(db, tmp_path) as door:
        await check_handshakes(door)


async def check_handshakes(door: Door) -> None:
    for path in ("/v2/apps/foo/logs", "/v2/apps/foo/logs/", f"/v2/apps/foo/pods/{POD}/logs/"):
        assert await door.status(path) == 101
        assert await door.status(path, user="bob") == 403
        assert await door.status(path, user="") == 403
        for header in ("token unknown", "token", "token a b", "bearer x", "basic x", "token \xff"):
            assert await door.status(path, user=header) == 403
    assert await door.status("/v2/apps/nothere/logs") == 403
    assert await door.status("/v2/apps/nothere/pods/x/logs/") == 403


@pytest.mark.parametrize("path", ["/v2/apps/foo/logs", "/v2/apps/foo/logs/"])
async def test_the_last_lines_of_an_app(door: Door, path: str) -> None:
    await door.store.append("foo", [line(f"{n}") for n in range(150)])
    await door.store.append("foo", [Line(now(), "platform", "INFO ann deployed v2")])
    got, code = await door.read(path, {"lines": 100, "follow": False, "timeout": 300})
    lines = "".join(got).splitlines()
    assert (len(lines), code) == (100, 1000)
    assert lines[0].endswith(" foo[web.v2.abcde]: 51")
    assert lines[-1].endswith(" drycc[controller]: INFO ann deployed v2")
    assert all(isinstance(message, str) and message.endswith("\n") for message in got)


async def test_an_app_without_lines_gives_no_message(door: Door) -> None:
    assert await door.read("/v2/apps/foo/logs", {}) == ([], 1000)
    await door.store.append("foo", [line("one")])
    assert await door.read("/v2/apps/foo/logs", {"lines": 0}) == ([], 1000)


async def test_many_lines_come_in_whole_and_bounded_messages(door: Door) -> None:
    for start in range(0, 4000, 1000):
        await door.store.append("foo", [line(f"{n} {'x' * 200}") for n in range(start, start + 1000)])
    got, code = await door.read("/v2/apps/foo/logs", {"lines": -1})
    numbers = [int(found.split("]: ")[1].split()[0]) for found in "".join(got).splitlines()]
    assert (numbers, code) == (list(range(1000, 4000)), 1000)
    assert max(map(len, got)) < 70_000


async def test_following_an_app_ends_at_its_time(door: Door) -> None:
    await door.store.append("foo", [line("before")])
    async with door.open("/v2/apps/foo/logs", {"lines": 1, "follow": True, "timeout": 1}) as websocket:
        assert "before" in str(await websocket.recv())
        await websocket.send("ignored")
        for n in range(20):
            await door.store.append("foo", [line(f"new {n}")])
            assert str(await websocket.recv()).endswith(f": new {n}\n")
        assert [message async for message in messages(websocket)] == []
        assert websocket.close_code == 1000


async def test_a_client_that_leaves_costs_nothing(door: Door) -> None:
    for _ in range(20):
        async with door.open("/v2/apps/foo/logs", {"follow": True}) as websocket:
            await door.store.append("foo", [line("x")])
            await websocket.recv()
    async with asyncio.timeout(5):
        while any("_send_all" in repr(task) for task in asyncio.all_tasks()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("message", ["", "[]", "nonsense", b"\xff\x00"])
async def test_a_first_message_that_is_no_question_closes(door: Door, message: str | bytes) -> None:
    for path in ("/v2/apps/foo/logs", f"/v2/apps/foo/pods/{POD}/logs"):
        assert await door.read(path, message) == ([], 1008)


async def test_a_pods_lines_come_raw_in_one_message(door: Door) -> None:
    await door.store.append("foo", [line(f"{n}") for n in range(500)])
    await door.store.append("foo", [line("other", "foo-web-123456789-other")])
    path = f"/v2/apps/foo/pods/{POD}/logs/"
    ask = {"lines": 300, "follow": False, "container": "", "previous": False}
    assert await door.read(path, ask) == (["".join(f"{n}\n" for n in range(200, 500))], 1000)
    everything = ["".join(f"{n}\n" for n in range(500))]
    for lines in (0, -1, 9999):
        assert await door.read(path, {"lines": lines, "container": "foo-web"}) == (everything, 1000)
    assert await door.read("/v2/apps/foo/pods/unknown/logs/", ask) == ([], 1000)


async def test_options_that_a_pod_has_not_are_refused_in_words(door: Door) -> None:
    path = f"/v2/apps/foo/pods/{POD}/logs/"
    got, code = await door.read(path, {"container": "sidecar"})
    assert (got, code) == ([f"container sidecar is not valid for pod {POD}\n"], 1000)
    got, code = await door.read(path, {"previous": True})
    assert ("--previous" in got[0], code) == (True, 1000)


async def test_following_a_pod_ends_with_the_pod(door: Door) -> None:
    door.cluster.add(POD)
    path = f"/v2/apps/foo/pods/{POD}/logs/"
    await door.store.append("foo", [line("before")], Reached(POD, 7))
    async with door.open(path, {"lines": 10, "follow": True}) as websocket, asyncio.timeout(10):
        assert await websocket.recv() == b"before\n"
        await door.store.append("foo", [line("other", "foo-web-1")])
        await door.store.append("foo", [line("after")], Reached(POD, 13))
        assert await websocket.recv() == b"after\n"
        await door.store.append("foo", [line("last")], Reached(POD, 18, is_last=True))
        assert [message async for message in messages(websocket)] == [b"last\n"]
        assert websocket.close_code == 1000
    assert await door.read(path, {"follow": True, "lines": 1}) == ([b"last\n"], 1000)
    door.cluster.end(POD)
    assert await door.read(path, {"follow": True, "lines": 1}) == (["last\n"], 1000)


async def test_a_client_that_reads_nothing_is_left(door: Door) -> None:
    """Its messages stay unread until the sockets' buffers are full; the writer never waits for it."""
    streams = Streams(door.needs.db, door.needs.keyring, door.cluster, door.store, stall=0.5)
    ended = asyncio.Event()

    async def stream(websocket: WebSocket) -> None:
        await streams.stream_app(websocket)
        ended.set()

    async with serving(Starlette(routes=[WebSocketRoute("/v2/apps/{app}/logs", stream)])) as port:
        slow = replace(door, port=port)
        async with slow.open("/v2/apps/foo/logs", {"follow": True}) as websocket:
            websocket.transport.pause_reading()
            async with asyncio.timeout(30):
                while not ended.is_set():
                    await door.store.append("foo", [line(f"{n} {'x' * 16_000}") for n in range(20)])
            websocket.transport.abort()


async def test_a_store_that_does_not_answer_closes_with_its_sentence(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*arguments: object, **options: object) -> None:
        raise Unavailable("the log store does not answer")

    monkeypatch.setattr(door.store, "read", fail)
    async with door.open("/v2/apps/foo/logs", {}) as websocket:
        assert [message async for message in messages(websocket)] == []
        assert (websocket.close_code, websocket.close_reason) == (1013, "the log store does not answer")
