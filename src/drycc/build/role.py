"""The role `builder`: the SSH server, and the tidying of repositories whose apps are gone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from drycc.backends.db import Database
from drycc.backends.nudges.base import Nudges
from drycc.backends.objects.base import ObjectStore
from drycc.build import source
from drycc.build.git import collect_garbage
from drycc.build.hook import install_hook
from drycc.build.push import Ports
from drycc.build.repository import Repositories
from drycc.build.session import Sessions
from drycc.build.ssh import listen, load_host_key
from drycc.core import apps, builds
from drycc.core.models import App, Build
from drycc.kit.aio import running, within
from drycc.roles import Role
from drycc.settings import Settings

SWEEP_EVERY = 600.0  # seconds: the timer behind the nudges


@dataclass(frozen=True, slots=True)
class Needs:
    settings: Settings
    db: Database
    objects: ObjectStore
    nudges: Nudges


@asynccontextmanager
async def lifespan(needs: Needs) -> AsyncIterator[None]:
    """Accept pushes while the body runs."""
    settings = needs.settings
    data = Path(settings.data)
    repositories = Repositories(data / "repos", settings.push_limit)
    hooks = data / "ssh" / "hooks"
    host_key = await asyncio.to_thread(load_host_key, data / "ssh")
    await asyncio.to_thread(install_hook, hooks)
    await asyncio.to_thread(repositories.sweep_pushes)
    await source.sweep(needs.objects, {row.source for row in await needs.db.read(_waiting)})
    ports = Ports(
        db=needs.db,
        objects=needs.objects,
        nudges=needs.nudges,
        repositories=repositories,
        hooks=hooks,
        tree_limit=settings.tree_limit,
        slots=settings.builds,
        closing=asyncio.Event(),
    )
    sessions = Sessions(ports)
    async with (
        listen(settings.ssh_listen, host_key, needs.db, sessions),
        running(("sweep", lambda: _sweep(needs, repositories))),
    ):
        yield


async def _sweep(needs: Needs, repositories: Repositories) -> None:
    """Remove the repositories of destroyed apps as soon as we hear of it; now and then tidy the others."""
    async with needs.nudges.subscribe(apps.TOPIC) as nudged:
        while True:
            present = await asyncio.to_thread(repositories.list)
            gone = present - {row.uuid for row in await needs.db.read(sa.select(App.uuid))}
            await asyncio.to_thread(repositories.remove, gone)
            if not await within(SWEEP_EVERY, anext(nudged)):
                for app in present - gone:
                    await collect_garbage(repositories.open(app))


_waiting = sa.select(Build.source).where(Build.state.in_(builds.OPEN))
ROLE = Role("builder", Needs, lifespan)
