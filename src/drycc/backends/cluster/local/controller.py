"""One app, kept as its spec wants it: a loop that takes a step whenever something happens."""

import asyncio
import logging
from collections.abc import Mapping
from time import monotonic

from drycc.backends.cluster.base import AppSpec, WorkloadSpec
from drycc.backends.cluster.local import plan
from drycc.backends.cluster.local.app_pods import AppPods, Surroundings
from drycc.backends.cluster.local.edge.snapshot import AppRoutes, Endpoint
from drycc.backends.cluster.local.names import name_template
from drycc.backends.cluster.local.pod import LocalPod
from drycc.backends.cluster.local.record import AppRecord
from drycc.errors import Unavailable
from drycc.kit import crash
from drycc.kit.aio import cancel

log = logging.getLogger("drycc.pods")

ASK_AGAIN = 1.0  # seconds after the edge did not answer


class AppController:
    def __init__(self, around: Surroundings, record: AppRecord) -> None:
        self.record = record
        self.spec: AppSpec | None = None  # unknown after our restart until it is applied again
        self.pods = AppPods(around, record, self._count_exit, self.wake)
        self.exits: dict[str, int] = {}
        self._around = around
        self._templates: dict[tuple[str, str], WorkloadSpec] = {}
        self._serving = dict(record.serving)
        self._saving = asyncio.Lock()
        self._wake = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None
        self._loop = around.tasks.keep(f"app {record.app}", self._run)

    # what others ask of it

    async def apply(self, spec: AppSpec) -> None:
        former = self.applied()
        self.spec, self.record.generation = spec, spec.generation
        for ptype, workload in self.applied().items():
            self._templates[ptype, name_template(workload)] = workload
            if not _is_same_attempt(former.get(ptype), workload):
                self.exits[ptype] = 0
        await self.save()
        self.wake()

    def applied(self) -> Mapping[str, WorkloadSpec]:
        return {spec.ptype: spec for spec in self.spec.workloads} if self.spec else {}

    def routes(self) -> AppRoutes:
        """Where requests of the app go now."""
        ptype = self.record.routed
        ready = [pod for pod in self.pods.of(ptype) if pod.is_ready]
        serving = plan.of_template(ready, self._serving.get(ptype))
        endpoints = tuple(Endpoint(pod.record.name, pod.record.port) for pod in serving)
        spec = self.applied().get(ptype)
        replicas = spec.replicas if spec else len(self.pods.of(ptype))
        return AppRoutes(ptype, self.record.is_routable, replicas, endpoints)

    def images(self) -> set[str]:
        """Images that pods use, or will use when they are started again."""
        used = {pod.record.image for pod in self.pods.present}
        return used | {spec.image for spec in self._templates.values()}

    async def save(self) -> None:
        async with self._saving:
            await asyncio.to_thread(self.record.save, self._around.site.apps)

    def wake(self) -> None:
        self._wake.set()

    async def leave(self) -> None:
        """Decide nothing any more; pods run on."""
        if self._alarm is not None:
            self._alarm.cancel()
        await cancel(self._loop)

    # the loop

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._step()
            except Unavailable as error:
                log.warning("%s: %s", self.record.app, error)
                self._wake_in(ASK_AGAIN)
            self._around.changed(self.record.app)
            await self._wake.wait()

    async def _step(self) -> None:
        """Start what is missing, let requests go to what is ready, and only then stop what is too much."""
        if self.spec is None:
            return await self._around.routing.publish()
        applied = self.applied()
        ptypes = sorted({*applied, *(pod.record.ptype for pod in self.pods.present)})
        for ptype in ptypes:
            self._start_missing(ptype, applied.get(ptype))
            self._choose_serving(ptype, applied.get(ptype))
        await self._turn()
        self._forget_templates(applied)
        for ptype in ptypes:
            known = frozenset(template for of, template in self._templates if of == ptype)
            spec, serving = applied.get(ptype), self._serving.get(ptype)
            for pod in plan.choose_stops(spec, self.pods.of(ptype), serving, known):
                self.pods.retire(pod)

    def _start_missing(self, ptype: str, spec: WorkloadSpec | None) -> None:
        present = self.pods.of(ptype)
        for pod in present:
            if pod.process is None and pod.task is None:
                self._restart(pod, spec)
        for _ in range(plan.count_missing(spec, present)):
            assert spec is not None
            self.pods.create(spec)

    def _restart(self, pod: LocalPod, spec: WorkloadSpec | None) -> None:
        """Start a pod again that has exited, when its time has come."""
        template = self._templates.get((pod.record.ptype, pod.record.template))
        if template is None or not plan.may_restart(pod, spec, self._serving.get(pod.record.ptype)):
            return
        if pod.due > monotonic():
            self._wake_in(pod.due - monotonic())
        else:
            self.pods.restart(pod, template)

    def _choose_serving(self, ptype: str, spec: WorkloadSpec | None) -> None:
        serving = plan.choose_serving(spec, self.pods.of(ptype), self._serving.get(ptype))
        if serving is None:
            self._serving.pop(ptype, None)
        else:
            self._serving[ptype] = serving

    async def _turn(self) -> None:
        """On record first: should we die in between, the next of us turns to pods that are ready, too."""
        is_new = self._serving != self.record.serving
        if is_new:
            self.record.serving = dict(self._serving)
            await self.save()
            crash.point("rollout.turning")
        await self._around.routing.publish()
        if is_new:
            crash.point("rollout.turned")

    def _forget_templates(self, applied: Mapping[str, WorkloadSpec]) -> None:
        """Keep those that are wanted or serve: their pods may have to be started again."""
        kept = {(ptype, name_template(spec)) for ptype, spec in applied.items()} | set(self._serving.items())
        self._templates = {key: spec for key, spec in self._templates.items() if key in kept}

    def _count_exit(self, pod: LocalPod) -> None:
        ptype = pod.record.ptype
        spec = self.applied().get(ptype)
        if spec is not None and name_template(spec) == pod.record.template:
            self.exits[ptype] = self.exits.get(ptype, 0) + 1

    def _wake_in(self, seconds: float) -> None:
        """At the latest then; an earlier alarm stays."""
        loop = asyncio.get_running_loop()
        at = loop.time() + seconds
        if self._alarm is not None and loop.time() < self._alarm.when() <= at:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = loop.call_at(at, self.wake)


def _is_same_attempt(former: WorkloadSpec | None, spec: WorkloadSpec) -> bool:
    """Whether exits go on being counted: the same template, and not one that was let go again."""
    return (
        former is not None
        and name_template(former) == name_template(spec)
        and not (former.is_held and not spec.is_held)
    )
