"""The role `worker`: reconciles what a start finds, then takes jobs and runs them side by side."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from uuid import uuid4

from drycc.backends.cluster.base import Cluster
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
from drycc.roles import Role
from drycc.settings import Settings

log = logging.getLogger("drycc.worker")

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
    """One claim a slot; a job's handler and its heartbeat run side by side."""

    def __init__(self, needs: Needs) -> None:
        self.settings = needs.settings
        self.db = needs.db
        self.nudges = needs.nudges
        self.owner = needs.settings.data  # one process owns a data directory, so this names us over restarts
        self.slots = {"build": needs.settings.builds, "deploy": DEPLOYS}
        self.running: dict[asyncio.Task[None], str] = {}
        self.ports = _ports(needs)

    async def run(self) -> None:
        """Take jobs for ever; those that run are cancelled with us and go on after the next start."""
        await jobs.release_own(self.db, self.owner)
        await pipeline.reconcile(self.ports)
        try:
            async with self.nudges.subscribe(jobs.TOPIC) as nudged:
                while True:
                    await self._claim_all()
                    await within(LOOK_AGAIN, anext(nudged))
        finally:
            await asyncio.gather(*(cancel(task) for task in self.running))

    async def _claim_all(self) -> None:
        """Start a task for each due job that a slot is free for."""
        while lanes := [lane for lane in self.slots if self._count(lane) < self.slots[lane]]:
            claim = await jobs.claim(self.db, self.owner, self.settings.lease, lanes)
            if claim is None:
                return
            task = asyncio.create_task(self._work(claim), name=f"job {claim.id} {claim.kind}")
            self.running[task] = jobs.LANES[claim.kind]
            task.add_done_callback(self._ended)

    def _count(self, lane: str) -> int:
        return sum(1 for taken in self.running.values() if taken == lane)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        del self.running[task]
        if not task.cancelled() and (error := task.exception()):
            log.error("%s was left as it is", task.get_name(), exc_info=error)

    async def _work(self, claim: Claim) -> None:
        """Run one job under its lease; what it leaves open is due again when the lease ends."""
        beating = asyncio.create_task(self._beat(claim))
        try:
            await self._handle(claim)
        except LeaseLost as lost:
            log.warning("%s", lost)
        finally:
            await cancel(beating)
            await jobs.wake(self.nudges)

    async def _handle(self, claim: Claim) -> None:
        if claim.attempts > jobs.MOST_ATTEMPTS:
            return await pipeline.give_up(self.ports, claim, f"given up after {jobs.MOST_ATTEMPTS} attempts")
        try:
            await pipeline.run(self.ports, claim)
        except LeaseLost:
            raise
        except Unavailable as error:
            log.warning("job %s %s waits: %s", claim.id, claim.kind, error)
            await self.db.write(lambda session: jobs.retry(session, claim, RETRY_AFTER))
        except Exception:
            incident = uuid4().hex[:12]
            log.exception("job %s %s failed, incident %s", claim.id, claim.kind, incident)
            await pipeline.give_up(self.ports, claim, f"internal error, incident {incident}")

    async def _beat(self, claim: Claim) -> None:
        while True:
            await asyncio.sleep(self.settings.lease / 3)
            await jobs.renew(self.db, claim, self.settings.lease)


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
    timers = [("backup", partial(run_timer, _platform(needs)))] if needs.settings.backup_every else []
    async with running(("worker", Worker(needs).run), *timers):
        yield


def _platform(needs: Needs) -> Platform:
    """What is backed up on the timer; raises `Invalid` when the rows are on a server."""
    needs.db.file()
    return Platform(needs.settings, needs.db, needs.keyring, needs.objects)


ROLE = Role("worker", Needs, lifespan)
