"""How a deploy ends: recorded in one transaction with what it means for pointers, pusher and queue."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.core import build_log, builds, jobs, releases, workloads
from drycc.core.jobs import Claim
from drycc.core.models import App, Build, Job, Release, Workload
from drycc.core.work import Ports, log_line, tell
from drycc.kit.crash import point
from drycc.kit.ids import now


async def record_success(ports: Ports, job: Claim, row: Any) -> None:
    """The release serves; process types that it does not have any more go."""

    async def body(session: AsyncSession) -> None:
        app = await session.get_one(App, job.app_uuid)
        release = await session.get_one(Release, row.release_uuid)
        releases.succeed(release, job.result["moved"])
        gone = await workloads.drop_vanished(session, app, release) if app.autodeploy else []
        await _end_pushed(session, job, "")
        await _add_lines(
            session,
            job,
            [
                f"Done, {app.id}:v{release.version} deployed to Workflow",
                f"-----> {app.id} v{release.version} {await _describe_place(ports, session, app)}",
            ],
        )
        await jobs.finish(session, job, "succeeded")
        if gone:
            await jobs.queue(session, "apply", job.app_uuid)
        point("outcome.recording")

    await ports.db.write(body, app=job.app_uuid)
    point("outcome.recorded")
    await log_line(ports, row.id, f"INFO {row.summary}, v{row.version} is live")
    await _collect(ports)


async def _describe_place(ports: Ports, session: AsyncSession, app: App) -> str:
    web = sa.select(Workload.replicas).where(Workload.app_uuid == app.uuid, Workload.ptype == "web")
    if not await session.scalar(web):
        return "is deployed; it has no web process"
    return f"is live at http://{app.id}.{ports.domain}:{ports.edge_port}"


async def record_crash(
    ports: Ports,
    job: Claim,
    reason: str,
    former: Mapping[str, workloads.Former],
    *,
    is_rolled_back: bool,
) -> None:
    """The release failed: put the pointers back, or hold them where they are."""

    async def body(session: AsyncSession) -> tuple[str, int]:
        app = await session.get_one(App, job.app_uuid)
        release = await session.get_one(Release, UUID(job.key))
        releases.crash(release, sorted(former), reason)
        if is_rolled_back:
            await workloads.put_back(session, app, former)
        else:
            await workloads.hold(session, app, former)
        await _end_pushed(session, job, f"v{release.version} failed: {reason}")
        await jobs.finish(session, job, "failed", reason=reason)
        if former:
            await jobs.queue(session, "apply", job.app_uuid)
        point("outcome.recording")
        return app.id, release.version

    app, version = await ports.db.write(body, app=job.app_uuid)
    point("outcome.recorded")
    await log_line(ports, app, f"ERROR v{version} failed: {reason}")


async def finish_taken_over(ports: Ports, job: Claim) -> None:
    """The pointers go back for the next deploy to move: it must not return to what never was ready."""

    async def body(session: AsyncSession) -> None:
        app = await session.get_one(App, job.app_uuid)
        await workloads.put_back(session, app, find_former(job))
        reason = "the app was destroyed" if app.is_destroyed else "a newer deploy has taken over"
        await _end_pushed(session, job, reason)
        await jobs.finish(session, job, "cancelled")
        await jobs.queue(session, "apply", job.app_uuid)

    await ports.db.write(body, app=job.app_uuid)


async def supersede(ports: Ports, job: Claim, newer: int) -> None:
    """A newer release waits already: its deploy does for both, with the pusher if the build is the same."""

    async def body(session: AsyncSession) -> None:
        other = await session.get_one(Job, newer)
        release = await session.get_one(Release, UUID(other.key))
        pushed = job.payload["build"]
        if pushed is not None and release.build_id == pushed and other.state == "queued":
            other.payload = other.payload | {"build": pushed}
        else:
            await _end_pushed(session, job, "superseded by a newer release")
        await jobs.finish(session, job, "superseded")

    await ports.db.write(body, app=job.app_uuid)
    await tell(ports)


async def say(ports: Ports, job: Claim, *lines: str) -> None:
    """Tell the pusher who waits for this release, if there is one."""

    async def body(session: AsyncSession) -> None:
        await jobs.check(session, job)
        await _add_lines(session, job, lines)

    if job.payload["build"] is not None and lines:
        await ports.db.write(body)
        await ports.nudges.send(builds.TOPIC, str(job.payload["build"]))


def find_former(job: Claim) -> dict[str, workloads.Former]:
    """Where the pointers stood that this job has moved."""
    return {ptype: workloads.Former.parse(stood) for ptype, stood in job.result.get("former", {}).items()}


async def _end_pushed(session: AsyncSession, job: Claim, reason: str) -> None:
    """The pusher of this release's build, if there is one, waits no longer."""
    if job.payload["build"] is not None:
        row = await session.get_one(Build, job.payload["build"])
        row.finished, row.reason = now(), reason


async def _add_lines(session: AsyncSession, job: Claim, lines: Sequence[str]) -> None:
    if job.payload["build"] is not None:
        await build_log.add_lines(session, job.payload["build"], lines)


async def _collect(ports: Ports) -> None:
    """Let the cluster remove images that no release refers to any more."""
    kept: dict[str, set[int]] = {}
    for row in await ports.db.read(_images):
        kept.setdefault(row.id, set()).add(row.build_id)
    await ports.cluster.pods.collect({app: frozenset(ids) for app, ids in kept.items()})


_other = sa.orm.aliased(Release)
_is_newest = ~sa.exists().where(_other.app_uuid == Release.app_uuid, _other.version > Release.version)
_is_pointed_at = sa.exists().where(Workload.release_uuid == Release.uuid)
_images = (
    sa.select(App.id, Release.build_id)
    .join(Release, Release.app_uuid == App.uuid)
    .where(Release.build_id.is_not(None), sa.or_(~Release.failed, _is_newest, _is_pointed_at))
    .distinct()
)
