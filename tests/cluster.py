"""A model cluster in memory: what the port promises, with failures on command."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from drycc.backends.cluster.base import (
    AppSpec,
    Cluster,
    Exit,
    Observed,
    ObservedWorkload,
    OneOff,
    Output,
    Pod,
    PodFile,
    Pods,
    Routes,
    RouteTable,
    Stale,
    Workloads,
    WorkloadSpec,
)


@dataclass
class _Rollout:
    """One process type: what was applied, and the templates that serve."""

    spec: WorkloadSpec
    serving: int = 0  # the release whose pods serve
    exits: int = 0


@dataclass
class Finished:
    """How the model ends a one-off: what it prints, its exit code and its result."""

    output: bytes = b""
    code: int | None = 0
    result: bytes | None = b'{"digest": "sha256:0"}'


class ModelRoutes(Routes):
    def __init__(self) -> None:
        self.tables: dict[str, RouteTable] = {}

    async def apply(self, table: RouteTable) -> None:
        self.tables[table.app] = table


class ModelCluster(Cluster, Workloads, Pods):
    """Behaves at once by default, or after `delay` seconds.

    `broken` names (process type, release) that exit, `never` those that never listen.
    """

    def __init__(self) -> None:
        self.workloads = self
        self.pods = self
        self.routes = ModelRoutes()
        self.generations: dict[str, int] = {}
        self.removed: dict[str, int] = {}
        self.ran: dict[tuple[str, str], int] = {}
        self.apps: dict[str, dict[str, _Rollout]] = {}
        self.broken: set[tuple[str, int]] = set()
        self.never: set[tuple[str, int]] = set()
        self.missing: set[str] = set()  # images that are gone
        self.one_offs: dict[str, OneOff] = {}
        self.finished: dict[str, Finished] = {}
        self.builds = Finished(b"built\n")
        self.releases = Finished(b"migrated\n")
        self.hanging = False  # one-offs do not end by themselves
        self.delay = 0.0  # seconds until pods are ready, and until a one-off ends
        self.ended: dict[str, asyncio.Event] = {}
        self._watchers: set[asyncio.Event] = set()

    # workloads

    async def apply(self, spec: AppSpec) -> None:
        self._carry(spec.app, spec.generation)
        present = self.apps.setdefault(spec.app, {})
        for ptype in set(present) - {workload.ptype for workload in spec.workloads}:
            del present[ptype]
        for workload in spec.workloads:
            self._roll(spec.app, present, workload)
        self._tell(spec.app)

    def _carry(self, app: str, generation: int) -> None:
        """One number an app, for all that is done to it, also after it was removed."""
        if generation < self.generations.get(app, 0):
            raise Stale(f"{app} carries generation {self.generations[app]}")
        self.generations[app] = generation

    def _roll(self, app: str, present: dict[str, _Rollout], workload: WorkloadSpec) -> None:
        rollout = present.setdefault(workload.ptype, _Rollout(workload))
        is_new = rollout.spec.release != workload.release
        rollout.spec = workload
        rollout.exits = 0 if is_new else rollout.exits
        if workload.is_held:
            return
        if self._is_broken(app, workload):
            rollout.exits = 3
        elif not self._is_never(app, workload):
            self._later(self._turn, app, workload)

    def _is_broken(self, app: str, workload: WorkloadSpec) -> bool:
        return (workload.ptype, workload.release) in self.broken

    def _is_never(self, app: str, workload: WorkloadSpec) -> bool:
        return (workload.ptype, workload.release) in self.never

    def _later(self, act: Callable[..., None], *arguments: object) -> None:
        if self.delay:
            asyncio.get_running_loop().call_later(self.delay, act, *arguments)
        else:
            act(*arguments)

    def _turn(self, app: str, workload: WorkloadSpec) -> None:
        """The pods are ready: serve, if they are still wanted."""
        rollout = self.apps.get(app, {}).get(workload.ptype)
        if rollout is not None and rollout.spec == workload:
            rollout.serving = workload.release
            self._tell(app)

    async def observe(self, app: str) -> Observed:
        seen = {ptype: self._observe(app, rollout) for ptype, rollout in self.apps.get(app, {}).items()}
        return Observed(app, self.generations.get(app, 0), seen)

    def _observe(self, app: str, rollout: _Rollout) -> ObservedWorkload:
        spec = rollout.spec
        is_up = rollout.serving == spec.release
        count = spec.replicas if is_up else 0
        return ObservedWorkload(
            ptype=spec.ptype,
            release=spec.release,
            replicas=spec.replicas,
            updated=spec.replicas,
            ready=count,
            serving=count,
            old=0 if is_up or not rollout.serving else spec.replicas,
            exits=rollout.exits,
            pods=tuple(self._pods(app, rollout)),
        )

    def _pods(self, app: str, rollout: _Rollout) -> Sequence[Pod]:
        spec, is_up = rollout.spec, rollout.serving == rollout.spec.release
        exit = Exit(1, None, datetime.now(UTC)) if rollout.exits else None
        return [
            Pod(
                name=f"{app}-{spec.ptype}-{spec.release}-{index}",
                app=app,
                ptype=spec.ptype,
                release=spec.release,
                state="up" if is_up else "crashed" if exit else "starting",
                is_ready=is_up,
                is_current=True,
                started=datetime.now(UTC),
                restarts=rollout.exits,
                last_exit=exit,
            )
            for index in range(spec.replicas)
        ]

    async def changes(self) -> AsyncIterator[str]:
        event = asyncio.Event()
        self._watchers.add(event)
        try:
            while True:
                await event.wait()
                event.clear()
                for app in list(self.apps):
                    yield app
        finally:
            self._watchers.discard(event)

    def _tell(self, app: str) -> None:
        for event in self._watchers:
            event.set()

    async def remove(self, app: str, generation: int) -> None:
        self._carry(app, generation)
        self.removed[app] = generation
        self.apps.pop(app, None)
        self.routes.tables.pop(app, None)
        for id in [id for id, one_off in self.one_offs.items() if one_off.app == app]:
            await self.cancel(id)
            await self.forget(id)

    async def facts(self) -> Mapping[str, str]:
        return {"cluster": "a model in memory"}

    # pods

    async def list(self, app: str) -> Sequence[Pod]:
        return [pod for rollout in self.apps.get(app, {}).values() for pod in self._pods(app, rollout)]

    async def tail(self, pod: str, lines: int) -> Sequence[str]:
        return [f"last line of {pod}"]

    async def run(self, one_off: OneOff) -> None:
        latest = max(self.removed.get(one_off.app, 0), self.ran.get((one_off.app, one_off.kind), 0))
        if one_off.generation < latest:
            raise Stale(f"a {one_off.kind} of {one_off.app} ran at generation {latest}")
        self.ran[one_off.app, one_off.kind] = one_off.generation
        if one_off.id in self.one_offs:
            return
        self.one_offs[one_off.id] = one_off
        self.finished[one_off.id] = self.builds if one_off.kind == "build" else self.releases
        self.ended[one_off.id] = asyncio.Event()
        if not self.hanging:
            self._later(self.ended[one_off.id].set)

    async def output(self, id: str, offset: int = 0) -> AsyncIterator[Output]:
        data = self.finished[id].output
        if data[offset:]:
            yield Output(data[offset:], len(data))
        await self.ended[id].wait()

    async def wait(self, id: str) -> Exit:
        await self.ended[id].wait()
        return Exit(self.finished[id].code, None, datetime.now(UTC))

    async def result(self, id: str) -> bytes | None:
        return self.finished[id].result

    async def cancel(self, id: str) -> None:
        if id in self.ended:
            self.finished[id] = Finished(self.finished[id].output, code=143)
            self.ended[id].set()

    async def forget(self, id: str) -> None:
        self.one_offs.pop(id, None)

    async def files(self) -> Sequence[PodFile]:
        return []

    async def has_image(self, image: str) -> bool:
        return image not in self.missing

    async def collect(self, images: Mapping[str, frozenset[int]]) -> None:
        return None
