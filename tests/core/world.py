"""One world under test: rows, a cluster that fails, workers that die or stand still, and the model beside."""

import asyncio
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from drycc.backends.cluster.base import WorkloadSpec
from drycc.core import jobs, workloads
from drycc.core import models as rows
from drycc.core.identity import Identity
from drycc.core.jobs import Claim, LeaseLost
from drycc.core.work import Ports
from drycc.settings import Settings
from drycc.worker.role import Needs, Worker
from tests.cluster import Finished, ModelCluster
from tests.core.actual import OPEN, check_cluster, describe_app, dump_rows, empty, read_app
from tests.core.expected import App, Job
from tests.core.faults import Gate, Kind, gate_ports
from tests.core.story import Story

LANES = ("build", "deploy")


class FailingCluster(ModelCluster):
    """Fails by app, too."""

    def __init__(self) -> None:
        super().__init__()
        self.failing: dict[tuple[str, str, int], bool] = {}  # whether it exits, or else never listens

    def _is_broken(self, app: str, workload: WorkloadSpec) -> bool:
        return self.failing.get((app, workload.ptype, workload.release)) is True

    def _is_never(self, app: str, workload: WorkloadSpec) -> bool:
        return self.failing.get((app, workload.ptype, workload.release)) is False

    def heal(self, name: str) -> None:
        for failing in [failing for failing in self.failing if failing[0] == name]:
            del self.failing[failing]

    def dump(self) -> dict[str, object]:
        """All that somebody who comes late might change, as it is now."""
        kept = (self.apps, self.routes.tables, self.generations, sorted(self.one_offs))
        return {f"cluster {number}": repr(part) for number, part in enumerate(kept)}


@dataclass
class Frozen:
    """A handler that stands still while the world goes on."""

    claim: Claim
    gate: Gate
    task: "asyncio.Task[None]"


class World:
    """Its rows are those of the story's database, which is empty before and after."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.db = story.db
        self.cluster = FailingCluster()
        self.apps: dict[str, App] = {}
        self.uuids: dict[str, UUID] = {}
        self.frozen: list[Frozen] = []

    async def join(self) -> Identity:
        async def body(session: Any) -> int:
            session.add(user := rows.User(username="ann", password="-"))
            await session.flush()
            return user.id

        return Identity(await self.db.write(body), "ann")

    async def end(self) -> None:
        for frozen in self.frozen:
            frozen.task.cancel()
        await asyncio.gather(*(frozen.task for frozen in self.frozen), return_exceptions=True)
        await empty(self.db)

    # ---- workers

    async def work(self, kind: Kind, at: int) -> None:
        """The next job that is due, at once or in the way of the fault."""
        await self._number_jobs()
        if job := self._next():
            await self._run(job, kind, at)

    async def _number_jobs(self) -> None:
        """The model's jobs are those of the rows, in the same order."""
        for name, app in self.apps.items():
            query = sa.select(rows.Job.id).where(
                rows.Job.app_uuid == self.uuids[name], rows.Job.state.in_(OPEN)
            )
            ids = [row.id for row in await self.db.read(query.order_by(rows.Job.id))]
            for job, id in zip(app.jobs, ids, strict=True):
                assert job.id in (0, id)
                job.id = id

    def _next(self) -> tuple[App, Job] | None:
        """Lapsed ones first, then the first of each lane."""
        due: list[tuple[bool, int, App, Job]] = []
        for app in self.apps.values():
            for lane in LANES:
                for job in [job for job in app.jobs if job.lane == lane][:1]:
                    due.append((not job.is_running, job.id, app, job))
        if not due:
            return None
        *_, app, job = min(due, key=lambda item: item[:2])
        return app, job

    async def _run(self, found: tuple[App, Job], kind: Kind, at: int) -> None:
        app, job = found
        claim = await jobs.claim(self.db, "worker", 0, LANES)
        assert claim is not None
        assert (claim.id, claim.kind) == (job.id, job.kind)
        self._prepare(job)
        gate = Gate(kind if claim.attempts < jobs.MOST_ATTEMPTS - 1 else "none", at)
        await self._handle(claim, gate)
        now = sa.update(rows.Job).values(run_at=sa.func.db_now(0))  # what waits to be tried again is due
        await self.db.write(lambda session: session.execute(now))
        row = await self._job(claim.id)
        is_over = row is None or row.state not in ("queued", "running")
        has_moved = row is not None and "former" in row.result
        app.go_on(
            job,
            has_started=not is_over and await self._has_started(job),
            has_moved=has_moved and not is_over,
            is_over=is_over,
            is_queued=row is not None and row.state == "queued",
        )
        if row is not None and not app.is_destroyed:
            assert (job.former is not None) == has_moved
        if app.is_gone:
            del self.apps[app.name]
            self.cluster.heal(app.name)

    def _prepare(self, job: Job) -> None:
        build = job.build
        self.cluster.builds = Finished(b"built\n", code=int(build is not None and build.fails))
        self.cluster.releases = Finished(b"migrated\n", code=int(build is not None and build.step_fails))

    async def _handle(self, claim: Claim, gate: Gate) -> None:
        worker = Worker(self._needs())
        worker.ports = gate_ports(self.ports, gate)
        gate.handler = asyncio.create_task(worker._handle(claim))
        stopped = asyncio.create_task(gate.stopped.wait())
        await asyncio.wait([gate.handler, stopped], timeout=10, return_when=asyncio.FIRST_COMPLETED)
        if gate.kind in ("freeze", "freeze after") and gate.stopped.is_set():
            self.frozen.append(Frozen(claim, gate, gate.handler))
            return
        stopped.cancel()
        if not gate.handler.done():
            assert gate.stopped.is_set(), "a handler does not end"
            gate.handler.cancel()
            await asyncio.wait([gate.handler])
        elif not gate.handler.cancelled():
            assert isinstance(gate.handler.exception(), LeaseLost | None), gate.handler.exception()

    async def _has_started(self, job: Job) -> bool:
        if job.kind != "build" or job.build is None:
            return False
        row = await self.db.read_one(sa.select(rows.Build.state).where(rows.Build.id == job.build.id))
        return row is not None and row.state != "queued"

    async def _job(self, id: int) -> Any:
        return await self.db.read_one(sa.select(rows.Job).where(rows.Job.id == id))

    @property
    def ports(self) -> Ports:
        return replace(self.story.ports, cluster=self.cluster)

    def _needs(self) -> Needs:
        story = self.story
        return Needs(
            settings=Settings(data="/here"),
            db=self.db,
            keyring=story.keyring,
            cluster=self.cluster,
            objects=story.objects,
            nudges=story.nudges,
            logs=story.log,
        )

    # ---- who comes late

    async def thaw(self, which: int) -> None:
        """A handler that stood still while its job was taken over goes on, and changes nothing."""
        late = [frozen for frozen in self.frozen if await self._is_late(frozen)]
        if late:
            frozen = late[which % len(late)]
            self.frozen.remove(frozen)
            await self._thaw(frozen)

    async def _is_late(self, frozen: Frozen) -> bool:
        row = await self._job(frozen.claim.id)
        return row is None or row.state != "running" or row.generation != frozen.claim.generation

    async def _thaw(self, frozen: Frozen) -> None:
        row = await self._job(frozen.claim.id)
        # Who has ended it may tidy up behind it.
        is_over = row is None or (row.state not in OPEN and row.generation != frozen.claim.generation)
        before = await self._dump(with_cluster=is_over)
        frozen.gate.thawed.set()
        async with asyncio.timeout(10):
            await asyncio.wait([frozen.task])
        assert isinstance(frozen.task.exception(), LeaseLost | None), frozen.task.exception()
        after = await self._dump(with_cluster=is_over)
        changed = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
        assert not changed, f"{frozen.claim} came late and changed {changed}"

    async def _dump(self, *, with_cluster: bool) -> dict[str, object]:
        """While its successor has told the cluster nothing yet, the cluster may hear one that is late."""
        return await dump_rows(self.db) | (self.cluster.dump() if with_cluster else {})

    # ---- what is compared

    async def compare(self) -> None:
        await self._number_jobs()
        for name, app in self.apps.items():
            found, wanted = await read_app(self.db, self.story.keyring, name), describe_app(app)
            differing = {key: (found[key], wanted[key]) for key in wanted if found[key] != wanted[key]}
            assert not differing, (name, differing)
            if not app.is_destroyed and all(job.kind == "build" for job in app.jobs):
                uuid, grace = self.uuids[name], self.story.ports.grace
                spec = await workloads.load_spec(self.db, self.story.keyring, uuid, grace)
                assert spec
                check_cluster(self.cluster, spec, app)
        names = {row.id for row in await self.db.read(sa.select(rows.App.id))}
        assert names == set(self.apps)
        assert set(self.cluster.apps) <= names
        assert set(self.cluster.routes.tables) <= names
