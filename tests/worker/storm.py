"""Jobs on several workers that are killed and stopped all the time: nothing is lost, nothing is doubled."""

import asyncio
import random
import statistics
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from drycc.core.models import App, Job, Release, Workload
from drycc.kit.aio import insist
from tests.waiting import until
from tests.worker.fleet import Fleet, Process
from tests.worker.user import User

JOBS_A_ROUND = 5  # a build, its deploy, a config's deploy, a scale, a restart
PATIENCE = 180.0  # seconds


@dataclass
class Report:
    jobs: int = 0
    seconds: float = 0.0
    kills: int = 0
    stops: int = 0
    waits: list[float] = field(
        default_factory=list
    )  # seconds until a job of such a worker was in others' hands
    refused: int = 0  # calls that came too late for the cluster
    states: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        waits = "no job was running"
        if self.waits:
            median, worst = statistics.median(self.waits), max(self.waits)
            waits = f"{len(self.waits)} jobs ran again after {median:.2f} s, {worst:.2f} s at worst"
        return (
            f"{self.jobs} jobs in {self.seconds:.0f} s ({dict(self.states)}); {self.kills} kills, "
            f"{self.stops} stops past the lease: {waits}; {self.refused} late calls refused"
        )


class Storm:
    def __init__(self, fleet: Fleet, apps: int, rounds: int, *, kills: int = 0, stops: int = 0) -> None:
        self.fleet = fleet
        self.apps = apps
        self.rounds = rounds
        self.attacks = [self._kill] * kills + [self._stop_for_a_while] * stops
        self.random = random.Random(kills)
        self.report = Report()
        self.watching: list[asyncio.Task[None]] = []

    async def run(self, workers: int = 4) -> Report:
        began = monotonic()
        ann = await User.join(self.fleet)
        for _ in range(workers):
            await self.fleet.start()
        async with asyncio.TaskGroup() as group:
            for number in range(self.apps):
                group.create_task(self._use(ann, f"app{number}"))
            group.create_task(self._attack())
        await until(ann.is_quiet, within=PATIENCE)
        await asyncio.gather(*self.watching)
        self.report.seconds = monotonic() - began
        await self._count()
        return self.report

    async def _use(self, ann: User, name: str) -> None:
        """Ask again when the answer is 503: a worker that stands still may hold the app's row."""
        app = await insist(partial(ann.create, name), within=PATIENCE)
        for round in range(self.rounds):
            procfile = {"web": "./serve", **({"release": "./migrate"} if round % 2 else {})}
            build = await insist(partial(ann.push, app, **procfile), within=PATIENCE)
            await until(partial(ann.is_built, build), within=PATIENCE)
            await insist(partial(ann.set_config, app, "ROUND", str(round)), within=PATIENCE)
            await until(lambda: self._has_pods(app), within=PATIENCE)
            await insist(partial(ann.scale, app, web=1 + (round + 1) % 3), within=PATIENCE)
            await insist(partial(ann.restart, app), within=PATIENCE)

    async def _has_pods(self, app: UUID) -> bool:
        return bool(await self.fleet.db.read(sa.select(Workload.ptype).where(Workload.app_uuid == app)))

    # what happens to workers

    async def _attack(self) -> None:
        """Spread over the jobs, at random instants."""
        total = self.apps * self.rounds * JOBS_A_ROUND
        for number, attack in enumerate(self.attacks):
            await until(lambda: self._has_ended(total * number // len(self.attacks)), within=PATIENCE)  # noqa: B023
            await asyncio.sleep(self.random.random() * 0.05)
            await attack(self.random.choice(self.fleet.workers))

    async def _has_ended(self, count: int) -> bool:
        row = await self.fleet.db.read_one(sa.select(sa.func.count()).where(Job.finished.is_not(None)))
        assert row
        return int(row[0]) >= count

    async def _kill(self, victim: Process) -> None:
        """Started again at once, as itself or as another machine that must wait for the lease."""
        await self.fleet.kill(victim)
        died = monotonic()
        self._watch(self._measure(await self._held_by(victim), died))
        await self.fleet.start(None if self.report.kills % 3 == 0 else victim.data)
        self.report.kills += 1

    async def _stop_for_a_while(self, victim: Process) -> None:
        """One at a time: a second could wait for a row of the first, and hold that after it."""
        await until(lambda: not self.fleet.is_standing, within=PATIENCE)
        await self.fleet.stop(victim)
        self._watch(self._go_on(victim, monotonic()))
        self.report.stops += 1

    async def _go_on(self, victim: Process, stopped: float) -> None:
        await self._measure(await self._held_by(victim), stopped)
        await asyncio.sleep(max(0.0, self.fleet.lease + 0.2 - (monotonic() - stopped)))
        self.fleet.go_on(victim)

    def _watch(self, watching: Coroutine[Any, Any, None]) -> None:
        self.watching.append(asyncio.create_task(watching))

    async def _held_by(self, victim: Process) -> Sequence[Any]:
        is_theirs = Job.lease_owner.endswith(f":{victim.data}")
        return await self.fleet.db.read(
            sa.select(Job.id, Job.generation).where(Job.state == "running", is_theirs)
        )

    async def _measure(self, held: Sequence[Any], since: float) -> None:
        """How long until each of these jobs is in other hands."""

        async def is_on(id: int, generation: int) -> bool:
            row = await self.fleet.db.read_one(sa.select(Job.state, Job.generation).where(Job.id == id))
            return row is None or row.state != "running" or row.generation != generation

        for job in held:
            await until(lambda: is_on(job.id, job.generation), within=60, every=0.05)  # noqa: B023
            self.report.waits.append(monotonic() - since)

    # what is true afterwards

    async def _count(self) -> None:
        states = await self.fleet.db.read(
            sa.select(Job.state, sa.func.count().label("n")).group_by(Job.state)
        )
        self.report.states.update({row.state: row.n for row in states})
        self.report.jobs = self.report.states.total()
        counts = await self.fleet.cluster.link.control()
        self.report.refused = counts.refused.total()

    async def check(self) -> None:
        """0 lost, 0 doubled: in the rows, and in what the cluster was told."""
        assert set(self.report.states) <= {"succeeded", "superseded"}, self.report
        await self._check_releases()
        counts = await self.fleet.cluster.link.control()
        assert counts.torn == [], "a generation meant two things"
        assert set(counts.started.values()) == {1}, "a one-off ran twice"
        started = [id for id in counts.started if id.startswith("build-")]
        assert len(started) == self.apps * self.rounds, "a build did not run"
        await self._check_pods()

    async def _check_releases(self) -> None:
        rows = await self.fleet.db.read(
            sa.select(App.id, Release.version, Release.summary).join(App, App.uuid == Release.app_uuid)
        )
        for number in range(self.apps):
            versions = {row.version: row.summary for row in rows if row.id == f"app{number}"}
            assert sorted(versions) == list(range(1, 2 + 2 * self.rounds)), "a release is lost or doubled"
            kinds = Counter(summary.split()[1] for summary in versions.values())
            assert kinds["deployed"] == self.rounds, kinds

    async def _check_pods(self) -> None:
        """The cluster carries what the rows say."""
        rows = await self.fleet.db.read(
            sa.select(App.id, Workload.replicas, Release.version)
            .join(Workload, Workload.app_uuid == App.uuid)
            .join(Release, Release.uuid == Workload.release_uuid)
        )
        assert len(rows) == self.apps
        for row in rows:
            web = (await self.fleet.cluster.workloads.observe(row.id)).workloads["web"]
            assert (web.release, web.replicas, web.serving) == (row.version, row.replicas, row.replicas)
