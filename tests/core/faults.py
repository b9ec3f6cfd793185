"""Ports that end, fail, stop or repeat what a worker does at the n-th thing that it asks of them."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar, cast

from drycc.backends.cluster.base import Cluster
from drycc.backends.db import Database
from drycc.core.work import Ports
from drycc.errors import Unavailable

T = TypeVar("T")
# Before or after it is done the process dies, the port does not answer, the process stands still; or it is
# done twice.
Kind = Literal["none", "cut", "cut after", "away", "away after", "freeze", "freeze after", "twice"]


@dataclass
class Gate:
    """Everything that one handler asks of database and cluster passes here."""

    kind: Kind
    at: int  # the call, from 1 on, that the fault hits
    count: int = 0
    handler: "asyncio.Task[None] | None" = None  # its own calls count, those of tasks beside it do not
    stopped: asyncio.Event = field(default_factory=asyncio.Event)  # it died or stands still
    thawed: asyncio.Event = field(default_factory=asyncio.Event)

    async def let(self, act: Callable[[], Awaitable[T]], *, is_repeatable: bool) -> T:
        if asyncio.current_task() is not self.handler:
            return await act()
        self.count += 1
        if self.count != self.at:
            return await act()
        if self.kind in ("cut", "freeze"):
            await self._stop()
        if self.kind == "away":
            raise Unavailable("it does not answer")
        result = await act()
        if self.kind in ("cut after", "freeze after"):
            await self._stop()
        if self.kind == "away after":
            raise Unavailable("it did it and does not answer")
        return await act() if self.kind == "twice" and is_repeatable else result

    async def _stop(self) -> None:
        self.stopped.set()
        await self.thawed.wait()


def gate_ports(ports: Ports, gate: Gate) -> Ports:
    return replace(
        ports,
        db=cast(Database, _Gated(ports.db, gate, is_repeatable=False)),
        cluster=cast(Cluster, _GatedCluster(ports.cluster, gate)),
    )


class _Gated:
    """An object whose coroutine functions pass the gate."""

    def __init__(self, port: object, gate: Gate, *, is_repeatable: bool) -> None:
        self._port = port
        self._gate = gate
        self._is_repeatable = is_repeatable

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)
        if not inspect.iscoroutinefunction(method):
            return method

        async def gated(*arguments: Any, **options: Any) -> Any:
            return await self._gate.let(
                lambda: method(*arguments, **options), is_repeatable=self._is_repeatable
            )

        return gated


class _GatedCluster:
    def __init__(self, cluster: Cluster, gate: Gate) -> None:
        self.workloads = _Gated(cluster.workloads, gate, is_repeatable=True)
        self.pods = _Gated(cluster.pods, gate, is_repeatable=True)
        self.routes = _Gated(cluster.routes, gate, is_repeatable=True)
