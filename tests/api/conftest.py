"""The API on a real socket, with both databases, a model cluster, and a worker that runs when told to."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
import uvicorn
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.applications import Starlette
from starlette.types import ASGIApp

from drycc.api.deps import Needs
from drycc.backends.db import Database
from drycc.backends.logstore.retention import Bounds
from drycc.backends.logstore.ring import LocalLogStore
from drycc.backends.nudges.memory import MemoryNudges
from drycc.backends.objects.filesystem import FileStore
from drycc.core import builds, jobs, pipeline, tokens
from drycc.core.identity import Identity
from drycc.core.models import User
from drycc.core.secrets import Keyring
from drycc.core.work import Ports
from drycc.kit.http import wrap_routes
from drycc.main import API
from drycc.roles import Health
from drycc.settings import Settings
from tests.cluster import ModelCluster
from tests.core.story import ListLog
from tests.platform import Answer, exchange

PASSWORD = "correct horse battery"


@asynccontextmanager
async def listen(app: ASGIApp) -> AsyncIterator[int]:
    """A real server around the app; gives its port."""
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        http="httptools",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
    )
    server = uvicorn.Server(config)
    socket = config.bind_socket()
    task = asyncio.create_task(server.serve([socket]))
    try:
        yield socket.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        socket.close()


@dataclass
class Api:
    """What a test says to the API, and what it looks at behind it."""

    port: int
    needs: Needs
    cluster: ModelCluster
    ports: Ports
    users: dict[str, Identity] = field(default_factory=dict)

    @property
    def db(self) -> Database:
        return self.needs.db

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        raw: bytes | None = None,
    ) -> Answer:
        """A request as the client sends it: a connection a call, JSON's type on everything."""
        sent = {"Host": f"drycc.example:{self.port}", "Content-Type": "application/json"}
        if token:
            sent["Authorization"] = f"token {token}"
        content = raw if body is None else json.dumps(body).encode()
        sent |= headers or {}
        return await asyncio.to_thread(exchange, self.port, method, path, sent, content)

    async def add_user(self, name: str, **flags: bool) -> str:
        """A user without a password, and a token of theirs."""

        async def body(session: AsyncSession) -> Identity:
            user = User(username=name, password="-", email=f"{name}@example.com", **flags)
            session.add(user)
            await session.flush()
            return Identity(user.id, name, bool(user.is_superuser), bool(user.is_staff))

        self.users[name] = await self.db.write(body)
        return await self.new_token(name)

    async def new_token(self, name: str) -> str:
        key = await tokens.open_login(self.db, self.needs.keyring, self.users[name])
        found = await tokens.collect(self.db, self.needs.keyring, key, "test")
        assert found is not None
        return found.token

    async def add_app(self, token: str, id: str = "shop") -> UUID:
        answer = await self.call("POST", "/v2/apps/", {"id": id}, token=token)
        assert answer.status == 201, answer
        return UUID(answer.json()["uuid"])

    async def push(self, app: UUID, user: str, **procfile: str) -> None:
        """A build of the app that succeeds and is rolled out."""
        await self.queue(app, user, **procfile)
        await self.work()

    async def queue(self, app: UUID, user: str, **procfile: str) -> None:
        """A build of the app, as a push queues it."""

        async def source() -> AsyncIterator[bytes]:
            yield b"tar"

        key = f"sources/{app}/{uuid4()}.tar"
        await self.ports.objects.put(key, source())
        asked = builds.Source("0123456789abcdef0123456789abcdef01234567", "buildpack", key, procfile)
        await builds.queue(self.db, self.needs.nudges, app, self.users[user].id, asked)

    async def work(self) -> None:
        """Run every due job, as a worker does."""
        while claim := await jobs.claim(self.db, "test", 30, ("build", "deploy")):
            await pipeline.run(self.ports, claim)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """A worker beside the body."""

        async def work() -> None:
            async with self.needs.nudges.subscribe(jobs.TOPIC) as nudged:
                while True:
                    await self.work()
                    await anext(nudged)

        task = asyncio.create_task(work())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def count(self, model: Any, *conditions: Any) -> int:
        rows = await self.db.read(sa.select(sa.func.count()).select_from(model).where(*conditions))
        return int(rows[0][0])


@pytest.fixture
async def api(db: Database, tmp_path: Path) -> AsyncIterator[Api]:
    keyring = await asyncio.to_thread(Keyring.create, tmp_path / "keyring")
    cluster, nudges = ModelCluster(), MemoryNudges()
    settings = Settings(domain="apps.example", reserved_names="billing, status")
    logs = LocalLogStore(tmp_path / "logs", Bounds(2**26, 2**32, age=3600))
    needs = Needs(settings, db, keyring, cluster, nudges, logs, Health(is_ready=True))
    ports = Ports(
        db=db,
        keyring=keyring,
        cluster=cluster,
        objects=FileStore(tmp_path / "objects"),
        nudges=nudges,
        logs=ListLog(),
        domain="apps.example",
        edge_port=8080,
        grace=1,
        deploy_timeout=0.3,
        release_timeout=5,
        build_timeout=5,
    )
    app = wrap_routes(Starlette(routes=list(API.routes(needs))))
    async with logs, API.lifespan(needs), listen(app) as port:
        yield Api(port, needs, cluster, ports)


@pytest.fixture
async def alice(api: Api) -> str:
    return await api.add_user("alice")


@pytest.fixture
async def bob(api: Api) -> str:
    return await api.add_user("bob")
