"""What users do while workers come and go, by core's own functions."""

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Self
from uuid import UUID, uuid4

import sqlalchemy as sa

from drycc.core import apps, builds, configs, identity, releases, workloads
from drycc.core.configs import Change
from drycc.core.identity import Identity
from drycc.core.models import App, Build, Job, Release
from drycc.errors import Unavailable
from tests.worker.fleet import Fleet

OPEN = ("queued", "running")


class User:
    """Acts on a fleet's database; nudges reach no worker, as without a broker."""

    def __init__(self, fleet: Fleet, who: Identity) -> None:
        self.fleet = fleet
        self.db, self.nudges = fleet.db, fleet.nudges
        self.who = who

    @classmethod
    async def join(cls, fleet: Fleet) -> Self:
        await identity.create_user(fleet.db, "ann", "correct horse")
        (row,) = await identity.list_users(fleet.db)
        return cls(fleet, Identity(row.id, row.username))

    async def create(self, name: str) -> UUID:
        await apps.create(self.db, self.fleet.keyring, self.who, id=name)
        return (await apps.find(self.db, name)).uuid

    async def push(self, app: UUID, **procfile: str) -> int:
        async def source() -> AsyncIterator[bytes]:
            yield b"tar"

        key = f"sources/{app}/{uuid4()}.tar"
        await self.fleet.objects.put(key, source())
        asked = builds.Source("0123456789abcdef" * 2 + "01234567", "buildpack", key, procfile)
        return await builds.queue(self.db, self.nudges, app, self.who.id, asked)

    async def set_config(self, app: UUID, name: str, value: str) -> None:
        change = Change([{"name": name, "value": value, "group": "global"}])
        await configs.change(self.db, self.nudges, self.fleet.keyring, app, self.who, change)

    async def scale(self, app: UUID, **counts: int) -> None:
        await workloads.scale(self.db, self.nudges, app, counts)

    async def restart(self, app: UUID) -> None:
        await workloads.restart(self.db, self.nudges, app, [])

    async def deploy(self, app: UUID, *, force: bool) -> None:
        await releases.deploy(self.db, self.nudges, app, [], force=force)

    async def ask_to_destroy(self, name: str) -> None:
        with suppress(Unavailable):  # it takes longer than we wait
            await apps.destroy(self.db, self.nudges, await apps.find(self.db, name), deadline=0.1)

    async def is_gone(self, app: UUID) -> bool:
        return not await self.db.read(sa.select(App.id).where(App.uuid == app))

    async def is_built(self, build: int) -> bool:
        row = await self.db.read_one(sa.select(Build.state).where(Build.id == build))
        return row is not None and row.state not in builds.OPEN

    async def is_quiet(self) -> bool:
        return not await self.db.read(sa.select(Job.id).where(Job.state.in_(OPEN)).limit(1))

    async def find_release(self, app: UUID, version: int) -> tuple[str, str | None]:
        """Its state, and why it failed."""
        query = sa.select(Release.state, Release.exception)
        row = await self.db.read_one(query.where(Release.app_uuid == app, Release.version == version))
        assert row
        return row.state, row.exception
