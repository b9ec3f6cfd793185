"""Requests to pods: one snapshot of all apps for the edge, made again whenever a pod or a host changes."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from drycc.backends.cluster.local.edge.snapshot import EMPTY, AppRoutes, Snapshot
from drycc.backends.cluster.local.record import AppRecord


class Router(Protocol):
    """What the local cluster needs of its edge."""

    access_file: Path
    is_new: bool  # none was running when it was started

    async def start(self) -> None: ...

    async def apply(self, snapshot: Snapshot) -> None: ...

    async def drained(self, pod: str, within: float) -> None: ...

    async def leave(self) -> None: ...

    async def stop(self) -> None: ...


class Routing:
    """`look` gives each app's record and where its requests go now."""

    def __init__(self, router: Router, look: Callable[[], Iterable[tuple[AppRecord, AppRoutes]]]) -> None:
        self.router = router
        self._look = look
        self._turning = asyncio.Lock()
        self._turned = EMPTY

    async def publish(self) -> None:
        """Returns when requests go where they should now; raises `Unavailable` when the edge is not there."""
        async with self._turning:
            wanted = self._compose()
            if (wanted.hosts, wanted.apps) != (self._turned.hosts, self._turned.apps):
                await self.router.apply(wanted)
                self._turned = wanted

    def serves(self, app: str) -> frozenset[str]:
        """The names of the pods that get the app's requests, as the edge has confirmed."""
        routes: Mapping[str, AppRoutes] = self._turned.apps
        return frozenset(endpoint.pod for endpoint in routes[app].pods) if app in routes else frozenset()

    def _compose(self) -> Snapshot:
        hosts, apps = {}, {}
        for record, routes in self._look():
            hosts.update(dict.fromkeys(record.hosts, record.app))
            apps[record.app] = routes
        # Later snapshots have larger numbers, also after our restart.
        generation = max(self._turned.generation + 1, time.time_ns() // 1000)
        return Snapshot(generation, hosts, apps)
