"""The port `Pods`: listing, output and one-offs."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

from drycc.backends.cluster.base import Exit, OneOff, Output, Pod, PodFile, Pods
from drycc.backends.cluster.local.observing import is_current
from drycc.backends.cluster.local.one_offs import OneOffs
from drycc.backends.cluster.local.pod import LocalPod
from drycc.backends.cluster.local.workloads import Apps


class LocalPods(Pods):
    def __init__(self, apps: Apps, one_offs: OneOffs) -> None:
        self._apps = apps
        self._one_offs = one_offs

    async def tail(self, pod: str, lines: int) -> list[str]:
        found = next((one for one in self._all() if one.record.name == pod), None)
        return await asyncio.to_thread(found.directory.tail, lines) if found else []

    async def list(self, app: str) -> Sequence[Pod]:
        listed = [pod.view(is_current=False) for pod in self._one_offs.of(app)]
        if app in self._apps:
            specs = self._apps[app].applied()
            for pod in self._apps[app].pods.present:
                listed.append(pod.view(is_current=is_current(pod, specs.get(pod.record.ptype))))
        return sorted(listed, key=lambda pod: pod.started, reverse=True)

    async def run(self, one_off: OneOff) -> None:
        self._apps.check_removed(one_off.app, one_off.generation)
        await self._one_offs.run(one_off)

    def output(self, id: str, offset: int = 0) -> AsyncIterator[Output]:
        return self._one_offs.output(id, offset)

    async def wait(self, id: str) -> Exit:
        return await self._one_offs.wait(id)

    async def result(self, id: str) -> bytes | None:
        return await self._one_offs.result(id)

    async def cancel(self, id: str) -> None:
        await self._one_offs.cancel(id)

    async def forget(self, id: str) -> None:
        await self._one_offs.forget(id)
        for controller in list(self._apps.values()):
            for pod in [pod for pod in controller.pods.over if pod.record.name == id]:
                await controller.pods.forget(pod)

    async def files(self) -> Sequence[PodFile]:
        """One-offs are not among them: their output goes to whoever started them."""
        access = PodFile("edge", "", "", 0, self._apps.around.routing.router.access_file, is_over=False)
        printed = (pod for controller in self._apps.values() for pod in controller.pods.printed())
        return [access, *(_file(pod) for pod in printed)]

    async def has_image(self, image: str) -> bool:
        return await self._apps.around.images.has(image)

    async def collect(self, images: Mapping[str, frozenset[int]]) -> None:
        kept = {f"{app}:{build}" for app, builds in images.items() for build in builds}
        for controller in self._apps.values():
            kept |= controller.images()
        kept |= {pod.record.image for pod in self._one_offs.pods.values()}
        running = (pod.record for pod in self._one_offs.pods.values() if not pod.over.is_set())
        building = {record.app for record in running if record.kind == "build"}
        await self._apps.around.images.collect(kept, building)

    def _all(self) -> Iterator[LocalPod]:
        yield from self._one_offs.pods.values()
        for controller in self._apps.values():
            yield from (*controller.pods.present, *controller.pods.over)


def _file(pod: LocalPod) -> PodFile:
    record = pod.record
    return PodFile(
        record.name, record.app, record.ptype, record.release, pod.directory.out, is_over=record.is_over
    )
