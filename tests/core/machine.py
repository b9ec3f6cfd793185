"""Users and a faulty world, step by step, beside the model of what shall come of it."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, ClassVar
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from drycc.backends.cluster.base import WorkloadSpec
from drycc.core import apps, builds, configs, jobs, pipeline, releases, workloads
from drycc.core import models as rows
from drycc.core.configs import Change
from drycc.core.identity import Identity
from drycc.core.jobs import Claim, LeaseLost
from drycc.core.work import Ports
from drycc.errors import Conflict, Invalid
from drycc.settings import Settings
from drycc.worker.role import Needs, Worker
from tests.cluster import Finished, ModelCluster
from tests.core.actual import OPEN, check_cluster, describe_app, dump_rows, empty, read_app
from tests.core.expected import App, Build, Job, Refused
from tests.core.faults import Gate, Kind, gate_ports
from tests.core.story import Story
from tests.waiting import until

NAMES = ("blog", "shop")
LANES = ("build", "deploy")
PROCFILES: tuple[dict[str, str], ...] = (
    {"web": "./serve"},
    {"web": "./serve", "worker": "./work"},
    {"web": "./serve", "release": "./migrate"},
    {"clock": "./tick", "worker": "./work", "release": "./migrate"},
)
PTYPES: st.SearchStrategy[list[str]] = st.one_of(
    st.just([]), st.lists(st.sampled_from(("web", "worker", "clock", "nope")), max_size=2, unique=True)
)
numbers = st.integers(0, 1)
calls = st.integers(1, 16)  # of a handler, to database and cluster


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
class Bench:
    """What all runs on one database share; `story` is taken for its ports only."""

    run: Callable[[Coroutine[Any, Any, Any]], Any]
    story: Story


@dataclass
class Frozen:
    """A handler that stands still while the world goes on."""

    claim: Claim
    gate: Gate
    task: "asyncio.Task[None]"


class Platform(RuleBasedStateMachine):
    bench: ClassVar[Bench]
    steps: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.story = self.bench.story
        self.db = self.story.db
        self.cluster = FailingCluster()
        self.apps: dict[str, App] = {}
        self.uuids: dict[str, UUID] = {}
        self.frozen: list[Frozen] = []
        self.user = self._do(self._join())

    def _do(self, acting: Coroutine[Any, Any, Any]) -> Any:
        return self.bench.run(acting)

    async def _join(self) -> Identity:
        async def body(session: Any) -> int:
            session.add(user := rows.User(username="ann", password="-"))
            await session.flush()
            return user.id

        return Identity(await self.db.write(body), "ann")

    def teardown(self) -> None:
        self._do(self._clean())

    async def _clean(self) -> None:
        for frozen in self.frozen:
            frozen.task.cancel()
        await asyncio.gather(*(frozen.task for frozen in self.frozen), return_exceptions=True)
        await empty(self.db)

    # ---- users

    @initialize(procfile=st.sampled_from(PROCFILES))
    def begin(self, procfile: dict[str, str]) -> None:
        """Two apps, of which one is live."""
        for number in range(len(NAMES)):
            self.create(number)
        self.push(0, procfile, "y")
        self.work(2)

    @rule(number=numbers)
    def create(self, number: int) -> None:
        name = NAMES[number % len(NAMES)]
        if name not in self.apps:
            self._do(apps.create(self.db, self.story.keyring, self.user, id=name))
            self.uuids[name] = self._do(apps.find(self.db, name)).uuid
            self.apps[name] = App(name, self.cluster.failing)

    @rule(number=numbers, procfile=st.sampled_from(PROCFILES), outcome=st.sampled_from("yyyybs"))
    def push(self, number: int, procfile: dict[str, str], outcome: str) -> None:
        if app := self._pick(number):
            self.story.app, self.story.user = self.uuids[app.name], self.user.id
            id = self._do(self.story.push(**procfile))
            app.push(Build(id, procfile, fails=outcome == "b", step_fails=outcome == "s"))

    @rule(number=numbers, which=st.integers(0, 3))
    def cancel_build(self, number: int, which: int) -> None:
        if (app := self._pick(number)) and len(app.builds) > which:
            build = app.builds[-1 - which]
            self._both(
                lambda: app.cancel(build),
                lambda: builds.cancel(self.db, self.story.nudges, build.id, "enough"),
            )

    @rule(
        number=numbers,
        name=st.sampled_from("AB"),
        value=st.sampled_from(("1", "2", None)),
        exits=st.booleans(),
    )
    def set_bad_config(self, number: int, name: str, value: str | None, exits: bool) -> None:
        for ptype in ("web", "worker", "clock"):
            self.break_next(number, ptype, exits)
        self.set_config(number, name, value)

    @rule(number=numbers, name=st.sampled_from("AB"), value=st.sampled_from(("1", "2", None)))
    def set_config(self, number: int, name: str, value: str | None) -> None:
        if app := self._pick(number):
            change = Change([{"name": name, "value": value, "group": "global"}])
            parts = (self.db, self.story.nudges, self.story.keyring, self.uuids[app.name], self.user)
            self._both(lambda: app.set_config(name, value), lambda: configs.change(*parts, change))

    @rule(number=numbers, ptype=st.sampled_from(("web", "worker", "clock")), count=st.integers(0, 3))
    def scale(self, number: int, ptype: str, count: int) -> None:
        if app := self._pick(number):
            uuid, counts = self.uuids[app.name], {ptype: count}
            self._both(
                lambda: app.scale(counts), lambda: workloads.scale(self.db, self.story.nudges, uuid, counts)
            )

    @rule(number=numbers, ptypes=PTYPES)
    def restart(self, number: int, ptypes: list[str]) -> None:
        if app := self._pick(number):
            uuid = self.uuids[app.name]
            self._both(
                lambda: app.restart(ptypes),
                lambda: workloads.restart(self.db, self.story.nudges, uuid, ptypes),
            )

    @rule(number=numbers, ptypes=PTYPES, force=st.booleans())
    def deploy(self, number: int, ptypes: list[str], force: bool) -> None:
        if app := self._pick(number):
            uuid = self.uuids[app.name]
            self._both(
                lambda: app.deploy(ptypes, force=force),
                lambda: releases.deploy(self.db, self.story.nudges, uuid, ptypes, force=force),
            )

    @rule(number=numbers, back=st.one_of(st.none(), st.integers(0, 2), st.integers(-1, 6)), ptypes=PTYPES)
    def roll_back(self, number: int, back: int | None, ptypes: list[str]) -> None:
        if app := self._pick(number):
            version = None if back is None else app.releases[-1].version - back
            who = (self.user.id, self.user.username)
            parts = (self.db, self.story.nudges, self.cluster, self.uuids[app.name], who, version, ptypes)
            self._both(lambda: app.roll_back(version, ptypes), lambda: releases.rollback(*parts))

    @rule(number=numbers, setting=st.sampled_from(("autodeploy", "autorollback")))
    def switch(self, number: int, setting: str) -> None:
        if app := self._pick(number):
            value = not getattr(app, setting)
            setattr(app, setting, value)
            change = sa.update(rows.App).where(rows.App.id == app.name).values({setting: value})
            self._do(self.db.write(lambda session: session.execute(change)))

    @rule(number=st.integers(0, 9))
    def destroy(self, number: int) -> None:
        if number < 2 and (app := self._pick(number)):
            app.destroy()
            self._do(self._ask_to_destroy(app.name))

    async def _ask_to_destroy(self, name: str) -> None:
        app = await apps.find(self.db, name)
        asking = asyncio.create_task(apps.destroy(self.db, self.story.nudges, app))
        await until(lambda: self._is_being_destroyed(app.uuid))
        asking.cancel()
        await asyncio.wait([asking])

    async def _is_being_destroyed(self, app: UUID) -> bool:
        asked = sa.select(rows.Job.id).where(rows.Job.kind == "destroy", rows.Job.app_uuid == app)
        return bool(await self.db.read(asked))

    # ---- the world

    @rule(number=numbers, ptype=st.sampled_from(("web", "worker", "clock")), exits=st.booleans())
    def break_next(self, number: int, ptype: str, exits: bool) -> None:
        """The next release of the app will not start."""
        if app := self._pick(number):
            self.cluster.failing[app.name, ptype, len(app.releases) + 1] = exits

    @rule()
    def reconcile(self) -> None:
        """What another worker does at its start."""
        self._do(pipeline.reconcile(self._ports))

    @rule(at=calls, kind=st.sampled_from(("cut", "cut after")))
    def work_and_die(self, at: int, kind: Kind) -> None:
        self._work(kind, at)

    @rule(at=calls, kind=st.sampled_from(("freeze", "freeze after")))
    def work_and_stand_still(self, at: int, kind: Kind) -> None:
        self._work(kind, at)

    @rule(at=calls, kind=st.sampled_from(("away", "away after", "twice")))
    def work_beside_trouble(self, at: int, kind: Kind) -> None:
        self._work(kind, at)

    @rule(at=calls, kind=st.sampled_from(("cut", "freeze", "away after")), ptypes=PTYPES)
    def work_badly_and_be_taken_over(self, at: int, kind: Kind, ptypes: list[str]) -> None:
        """What somebody does who sees that nothing moves."""
        self._work(kind, at)
        self.deploy(0, ptypes, force=True)

    @rule(count=st.integers(1, 4))
    def work(self, count: int) -> None:
        for _ in range(count):
            self._work("none", 0)

    @rule(which=st.integers(0, 10))
    def thaw(self, which: int) -> None:
        """A handler that stood still while its job was taken over goes on, and changes nothing."""
        late = [frozen for frozen in self.frozen if self._do(self._is_late(frozen))]
        if late:
            frozen = late[which % len(late)]
            self.frozen.remove(frozen)
            self._do(self._thaw(frozen))

    async def _is_late(self, frozen: Frozen) -> bool:
        row = await self._job(frozen.claim.id)
        return row is None or row.state != "running" or row.generation != frozen.claim.generation

    async def _thaw(self, frozen: Frozen) -> None:
        before = await self._dump()
        frozen.gate.thawed.set()
        async with asyncio.timeout(10):
            await asyncio.wait([frozen.task])
        assert isinstance(frozen.task.exception(), LeaseLost | None), frozen.task.exception()
        after = await self._dump()
        changed = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
        assert not changed, f"{frozen.claim} came late and changed {changed}"

    async def _dump(self) -> dict[str, object]:
        return await dump_rows(self.db) | self.cluster.dump()

    # ---- workers

    def _work(self, kind: Kind, at: int) -> None:
        """The next job that is due, at once or in the way of the fault."""
        self._do(self._number_jobs())
        if job := self._next():
            self._do(self._run(job, kind, at))

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
        worker.ports = gate_ports(self._ports, gate)
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
    def _ports(self) -> Ports:
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

    # ---- what is compared

    @invariant()
    def agrees(self) -> None:
        type(self).steps += 1
        self._do(self._compare())

    async def _compare(self) -> None:
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

    def _pick(self, number: int) -> App | None:
        living = [app for app in self.apps.values() if not app.is_destroyed]
        return living[number % len(living)] if living else None

    def _both(self, modelled: Callable[[], None], real: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Done by both, or refused by both."""
        try:
            modelled()
        except Refused:
            with pytest.raises((Invalid, Conflict)):
                self._do(real())
        else:
            self._do(real())
