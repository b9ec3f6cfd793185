"""What a part of the platform is, which ports it may hold, and how the chosen parts run."""

import logging
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
Scope = AbstractAsyncContextManager[None]


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
    lifespan: Callable[[N], Scope] = field(default=_idle)
    routes: Callable[[N], Sequence[BaseRoute]] = field(default=_no_routes)


@dataclass(frozen=True, slots=True)
class Openers:
    """How `open_ports` opens each port; `main` fills it, so that a role never learns of an adapter."""

    db: Callable[[Settings], AbstractAsyncContextManager[Database]]
    keyring: Callable[[Settings, Database], AbstractAsyncContextManager[Keyring]]
    objects: Callable[[Settings], AbstractAsyncContextManager[ObjectStore]]
    nudges: Callable[[Settings], AbstractAsyncContextManager[Nudges]]
    logs: Callable[[Settings], AbstractAsyncContextManager[LogStore]]
    cluster: Callable[[Settings], AbstractAsyncContextManager[Cluster]]  # last: what it starts outlives us


@asynccontextmanager
async def open_ports(
    settings: Settings, names: frozenset[str], openers: Openers
) -> AsyncIterator[dict[str, Any]]:
    """Open the named ports in the order in which they stand on each other; they close backwards."""
    ports: dict[str, Any] = {"settings": settings, "health": Health()}
    async with AsyncExitStack() as stack:
        for port in fields(Openers):
            if port.name in names:
                given = (settings, ports["db"]) if port.name == "keyring" else (settings,)
                opened = getattr(openers, port.name)(*given)
                ports[port.name] = await stack.enter_async_context(opened)
        yield ports


def find_names(roles: Sequence[Role[Any]]) -> frozenset[str]:
    """Names of the ports that these roles hold together."""
    return frozenset(item.name for role in roles for item in fields(role.needs))


@asynccontextmanager
async def run(
    roles: Sequence[Role[Any]], ports: dict[str, Any], listen: Callable[[list[BaseRoute]], Scope]
) -> AsyncIterator[None]:
    """The roles run while the body does: entered in order, HTTP last, and left backwards.

    A role whose tasks fail for good ends the body with its error.
    """
    health: Health = ports["health"]
    async with AsyncExitStack() as stack:
        routes: list[BaseRoute] = []
        for role in roles:
            needs = role.needs(**{item.name: ports[item.name] for item in fields(role.needs)})
            await stack.enter_async_context(role.lifespan(needs))
            routes += role.routes(needs)
            log.info("role %s runs", role.name)
        await stack.enter_async_context(listen(routes))
        health.is_ready = True
        try:
            yield
        finally:
            health.is_ready = False
