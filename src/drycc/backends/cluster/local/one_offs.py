"""Pods that run once: builds and release steps. Each id is started once, whoever of us did it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import uuid4

from drycc.backends.cluster.base import Exit, OneOff, Output
from drycc.backends.cluster.local import pod as pods
from drycc.backends.cluster.local.directory import PodDirectory, PodRecord
from drycc.backends.cluster.local.follow import follow
from drycc.backends.cluster.local.images import Images
from drycc.backends.cluster.local.names import name_one_off
from drycc.backends.cluster.local.pod import LocalPod
from drycc.backends.cluster.local.ports import PortPool
from drycc.backends.cluster.local.site import Site
from drycc.backends.cluster.local.tasks import Tasks
from drycc.kit import process
from drycc.kit.aio import cancel
from drycc.kit.ids import now

STOPPED = 128 + 15  # the status of one that was cancelled before it had a process
BUILD_GRACE = 5.0  # seconds at most: a build has nothing to save, and the next push waits for its end


@dataclass
class OneOffs:
    site: Site
    images: Images
    ports: PortPool
    tasks: Tasks
    changed: Callable[[str], None]
    pods: dict[str, LocalPod] = field(default_factory=dict)

    def adopt(self, pod: LocalPod) -> None:
        """Take charge of one that an earlier process of ours has made."""
        self.pods[pod.record.one_off] = pod
        if pod.process is not None:
            self.ports.keep(pod.record.port)
            self._launch(pod, None)
        elif pod.directory.was_spawned or pod.last_exit:
            pod.last_exit = pod.last_exit or Exit(None, None, now())
            pod.spawned.set()
            pod.over.set()

    def of(self, app: str) -> list[LocalPod]:
        """Those of the app that run."""
        return [pod for pod in self.pods.values() if pod.record.app == app and not pod.over.is_set()]

    async def run(self, one_off: OneOff) -> None:
        pod = self.pods.get(one_off.id) or self._create(one_off)
        if pod.task is None and not pod.over.is_set():
            self._launch(pod, one_off)
        await pod.spawned.wait()

    async def output(self, id: str, offset: int) -> AsyncIterator[Output]:
        pod = self.pods.get(id)
        if pod is None:
            return
        await pod.spawned.wait()
        async for output in follow(pod.directory.out, offset, pod.over):
            yield output

    async def wait(self, id: str) -> Exit:
        pod = self.pods.get(id)
        if pod is None:
            return Exit(None, None, now())
        await pod.over.wait()
        return pod.last_exit or Exit(None, None, now())

    async def result(self, id: str) -> bytes | None:
        pod = self.pods.get(id)
        if pod is None or not await asyncio.to_thread(pod.directory.result.is_file):
            return None
        return await asyncio.to_thread(pod.directory.result.read_bytes)

    async def cancel(self, id: str) -> None:
        pod = self.pods.get(id)
        if pod is None or pod.over.is_set():
            return
        pod.is_stopping = True
        if pod.task is None:
            self._launch(pod, None)
        await pod.spawned.wait()
        if pod.process is not None:
            await process.stop(pod.process, pod.record.grace)
        await pod.over.wait()

    async def forget(self, id: str) -> None:
        pod = self.pods.get(id)
        if pod is not None and pod.over.is_set():
            del self.pods[id]
            await self.images.remove(pod.directory.path)

    async def remove(self, app: str) -> None:
        for id in [id for id, pod in self.pods.items() if pod.record.app == app]:
            await self.cancel(id)
            await self.forget(id)

    def _create(self, one_off: OneOff) -> LocalPod:
        id = uuid4().hex
        record = PodRecord(
            id=id,
            name=name_one_off(one_off.app),
            app=one_off.app,
            kind=one_off.kind,
            ptype=one_off.kind,
            release=one_off.release,
            template="",
            image=one_off.image,
            generation=0,
            grace=min(self.site.grace, BUILD_GRACE) if one_off.kind == "build" else self.site.grace,
            created=time.time(),
            one_off=one_off.id,
        )
        pod = LocalPod(record, PodDirectory(self.site.pods / id))
        self.pods[one_off.id] = pod
        return pod

    def _launch(self, pod: LocalPod, one_off: OneOff | None) -> None:
        pod.task = self.tasks.keep(f"one-off {pod.record.one_off}", lambda: self._live(pod, one_off))

    async def _live(self, pod: LocalPod, one_off: OneOff | None) -> None:
        """From the start, or from where we find it, to the end."""
        if pod.process is None and one_off is not None and not pod.is_stopping:
            await self._start(pod, one_off)
        elif pod.process is None:
            pod.last_exit = await asyncio.to_thread(_end_unstarted, pod)
        pod.spawned.set()
        self.changed(pod.record.app)
        await self._attend(pod)
        self.ports.give_back(pod.record.port)
        if pod.record.kind == "build":
            await self.images.drop_unfinished(pod.record.image)
        await asyncio.to_thread(_tidy, pod)
        pod.over.set()
        self.changed(pod.record.app)

    async def _start(self, pod: LocalPod, one_off: OneOff) -> None:
        pod.record.deadline = time.time() + one_off.timeout
        pod.record.port = self.ports.take()
        if one_off.kind == "build":
            await self.images.start_build(pod, one_off.source)
        else:
            await self.images.start_app(pod, one_off.command, one_off.env)

    async def _attend(self, pod: LocalPod) -> None:
        enforcing = asyncio.create_task(self._enforce_deadline(pod), name=f"deadline {pod.record.one_off}")
        try:
            await pods.attend(pod, lambda: self.changed(pod.record.app))
        finally:
            await cancel(enforcing)

    async def _enforce_deadline(self, pod: LocalPod) -> None:
        if pod.process is None or pod.record.deadline is None:
            return
        await asyncio.sleep(pod.record.deadline - time.time())
        allowed = pod.record.deadline - pod.record.started
        with suppress(OSError):  # a full disk keeps no pod from its end
            await asyncio.to_thread(pod.directory.append, f"stopped: it ran longer than {allowed:.0f} s")
        await process.stop(pod.process, pod.record.grace)


def _end_unstarted(pod: LocalPod) -> Exit:
    with suppress(OSError):
        pod.directory.path.mkdir(exist_ok=True)
        pod.directory.write_status(STOPPED)
    return pod.directory.read_exit() or Exit(None, "SIGTERM", now())


def _tidy(pod: LocalPod) -> None:
    """Keep what it said and how it ended."""
    pod.record.is_over = True
    pod.directory.clear()
    pod.directory.source.unlink(missing_ok=True)
    pod.directory.note(pod.record)
