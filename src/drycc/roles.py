"""What a part of the platform is, which ports it may hold, and how the chosen parts run."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, fields
from typing import Any, Generic, TypeVar

from starlette.routing import BaseRoute

from drycc.backends.cluster.base import Cluster
from drycc.backends.db import Database
from drycc.backends.logstore.base import LogStore
from drycc.backends.nudges.base import Nudges
from drycc.backends.objects.base import ObjectStore
from drycc.core.secrets import Keyring
from drycc.settings import Settings

log = logging.getLogger("drycc.roles")


@dataclass(slots=True)
class Health:
    """What `/readiness` answers; false before anything stops."""

    is_ready: bool = False


N = TypeVar("N")


@asynccontextmanager
async def _idle(needs: object) -> AsyncIterator[None]:
    yield


def _no_routes(needs: object) -> Sequence[BaseRoute]:
    return ()


@dataclass(frozen=True, slots=True)
class Role(Generic[N]):
    """A part of the platform. `needs` is a dataclass whose fields name, by type, what it may hold."""

    name: str
    needs: type[N]
    lifespan: Callable[[N], AbstractAsyncContextManager[None]] = field(default=_idle)
    routes: Callable[[N], Sequence[BaseRoute]] = field(default=_no_routes)


@dataclass(frozen=True, slots=True)
class Openers:
    """How `open_ports` opens each port; `main` fills it, so that a role never learns of an adapter."""

    db: Callable[[Settings], AbstractAsyncContextManager[Database]]
    keyring: Callable[[Settings, Database], AbstractAsyncContextManager[Keyring]]
    cluster: Callable[[Settings], AbstractAsyncContextManager[Cluster]]
    objects: Callable[[Settings], AbstractAsyncContextManager[ObjectStore]]
    nudges: Callable[[Settings], AbstractAsyncContextManager[Nudges]]
    logs: Callable[[Settings], AbstractAsyncContextManager[LogStore]]
