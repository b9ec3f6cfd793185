"""The role `logger`: keeps what the pods of this machine print, and shows it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from starlette.routing import BaseRoute, WebSocketRoute

from drycc.backends.cluster.base import Cluster
from drycc.backends.db import Database
from drycc.backends.logstore.base import LogStore
from drycc.core.secrets import Keyring
from drycc.kit.aio import running
from drycc.kit.paths import APP_PATH
from drycc.logs.ingest import Ingest
from drycc.logs.retention import choose_pause, keep_bounds
from drycc.logs.streams import Streams
from drycc.roles import Role
from drycc.settings import Settings


@dataclass(frozen=True, slots=True)
class Needs:
    settings: Settings
    db: Database
    keyring: Keyring
    cluster: Cluster
    logs: LogStore


@asynccontextmanager
async def lifespan(needs: Needs) -> AsyncIterator[None]:
    pause = choose_pause(needs.settings.log_age)
    async with running(
        ("log ingest", Ingest(needs.cluster, needs.logs).run),
        ("log retention", partial(keep_bounds, needs.logs, pause)),
    ):
        yield


def routes(needs: Needs) -> Sequence[BaseRoute]:
    streams = Streams(needs.db, needs.keyring, needs.cluster.pods, needs.logs)
    paths = {f"{APP_PATH}/logs": streams.stream_app, f"{APP_PATH}/pods/{{pod}}/logs": streams.stream_pod}
    return [WebSocketRoute(path + slash, show) for path, show in paths.items() for slash in ("", "/")]


ROLE = Role("logger", Needs, lifespan, routes)
