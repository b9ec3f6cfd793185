"""The local cluster as a whole: opened, left while its pods run on, or stopped with them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from drycc.backends.cluster.base import Cluster
from drycc.backends.cluster.local.adopt import Left, end_stray, look_around
from drycc.backends.cluster.local.app_pods import Surroundings
from drycc.backends.cluster.local.changes import Changes
from drycc.backends.cluster.local.edge.control import Edge, EndingEdge
from drycc.backends.cluster.local.edge.snapshot import AppRoutes
from drycc.backends.cluster.local.images import Images
from drycc.backends.cluster.local.one_offs import OneOffs
from drycc.backends.cluster.local.pods import LocalPods
from drycc.backends.cluster.local.ports import PortPool
from drycc.backends.cluster.local.record import AppRecord
from drycc.backends.cluster.local.routing import Router, Routing
from drycc.backends.cluster.local.site import Site
from drycc.backends.cluster.local.tasks import Tasks, open_tasks
from drycc.backends.cluster.local.workloads import Apps, LocalRoutes, LocalWorkloads


class LocalCluster(Cluster):
    def __init__(self, site: Site, router: Router, tasks: Tasks) -> None:
        self._site, self._tasks = site, tasks
        changes, images = Changes(), Images(site)
        self._routing = Routing(router, self._look)
        self._is_first = False  # nothing was running when it was opened
        self._strays: list[asyncio.Task[None]] = []
        ports = PortPool()
        self._apps = Apps(Surroundings(site, images, ports, self._routing, tasks, changes.tell))
        self._one_offs = OneOffs(site, images, ports, tasks, changes.tell)
        self.workloads = LocalWorkloads(self._apps, self._one_offs, changes)
        self.pods = LocalPods(self._apps, self._one_offs)
        self.routes = LocalRoutes(self._apps)

    async def stop(self, say: Callable[[str], None]) -> None:
        """End every pod and the edge, one line each; afterwards the cluster is of no use any more."""
        await asyncio.gather(*(controller.leave() for controller in self._apps.values()))
        for controller in self._apps.values():
            for pod in controller.pods.present:
                say(f"stopping {pod.record.name}")
        running = [pod for pod in self._one_offs.pods.values() if not pod.over.is_set()]
        for pod in running:
            say(f"stopping {pod.record.name}")
        await asyncio.gather(
            *(controller.pods.end_all() for controller in self._apps.values()),
            *(self._one_offs.cancel(pod.record.one_off) for pod in running),
            *self._strays,
        )
        say("stopping the edge")
        await self._routing.router.stop()
        say("nothing is left running")

    async def undo(self) -> None:
        """After a start that failed: leave nothing running, unless something was running before."""
        if self._is_first:
            await self.stop(lambda line: None)

    def adopt(self, left: Left) -> None:
        """Go on with what an earlier process of ours has left; end what nobody wants."""
        found = any(pod.process is not None for pod in left.pods)
        self._is_first = self._routing.router.is_new and not found
        for stray in left.strays:
            body = partial(end_stray, stray, self._site.grace)
            self._strays.append(self._tasks.keep(f"stray {stray.id}", body))
        for record in left.apps:
            self._apps.open(record)
        for pod in left.pods:
            if pod.record.kind == "workload":
                self._apps[pod.record.app].pods.adopt(pod)
            else:
                self._one_offs.adopt(pod)

    def _look(self) -> Iterator[tuple[AppRecord, AppRoutes]]:
        for controller in self._apps.values():
            yield controller.record, controller.routes()


@asynccontextmanager
async def open_local(
    data: Path,
    run: Path,
    *,
    instance: str,
    edge_listen: str,
    python: str,
    build_env: Mapping[str, str],
    grace: float,
    backoff: float,
    backoff_cap: float,
    idle_timeout: float,
    is_ending: bool = False,
) -> AsyncIterator[LocalCluster]:
    """The cluster of this machine below `data`, with its edge; times are seconds.

    Leaving the context ends nothing: pods and edge run on, and the next to open adopts them.
    Only one process may have it open. One that `is_ending` is for `stop` alone: it adopts what
    runs, starts no edge and makes no directory.
    """
    site = Site(data, instance, python, build_env, grace, backoff, backoff_cap)
    kind = EndingEdge if is_ending else Edge
    edge = kind(data / "edge", run, edge_listen, instance, idle_timeout)
    async with open_behind(edge, site, is_ending=is_ending) as cluster:
        yield cluster


@asynccontextmanager
async def open_behind(router: Router, site: Site, *, is_ending: bool = False) -> AsyncIterator[LocalCluster]:
    """The cluster behind this edge."""
    if not is_ending:
        await asyncio.to_thread(site.make)
    left = await look_around(site)
    await router.start()
    try:
        async with open_tasks() as tasks:
            cluster = LocalCluster(site, router, tasks)
            cluster.adopt(left)
            yield cluster
    finally:
        await router.leave()
