"""The ports `Workloads` and `Routes`: a controller for each app."""

import asyncio
import os
import pwd
from collections.abc import Mapping

from drycc.backends.cluster.base import AppSpec, Observed, Routes, RouteTable, Stale, Workloads
from drycc.backends.cluster.local.app_pods import Surroundings
from drycc.backends.cluster.local.changes import Changes, Subscription
from drycc.backends.cluster.local.controller import AppController
from drycc.backends.cluster.local.observing import observe_app
from drycc.backends.cluster.local.one_offs import OneOffs
from drycc.backends.cluster.local.record import AppRecord

MOST_REMOVED = 10_000  # apps of which we remember that they are gone


class Apps(dict[str, AppController]):
    """The controllers by app."""

    def __init__(self, around: Surroundings) -> None:
        super().__init__()
        self.around = around
        self.removed: dict[str, int] = {}  # in memory: whoever was late ends with this process

    def check(self, app: str, generation: int) -> None:
        """Raises `Stale` when somebody newer was here."""
        if app in self and generation < self[app].record.generation:
            raise Stale(f"{app} is at generation {self[app].record.generation}, not {generation}")
        self.check_removed(app, generation)

    def check_removed(self, app: str, generation: int) -> None:
        if generation < self.removed.get(app, 0):
            raise Stale(f"{app} was removed at generation {self.removed[app]}, this is {generation}")

    def forget(self, app: str, generation: int) -> None:
        self.pop(app, None)
        self.removed[app] = generation
        if len(self.removed) > MOST_REMOVED:
            del self.removed[next(iter(self.removed))]

    def __missing__(self, app: str) -> AppController:
        return self.open(AppRecord(app))

    def open(self, record: AppRecord) -> AppController:
        self[record.app] = AppController(self.around, record)
        return self[record.app]


class LocalWorkloads(Workloads):
    def __init__(self, apps: Apps, one_offs: OneOffs, changes: Changes) -> None:
        self._apps = apps
        self._one_offs = one_offs
        self._changes = changes

    async def apply(self, spec: AppSpec) -> None:
        self._apps.check(spec.app, spec.generation)
        await self._apps[spec.app].apply(spec)

    async def observe(self, app: str) -> Observed:
        if app not in self._apps:
            return Observed(app, 0, {})
        return observe_app(self._apps[app], self._apps.around.routing.serves(app))

    def changes(self) -> Subscription:
        return self._changes.subscribe()

    async def remove(self, app: str, generation: int) -> None:
        """Hosts go first, so that no request meets a pod that stops; the record goes last."""
        self._apps.check(app, generation)
        around = self._apps.around
        if app in self._apps:
            self._apps[app].record.hosts = ()
            await around.routing.publish()
            await self._end(self._apps[app])
        await self._one_offs.remove(app)
        await around.images.remove_app(app)
        await asyncio.to_thread((around.site.apps / f"{app}.json").unlink, missing_ok=True)
        self._apps.forget(app, generation)
        await around.routing.publish()
        self._changes.tell(app)

    async def _end(self, controller: AppController) -> None:
        await controller.leave()
        await controller.pods.end_all()
        for pod in list(controller.pods.over):
            await controller.pods.forget(pod)

    async def facts(self) -> Mapping[str, str]:
        site = self._apps.around.site
        return {
            "cluster": "processes of this machine",
            "pods run as": f"{_user_name()}, the platform's own user, all apps alike",
            "python": site.python,
            "images": str(await self._apps.around.images.count()),
            "unsupported": "autoscale, exec, run",
        }


class LocalRoutes(Routes):
    def __init__(self, apps: Apps) -> None:
        self._apps = apps

    async def apply(self, table: RouteTable) -> None:
        controller = self._apps[table.app]
        controller.record.route(table)
        await controller.save()
        await self._apps.around.routing.publish()
        controller.wake()


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"
