"""What every job's handler works with, and the few things that all of them do."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa

from drycc.backends.cluster.base import Cluster, Exit, OneOff
from drycc.backends.db import Database
from drycc.backends.logstore.base import Line, LogStore
from drycc.backends.nudges.base import Nudges
from drycc.backends.objects.base import ObjectStore
from drycc.core import builds, jobs, pods, workloads
from drycc.core.jobs import Claim
from drycc.core.models import App
from drycc.core.secrets import Keyring
from drycc.errors import Unavailable
from drycc.kit.crash import point
from drycc.kit.ids import now

log = logging.getLogger("drycc.worker")


@dataclass(frozen=True, slots=True)
class Ports:
    """What the pipeline works with, and its limits in seconds."""

    db: Database
    keyring: Keyring
    cluster: Cluster
    objects: ObjectStore
    nudges: Nudges
    logs: LogStore
    domain: str
    edge_port: int
    grace: float
    deploy_timeout: float
    release_timeout: float
    build_timeout: float


async def apply_app(ports: Ports, app: UUID, job: Claim | None = None) -> int:
    """Tell the cluster what is desired of the app, nothing for one that is gone; gives the generation told.

    The workloads go first, since they are what is refused to somebody who comes late (`Stale`).
    """
    spec = await workloads.load_spec(ports.db, ports.keyring, app, ports.grace)
    row = await ports.db.read_one(sa.select(App.routable).where(App.uuid == app))
    if spec is None or row is None:
        return 0
    if job is not None:
        await jobs.confirm(ports.db, job)
    table = workloads.route_table(spec.app, ports.domain, is_routable=row.routable)
    await ports.cluster.workloads.apply(spec)
    point("app.applying")
    await ports.cluster.routes.apply(table)
    return spec.generation


async def close(ports: Ports, job: Claim) -> None:
    """End a job that has nothing to record, or nothing left to do."""
    await ports.db.write(lambda session: jobs.finish(session, job, "succeeded"))
    await tell(ports)


async def run_one_off(
    ports: Ports, job: Claim, build_id: int, one_off: OneOff, secrets: Sequence[str]
) -> Exit:
    """Run a one-off to its end; its output goes to the pusher."""
    kept = pods.Kept(ports.db, ports.nudges, build_id, secrets)
    return await pods.run_one_off(ports.cluster.pods, kept, job, one_off)


async def log_line(ports: Ports, app: str, text: str) -> None:
    """One platform line into the app's own log; what it tells stays true where it cannot be kept."""
    try:
        await ports.logs.append(app, [Line(now(), "platform", text)])
    except Unavailable as error:
        log.warning("a line for %s is not kept (%s): %s", app, error, text)


async def tell(ports: Ports) -> None:
    """Whoever follows a build, and whoever takes jobs, looks again."""
    await ports.nudges.send(builds.TOPIC, "look")
    await jobs.wake(ports.nudges)
