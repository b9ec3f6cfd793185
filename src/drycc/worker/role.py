"""The role `worker`: reconciles what a start finds, then takes jobs and runs them side by side."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar
from uuid import uuid4

from drycc.backends.cluster.base import Cluster, Stale
from drycc.backends.db import Database
from drycc.backends.logstore.base import LogStore
from drycc.backends.nudges.base import Nudges
from drycc.backends.objects.base import ObjectStore
from drycc.backup.create import Platform
from drycc.backup.timer import run_timer
from drycc.core import jobs, pipeline
from drycc.core.jobs import Claim, LeaseLost
from drycc.core.secrets import Keyring
from drycc.core.work import Ports
from drycc.errors import Unavailable
from drycc.kit.aio import cancel, running, within
from drycc.kit.crash import point
from drycc.kit.disk import find_trouble
from drycc.roles import Role
from drycc.settings import Settings
from drycc.worker.leases import Leases

log = logging.getLogger("drycc.worker")
T = TypeVar("T")

LOOK_AGAIN = 1.0  # seconds: the timer behind the nudges
DEPLOYS = 16  # deploys, scales and destroys that run at once
RETRY_AFTER = 2.0  # seconds, when something that a job needs does not answer


@dataclass(frozen=True, slots=True)
class Needs:
    settings: Settings
    db: Database
    keyring: Keyring
    cluster: Cluster
    objects: ObjectStore
    nudges: Nudges
    logs: LogStore


class Worker:
    """One claim a slot; `leases.run` runs beside `run`."""

    def __init__(self, needs: Needs) -> None:
        self.settings = needs.settings
        self.db = needs.db
        self.nudges = needs.nudges
        # One process owns a data directory, so this names us over restarts.
        self.owner = f"{socket.gethostname()}:{needs.settings.data}"
        self.slots = {"build": needs.settings.builds, "deploy": DEPLOYS}
        self.running: dict[asyncio.Task[None], Claim] = {}
        self.leases = Leases(needs.db, needs.settings.lease)
        self.ports = _ports(needs)

    async def run(self) -> None:
        """Take jobs for ever; those that run are cancelled with us and go on after the next start."""
        await _persist(lambda: jobs.release_own(self.db, self.owner))
        await _persist(lambda: pipeline.reconcile(self.ports))
        log.info("takes jobs as %s", self.owner)
        try:
            async with self.nudges.subscribe(jobs.TOPIC) as nudged:
                while True:
                    await within(await _persist(self._look), anext(nudged))
        finally:
            await asyncio.gather(*(cancel(task) for task in self.running))

    async def _look(self) -> float:
        """Take what is due; gives the seconds until the next look: few when a lease is about to end."""
        is_lapsing = await jobs.is_lapsing(self.db, LOOK_AGAIN)
        await self._claim_all(takes_over=is_lapsing)
        return LOOK_AGAIN / 10 if is_lapsing else LOOK_AGAIN

    async def _claim_all(self, *, takes_over: bool) -> None:
        """Start a task for each due job that a slot is free for."""
        while lanes := [lane for lane in self.slots if self._count(lane) < self.slots[lane]]:
            unproven = max((one.attempts for one in self.running.values() if not one.has_beaten), default=0)
            if unproven > jobs.SUSPICIOUS:
                return  # until its heartbeat: should it end us, nobody else is blamed
            is_calm = unproven < jobs.SUSPICIOUS
            claim = await jobs.claim(
                self.db, self.owner, self.settings.lease, lanes, is_calm=is_calm, takes_over=takes_over
            )
            if claim is None:
                return
            task = asyncio.create_task(self._work(claim), name=f"job {claim.id} {claim.kind}")
            self.running[task] = claim
            task.add_done_callback(self._ended)

    def _count(self, lane: str) -> int:
        return sum(1 for claim in self.running.values() if jobs.LANES[claim.kind] == lane)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        del self.running[task]
        if not task.cancelled() and (error := task.exception()):
            log.error("%s was left as it is", task.get_name(), exc_info=error)

    async def _work(self, claim: Claim) -> None:
        """Run one job while it is ours; what it leaves open is due again when the lease ends."""
        former = [task for task, held in self.running.items() if held.id == claim.id and held is not claim]
        try:
            with self.leases.hold(claim):
                point("job.claimed")
                if former:  # lost, but not ended yet
                    await asyncio.wait(former)
                await self._handle(claim)
        except LeaseLost as lost:
            log.warning("%s", lost)
        finally:
            await jobs.wake(self.nudges)

    async def _handle(self, claim: Claim) -> None:
        if claim.attempts > jobs.MOST_ATTEMPTS:
            times = f"{jobs.MOST_ATTEMPTS} times in a row the platform ended soon after it began this"
            return await self._give_up(claim, f"set aside: {times}")
        try:
            await pipeline.run(self.ports, claim)
        except LeaseLost:
            raise
        except (Unavailable, Stale) as error:
            await self._put_back(claim, error)
        except Exception as error:
            if trouble := find_trouble(error):
                return await self._put_back(claim, trouble)
            await self.db.write(partial(jobs.check, claim=claim))  # a job that is lost may fail
            incident = uuid4().hex[:12]
            log.exception("job %s %s failed, incident %s", claim.id, claim.kind, incident)
            await self._give_up(claim, f"internal error, incident {incident}")

    async def _put_back(self, claim: Claim, error: Exception) -> None:
        log.warning("job %s %s waits: %s", claim.id, claim.kind, error)
        again = partial(jobs.retry, claim=claim, after=RETRY_AFTER)
        await _persist(lambda: self.db.write(again))

    async def _give_up(self, claim: Claim, reason: str) -> None:
        await _persist(lambda: pipeline.give_up(self.ports, claim, reason))


async def _persist(step: Callable[[], Awaitable[T]]) -> T:
    """Take a step, again while something that it needs does not answer."""
    while True:
        try:
            return await step()
        except Unavailable as error:
            log.warning("the worker waits: %s", error)
            await asyncio.sleep(LOOK_AGAIN)


def _ports(needs: Needs) -> Ports:
    settings = needs.settings
    return Ports(
        db=needs.db,
        keyring=needs.keyring,
        cluster=needs.cluster,
        objects=needs.objects,
        nudges=needs.nudges,
        logs=needs.logs,
        domain=settings.domain,
        edge_port=int(settings.edge_listen.rpartition(":")[2]),
        grace=settings.grace,
        deploy_timeout=settings.deploy_timeout,
        release_timeout=settings.release_timeout,
        build_timeout=settings.build_timeout,
    )


@asynccontextmanager
async def lifespan(needs: Needs) -> AsyncIterator[None]:
    worker = Worker(needs)
    timers = [("backup", partial(run_timer, _platform(needs)))] if needs.settings.backup_every else []
    async with running(("leases", worker.leases.run), ("worker", worker.run), *timers):
        yield


def _platform(needs: Needs) -> Platform:
    """What is backed up on the timer; raises `Invalid` when the rows are on a server."""
    needs.db.file()
    return Platform(needs.settings, needs.db, needs.keyring, needs.objects)


ROLE = Role("worker", Needs, lifespan)
