"""An app with all that belongs to it, a model cluster and a worker: what core's tests tell stories with."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends.db import Database
from drycc.backends.logstore.base import Line, LogStore, Page, Reached
from drycc.backends.nudges import open_nudges
from drycc.backends.objects import open_objects
from drycc.core import builds, jobs, pipeline, releases
from drycc.core.models import App, Base, Build, Config, Release, User, Workload, Workspace
from drycc.core.secrets import Keyring
from drycc.core.work import Ports
from tests.cluster import ModelCluster


class ListLog(LogStore):
    """Only what the pipeline needs of a log: lines in a list."""

    def __init__(self) -> None:
        self.lines: dict[str, list[str]] = {}

    async def append(self, app: str, lines: Sequence[Line], reached: Reached | None = None) -> None:
        self.lines.setdefault(app, []).extend(line.text for line in lines)

    async def drop_old(self, at: datetime) -> None:
        raise NotImplementedError

    async def forget(self, app: str) -> None:
        self.lines.pop(app, None)

    async def reached(self, app: str, pod: str) -> int:
        raise NotImplementedError

    async def read(self, app: str, **options: Any) -> Page:
        raise NotImplementedError

    def follow(self, app: str, cursor: str, *, pod: str = "") -> AsyncGenerator[Page, None]:
        raise NotImplementedError


class Story:
    """One user `ann`, one app `shop`; `work` runs jobs until none is due."""

    def __init__(self, db: Database, directory: Path) -> None:
        self.db = db
        self.directory = directory
        self.cluster = ModelCluster()
        self.log = ListLog()
        self.app = UUID(int=0)
        self.user = 1

    @classmethod
    async def begin(cls, db: Database, directory: Path, *, deploy_timeout: float = 0.3) -> "Story":
        story = cls(db, directory)
        story.keyring = Keyring.create(directory / "keyring")
        story.nudges = await open_nudges("memory:")
        story.objects = await open_objects(f"file://{directory}/objects")
        story.ports = Ports(
            db=db,
            keyring=story.keyring,
            cluster=story.cluster,
            objects=story.objects,
            nudges=story.nudges,
            logs=story.log,
            domain="localhost",
            edge_port=8080,
            grace=1,
            deploy_timeout=deploy_timeout,
            release_timeout=5,
            build_timeout=5,
        )
        story.app = await cls.make_app(db, "shop", story.keyring)
        return story

    @staticmethod
    async def make_app(db: Database, name: str, keyring: Keyring | None = None) -> UUID:
        """A user of its own, a workspace, the app, its first config and release v1."""

        async def body(session: AsyncSession) -> UUID:
            user = User(username=f"ann-{name}" if keyring is None else "ann", password="-")
            session.add(user)
            await session.flush()
            session.add(Workspace(id=user.username, user_id=user.id))
            await session.flush()
            uuid = uuid4()
            data_key = keyring.new_data_key(uuid) if keyring else b"-"
            app = App(
                uuid=uuid,
                id=name,
                uid=user.id,
                owner_id=user.id,
                workspace_id=user.username,
                data_key=data_key,
            )
            session.add(app)
            await session.flush()
            config = await Story.add_config(session, app, user.id, [], keyring)
            summary = f"{user.username} created initial release"
            await releases.record(
                session, uuid, user.id, build_id=None, config_uuid=config.uuid, summary=summary
            )
            return uuid

        return await db.write(body)

    @staticmethod
    async def add_config(
        session: AsyncSession, app: App, user_id: int, values: list[dict[str, str]], keyring: Keyring | None
    ) -> Config:
        uuid = uuid4()
        data = json.dumps(values).encode()
        sealed = keyring.seal(app, data, f"configs.sealed_values.{uuid}") if keyring else data
        config = Config(uuid=uuid, app_uuid=app.uuid, user_id=user_id, sealed_values=sealed)
        session.add(config)
        await session.flush()
        return config

    async def push(self, **procfile: str) -> int:
        """Queue a build of this Procfile; gives its id."""

        async def source() -> AsyncIterator[bytes]:
            yield b"tar"

        key = f"sources/{self.app}/{uuid4()}.tar"
        await self.objects.put(key, source())
        asked = builds.Source("0123456789abcdef" * 2 + "01234567", "buildpack", key, procfile)
        return await builds.queue(self.db, self.nudges, self.app, self.user, asked)

    async def set_config(self, **values: str) -> None:
        """A new config, its release and the deploy, as `config set` makes them."""

        async def body(session: AsyncSession) -> None:
            app = await session.get_one(App, self.app)
            items = [{"name": name, "value": value, "group": "global"} for name, value in values.items()]
            config = await self.add_config(session, app, 1, items, self.keyring)
            base = await releases.latest(session, app)
            release = await releases.record(
                session,
                app.uuid,
                1,
                build_id=base.build_id,
                config_uuid=config.uuid,
                summary="ann added values",
            )
            if release.build_id:
                await releases.queue_deploy(session, release)

        await self.db.write(body, app=self.app)

    async def work(self) -> None:
        """Run every due job, one after another, as the worker does."""
        while claim := await jobs.claim(self.db, "story", 30, ("build", "deploy")):
            await pipeline.run(self.ports, claim)

    @asynccontextmanager
    async def working(self) -> AsyncIterator["asyncio.Task[None]"]:
        """Run due jobs beside the body."""
        task = asyncio.create_task(self.work())
        try:
            yield task
            async with asyncio.timeout(5):
                await task
        finally:
            task.cancel()

    async def rows(self, model: type[Base], *order: Any) -> list[Any]:
        async def body(session: AsyncSession) -> list[Any]:
            return list(await session.scalars(sa.select(model).order_by(*order)))

        return await self.db.write(body)

    async def releases(self) -> list[tuple[int, str, bool]]:
        return [(r.version, r.state, r.failed) for r in await self.rows(Release, Release.version)]

    async def pointers(self) -> dict[str, tuple[int, int]]:
        """Process type → (release, replicas)."""
        numbers = {release.uuid: release.version for release in await self.rows(Release, Release.version)}
        found = await self.rows(Workload, Workload.ptype)
        return {w.ptype: (numbers[w.release_uuid], w.replicas) for w in found}

    async def build(self, id: int) -> Build:
        found: Build = next(row for row in await self.rows(Build, Build.id) if row.id == id)
        return found

    async def lines(self, id: int) -> list[str]:
        async with asyncio.timeout(5):
            return [line async for line in builds.follow(self.db, self.nudges, id)]

    keyring: Keyring
    nudges: Any
    objects: Any
    ports: Ports
