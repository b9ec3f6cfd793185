"""The role `logger`: keeps what the pods of this machine print, and shows it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.routing import BaseRoute, WebSocketRoute

from drycc.backends.cluster.base import Cluster
from drycc.backends.db import Database
from drycc.backends.logstore.base import LogStore
from drycc.core.secrets import Keyring
from drycc.kit.aio import running
from drycc.logs.ingest import Ingest
from drycc.logs.streams import Streams
from drycc.roles import Role


@dataclass(frozen=True, slots=True)
class Needs:
    db: Database
    keyring: Keyring
    cluster: Cluster
    logs: LogStore


@asynccontextmanager
async def lifespan(needs: Needs) -> AsyncIterator[None]:
    async with running(("log ingest", Ingest(needs.cluster, needs.logs).run)):
        yield


def routes(needs: Needs) -> Sequence[BaseRoute]:
    streams = Streams(needs.db, needs.keyring, needs.cluster.pods, needs.logs)
    paths = {"/v2/apps/{app}/logs": streams.stream_app, "/v2/apps/{app}/pods/{pod}/logs": streams.stream_pod}
    return [WebSocketRoute(path + slash, show) for path, show in paths.items() for slash in ("", "/")]


ROLE = Role("logger", Needs, lifespan, routes)
