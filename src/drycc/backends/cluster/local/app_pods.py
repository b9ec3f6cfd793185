"""The pods of one app: created, started, watched, drained and ended. It decides nothing by itself."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import monotonic
from uuid import uuid4

from drycc.backends.cluster.base import WorkloadSpec
from drycc.backends.cluster.local import pod as pods
from drycc.backends.cluster.local.directory import PodDirectory, PodRecord
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
ASK_AGAIN = 1.0  # seconds after the edge did not answer
MOST_OVER = 5  # ended pods of a process type whose output is kept until it was read


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all apps share."""

    site: Site
    images: Images
    ports: PortPool
    routing: Routing
    tasks: Tasks
    changed: Callable[[str], None]


class AppPods:
    """`exited` is told of every exit that nobody asked for, `news` of everything."""

    def __init__(
        self,
        around: Surroundings,
        record: AppRecord,
        exited: Callable[[LocalPod], None],
        news: Callable[[], None],
    ) -> None:
        self.present: list[LocalPod] = []
        self.over: list[LocalPod] = []  # ended, oldest first; only their output is left
        self._around = around
        self._app = record
        self._exited = exited
        self._news = news

    def of(self, ptype: str) -> list[LocalPod]:
        """Those that were not told to stop."""
        return [pod for pod in self.present if pod.record.ptype == ptype and not pod.is_stopping]

    def printed(self) -> list[LocalPod]:
        """Those that have, or had, a process to print anything."""
        return self.over + [pod for pod in self.present if pod.process is not None or pod.last_exit]

    def adopt(self, pod: LocalPod) -> None:
        """Take charge of one that an earlier process of ours has started."""
        if pod.record.is_over:
            self.over.append(pod)
            return
        self.present.append(pod)
        if pod.process is not None:
            self._around.ports.keep(pod.record.port)
            self._run(pod, None)

    def create(self, spec: WorkloadSpec) -> None:
        id = uuid4().hex
        record = PodRecord(
            id=id,
            name=name_pod(self._app.app, spec.ptype, spec.release),
            app=self._app.app,
            kind="workload",
            ptype=spec.ptype,
            release=spec.release,
            template=name_template(spec),
            image=spec.image,
            generation=self._app.generation,
            grace=spec.grace,
            created=time.time(),
            ready_after=spec.ready_after,
        )
        pod = LocalPod(record, PodDirectory(self._around.site.pods / id))
        self.present.append(pod)
        self._run(pod, spec)

    def restart(self, pod: LocalPod, spec: WorkloadSpec) -> None:
        pod.record.restarts += 1 if pod.last_exit else 0
        self._run(pod, spec)

    def retire(self, pod: LocalPod) -> None:
        """Stop it for good, once no request goes there any more."""
        pod.is_stopping = True
        pod.retiring = self._around.tasks.keep(f"stop {pod.record.name}", partial(self._drain, pod))

    async def end_all(self) -> None:
        """Stop every pod at once, undrained."""
        for pod in list(self.present):
            if pod.retiring is not None:
                await cancel(pod.retiring)
        await asyncio.gather(*(self._end(pod) for pod in list(self.present)))

    async def forget(self, pod: LocalPod) -> None:
        """Remove what is left of an ended pod."""
        if pod in self.over:
            self.over.remove(pod)
            await self._around.images.remove(pod.directory.path)

    def _run(self, pod: LocalPod, spec: WorkloadSpec | None) -> None:
        pod.task = self._around.tasks.keep(f"pod {pod.record.name}", partial(self._live, pod, spec))

    async def _live(self, pod: LocalPod, spec: WorkloadSpec | None) -> None:
        """One run of the pod's process: started from `spec`, or watched when it runs already."""
        if pod.process is None and spec is not None and not pod.is_stopping:
            pod.record.port = self._around.ports.take()
            await self._around.images.start_app(pod, spec.command, spec.env)
        self._around.changed(self._app.app)
        if pod.is_stopping and pod.process is not None:
            await process.stop(pod.process, pod.record.grace)
        await pods.attend(pod, self._news)
        self._around.ports.give_back(pod.record.port)
        pod.task = None
        if not pod.is_stopping:
            await self._note_exit(pod)
        self._news()

    async def _note_exit(self, pod: LocalPod) -> None:
        """Set when the pod starts again, and say in its output how it ended."""
        site = self._around.site
        if pod.ready_since is not None and monotonic() - pod.ready_since >= STEADY_AFTER:
            pod.failures = 0
        pod.ready_since = None
        cap = min(site.backoff_cap, pods.STARVED_CAP) if pod.is_starved else site.backoff_cap
        pod.due = monotonic() + min(cap, site.backoff * 2 ** min(pod.failures, 32))
        pod.failures += 1
        self._exited(pod)
        how = _describe(pod)
        reason = pod.last_exit.reason if pod.last_exit else ""
        log.info("pod %s %s%s", pod.record.name, how, f": {reason}" if reason else "")
        with suppress(OSError):  # a full disk may be why it ended
            await asyncio.to_thread(pod.directory.append, f"{pod.record.ptype} {how}")

    async def _drain(self, pod: LocalPod) -> None:
        routing, record = self._around.routing, pod.record
        if record.ptype == self._app.routed and pod.process is not None:
            await self._turn_away(pod)
            await routing.router.drained(record.name, record.grace)
        await self._end(pod)
        self._news()

    async def _turn_away(self, pod: LocalPod) -> None:
        """Returns when no request goes to the pod any more; until then it serves."""
        while pod.process is not None:
            try:
                return await self._around.routing.publish()
            except Unavailable as error:
                log.warning("pod %s goes on serving: %s", pod.record.name, error)
            await asyncio.sleep(ASK_AGAIN)

    async def _end(self, pod: LocalPod) -> None:
        """No process of the pod is left afterwards, and of its directory only the output."""
        pod.is_stopping = True
        if pod.process is not None:
            await process.stop(pod.process, pod.record.grace)
        if pod.task is not None:
            await asyncio.wait([pod.task])
        crash.point("pod.ended")
        pod.record.is_over = True
        await asyncio.to_thread(_tidy, pod)
        if pod in self.present:
            self.present.remove(pod)
            self.over.append(pod)
        ended = [one for one in self.over if one.record.ptype == pod.record.ptype]
        for one in ended[:-MOST_OVER]:
            await self.forget(one)


def _tidy(pod: LocalPod) -> None:
    pod.directory.clear()
    pod.directory.note(pod.record)


def _describe(pod: LocalPod) -> str:
    exit = pod.last_exit
    if exit is None or (exit.code is None and exit.signal is None):
        return "has ended and nobody saw how"
    return f"was ended by signal {exit.signal}" if exit.signal else f"exited with code {exit.code}"
