"""The role's routes behind a real server, and a client that speaks to them as the released one does."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from drycc.backends.db import Database
from drycc.backends.logstore.base import Line
from drycc.backends.logstore.retention import Bounds
from drycc.backends.logstore.ring import LocalLogStore
from drycc.core import apps, identity, tokens
from drycc.core.secrets import Keyring
from drycc.kit.ids import now
from drycc.logs import role
from drycc.logs.role import Needs
from drycc.settings import Settings
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
    async with LocalLogStore(home / "logs", Bounds(2**26, 2**32, age=3600)) as store:
        needs = Needs(Settings(), db, keyring, cluster, store)
        async with serving(Starlette(routes=role.routes(needs))) as port:
            yield Door(port, store, cluster, users, needs)


def line(text: str, pod: str = POD) -> Line:
    return Line(now(), "app", text, "web", 2, pod)
