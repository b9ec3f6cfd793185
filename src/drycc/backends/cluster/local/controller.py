"""One app's pods, kept as its spec wants them: a loop that takes a step whenever something happens."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from uuid import uuid4

from drycc.backends.cluster.base import AppSpec, Stale, WorkloadSpec
from drycc.backends.cluster.local import plan
from drycc.backends.cluster.local import pod as pods
from drycc.backends.cluster.local.directory import PodDirectory, PodRecord
from drycc.backends.cluster.local.edge.snapshot import AppRoutes, Endpoint
from drycc.backends.cluster.local.images import Images
from drycc.backends.cluster.local.names import name_pod, name_template
from drycc.backends.cluster.local.pod import LocalPod
from drycc.backends.cluster.local.ports import PortPool
from drycc.backends.cluster.local.record import AppRecord
from drycc.backends.cluster.local.routing import Routing
from drycc.backends.cluster.local.site import Site
from drycc.backends.cluster.local.tasks import Tasks
from drycc.errors import Unavailable
from drycc.kit import crash, process
from drycc.kit.aio import cancel

log = logging.getLogger("drycc.pods")

STEADY_AFTER = 600.0  # seconds of being ready after which former exits count no more
MOST_OVER = 5  # ended pods of a process type whose output is kept until it was read


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all controllers share."""

    site: Site
    images: Images
    ports: PortPool
    routing: Routing
    tasks: Tasks
    changed: Callable[[str], None]


class AppController:
    def __init__(self, around: Surroundings, record: AppRecord) -> None:
        self.record = record
        self.spec: AppSpec | None = None  # unknown after our restart until it is applied again
        self.pods: list[LocalPod] = []
        self.over: list[LocalPod] = []  # ended, oldest first; only their output is left
        self.exits: dict[str, int] = {}
        self._around = around
        self._templates: dict[tuple[str, str], WorkloadSpec] = {}
        self._serving = dict(record.serving)
        self._wake = asyncio.Event()
        self._saving = asyncio.Lock()
        self._loop = around.tasks.keep(f"app {record.app}", self._run)
        self._alarm: asyncio.TimerHandle | None = None

    # what others ask of it

    async def apply(self, spec: AppSpec) -> None:
        if spec.generation < self.record.generation:
            raise Stale(f"{spec.app} is at generation {self.record.generation}, not {spec.generation}")
        former = self.applied()
        self.spec, self.record.generation = spec, spec.generation
        for ptype, workload in self.applied().items():
            self._templates[ptype, name_template(workload)] = workload
            if not _is_same_attempt(former.get(ptype), workload):
                self.exits[ptype] = 0
        await self.save()
        self.wake()

    async def save(self) -> None:
        async with self._saving:
            await asyncio.to_thread(self.record.save, self._around.site.apps)

    def wake(self) -> None:
        self._wake.set()

    def adopt(self, pod: LocalPod) -> None:
        """Take charge of a pod that an earlier process of ours has started."""
        if pod.record.is_over:
            self.over.append(pod)
            return
        self.pods.append(pod)
        if pod.process is not None:
            self._around.ports.keep(pod.record.port)
            self._attend(pod)

    def routes(self) -> AppRoutes:
        ptype = self.record.routed
        ready = [pod for pod in self._of(ptype) if pod.is_ready]
        endpoints = tuple(
            Endpoint(pod.record.name, pod.record.port)
            for pod in plan.of_template(ready, self._serving.get(ptype))
        )
        spec = self.applied().get(ptype)
        replicas = spec.replicas if spec else len(self._of(ptype))
        return AppRoutes(ptype, self.record.is_routable, replicas, endpoints)

    def images(self) -> set[str]:
        """Images that pods use, or will use when they are started again."""
        return {pod.record.image for pod in self.pods} | {spec.image for spec in self._templates.values()}

    async def close(self, *, keeps_output: bool) -> None:
        """Stop every pod, undrained, and start none again."""
        await self.leave()
        for pod in self.pods:
            if pod.retiring is not None:
                await cancel(pod.retiring)
        await asyncio.gather(*(self._end(pod, pod.record.grace) for pod in list(self.pods)))
        if not keeps_output:
            for pod in self.over:
                await self._around.images.remove(pod.directory.path)
            self.over.clear()

    async def leave(self) -> None:
        """Decide nothing any more."""
        if self._alarm is not None:
            self._alarm.cancel()
        await cancel(self._loop)

    async def forget(self, pod: LocalPod) -> None:
        """Remove what is left of an ended pod."""
        if pod in self.over:
            self.over.remove(pod)
            await self._around.images.remove(pod.directory.path)

    # the loop

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._step()
            except Unavailable as error:
                log.warning("%s: %s", self.record.app, error)
                self._wake_in(1.0)
            self._around.changed(self.record.app)
            await self._wake.wait()

    async def _step(self) -> None:
        """Start what is missing, let requests go to what is ready, and only then stop what is too much."""
        if self.spec is None:
            return await self._around.routing.publish()
        applied = self.applied()
        ptypes = sorted({*applied, *(pod.record.ptype for pod in self.pods)})
        for ptype in ptypes:
            self._start_missing(ptype, applied.get(ptype))
            self._choose_serving(ptype, applied.get(ptype))
        await self._around.routing.publish()
        await self._record_turn()
        self._forget_templates(applied)
        for ptype in ptypes:
            known = frozenset(template for of, template in self._templates if of == ptype)
            spec, serving = applied.get(ptype), self._serving.get(ptype)
            for pod in plan.choose_stops(spec, self._of(ptype), serving, known):
                self._retire(pod)

    def _start_missing(self, ptype: str, spec: WorkloadSpec | None) -> None:
        present = self._of(ptype)
        for pod in present:
            if pod.process is None and pod.task is None:
                self._restart(pod, spec)
        if spec is not None:
            for _ in range(plan.count_missing(spec, present)):
                self._create(spec)

    def _restart(self, pod: LocalPod, spec: WorkloadSpec | None) -> None:
        template = self._templates.get((pod.record.ptype, pod.record.template))
        if template is None or not plan.may_restart(pod, spec, self._serving.get(pod.record.ptype)):
            return
        if pod.due > monotonic():
            self._wake_in(pod.due - monotonic())
            return
        pod.record.restarts += 1 if pod.last_exit else 0
        self._launch(pod, template)

    def _create(self, spec: WorkloadSpec) -> None:
        app, id = self.record.app, uuid4().hex
        record = PodRecord(
            id=id,
            name=name_pod(app, spec.ptype, spec.release),
            app=app,
            kind="workload",
            ptype=spec.ptype,
            release=spec.release,
            template=name_template(spec),
            image=spec.image,
            generation=self.record.generation,
            grace=spec.grace,
            created=time.time(),
            ready_after=spec.ready_after,
        )
        pod = LocalPod(record, PodDirectory(self._around.site.pods / id))
        self.pods.append(pod)
        self._launch(pod, spec)

    def _choose_serving(self, ptype: str, spec: WorkloadSpec | None) -> None:
        serving = plan.choose_serving(spec, self._of(ptype), self._serving.get(ptype))
        if serving is None:
            self._serving.pop(ptype, None)
        else:
            self._serving[ptype] = serving

    async def _record_turn(self) -> None:
        if self._serving != self.record.serving:
            crash.point("rollout.turned")
            self.record.serving = dict(self._serving)
            await self.save()

    def _forget_templates(self, applied: dict[str, WorkloadSpec]) -> None:
        kept = {(ptype, name_template(spec)) for ptype, spec in applied.items()} | set(self._serving.items())
        self._templates = {key: spec for key, spec in self._templates.items() if key in kept}

    # the life of a pod

    def _launch(self, pod: LocalPod, spec: WorkloadSpec) -> None:
        pod.task = self._around.tasks.keep(f"pod {pod.record.name}", lambda: self._live(pod, spec))

    def _attend(self, pod: LocalPod) -> None:
        pod.task = self._around.tasks.keep(f"pod {pod.record.name}", lambda: self._live(pod, None))

    async def _live(self, pod: LocalPod, spec: WorkloadSpec | None) -> None:
        """One run of the pod's process: started from `spec`, or watched when it runs already."""
        if pod.process is None and spec is not None and not pod.is_stopping:
            pod.record.port = self._around.ports.take()
            await self._around.images.start_app(pod, spec.command, spec.env)
        self._around.changed(self.record.app)
        if pod.is_stopping and pod.process is not None:
            await process.stop(pod.process, pod.record.grace)
        await pods.attend(pod, self.wake)
        self._around.ports.give_back(pod.record.port)
        pod.task = None
        if not pod.is_stopping:
            await self._note_exit(pod)
        self.wake()

    async def _note_exit(self, pod: LocalPod) -> None:
        """Count an exit that nobody asked for, say so in the pod's output, and set when it starts again."""
        site, record = self._around.site, pod.record
        if pod.ready_since is not None and monotonic() - pod.ready_since >= STEADY_AFTER:
            pod.failures = 0
        pod.ready_since = None
        delay = min(site.backoff_cap, site.backoff * 2 ** min(pod.failures, 32))
        pod.failures += 1
        pod.due = monotonic() + delay
        applied = self.applied().get(record.ptype)
        if applied is not None and name_template(applied) == record.template:
            self.exits[record.ptype] = self.exits.get(record.ptype, 0) + 1
        how = _describe(pod)
        log.info("pod %s %s", record.name, how)
        with suppress(OSError):
            await asyncio.to_thread(pod.directory.append, f"{record.ptype} {how}")

    def _retire(self, pod: LocalPod) -> None:
        """Stop a pod for good, once no request goes there any more."""
        pod.is_stopping = True
        pod.retiring = self._around.tasks.keep(f"stop {pod.record.name}", lambda: self._drain(pod))

    async def _drain(self, pod: LocalPod) -> None:
        routing, record = self._around.routing, pod.record
        if record.ptype == self.record.routed and pod.process is not None:
            try:
                await routing.publish()
                await routing.router.drained(record.name, record.grace)
            except Unavailable as error:
                log.warning("pod %s is stopped undrained: %s", record.name, error)
        await self._end(pod, record.grace)
        self.wake()

    async def _end(self, pod: LocalPod, grace: float) -> None:
        """No process of the pod is left afterwards, and of its directory only the output."""
        pod.is_stopping = True
        if pod.process is not None:
            await process.stop(pod.process, grace)
        if pod.task is not None:
            await asyncio.wait([pod.task])
        pod.record.is_over = True
        await asyncio.to_thread(pod.directory.save, pod.record)
        await asyncio.to_thread(pod.directory.clear)
        if pod in self.pods:
            self.pods.remove(pod)
            self.over.append(pod)
        await self._prune(pod.record.ptype)

    async def _prune(self, ptype: str) -> None:
        ended = [pod for pod in self.over if pod.record.ptype == ptype]
        for pod in ended[:-MOST_OVER]:
            await self.forget(pod)

    def printed(self) -> list[LocalPod]:
        """Pods that have, or had, a process to print anything."""
        return self.over + [pod for pod in self.pods if pod.process is not None or pod.last_exit is not None]

    # small questions

    def applied(self) -> dict[str, WorkloadSpec]:
        return {spec.ptype: spec for spec in self.spec.workloads} if self.spec else {}

    def _of(self, ptype: str) -> list[LocalPod]:
        return [pod for pod in self.pods if pod.record.ptype == ptype and not pod.is_stopping]

    def _wake_in(self, seconds: float) -> None:
        """At the latest then; an earlier alarm stays."""
        loop = asyncio.get_running_loop()
        if (
            self._alarm is None
            or self._alarm.when() > loop.time() + seconds
            or self._alarm.when() <= loop.time()
        ):
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm = loop.call_later(seconds, self.wake)


def _is_same_attempt(former: WorkloadSpec | None, spec: WorkloadSpec) -> bool:
    """Whether exits go on being counted: the same template, and not one that was let go again."""
    return (
        former is not None
        and name_template(former) == name_template(spec)
        and not (former.is_held and not spec.is_held)
    )


def _describe(pod: LocalPod) -> str:
    exit = pod.last_exit
    if exit is None or (exit.code is None and exit.signal is None):
        return "has ended and nobody saw how"
    return f"was ended by signal {exit.signal}" if exit.signal else f"exited with code {exit.code}"
