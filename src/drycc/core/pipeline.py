"""From a queued build to a release that serves: two jobs, one story.

`build` ends by recording a release and queueing its deploy; `deploy` moves the pointers, applies
them and waits until the roll-out is ready or has failed. Config changes, rollback and deploys by
hand enter at `deploy`; scale and restart at `apply`; `destroy` ends it all. Every step may run
twice.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends.cluster.base import OneOff, Stale
from drycc.core import build_log, builds, deploys, jobs, releases, rollout
from drycc.core.builds import Abandoned
from drycc.core.jobs import Claim
from drycc.core.models import App, Build, Job, User
from drycc.core.pods import Cancelled
from drycc.core.work import Ports, apply_app, close, run_one_off, tell
from drycc.errors import BuildFailed
from drycc.kit.crash import point
from drycc.kit.ids import now


async def run(ports: Ports, job: Claim) -> None:
    """Do what the job says and record how it ended; raises `LeaseLost`, or `Unavailable` to be repeated."""
    await _HANDLERS[job.kind](ports, job)


async def give_up(ports: Ports, job: Claim, reason: str) -> None:
    """Record that the job failed for good."""
    if job.kind == "build":
        await _end_build(ports, job, "failed", reason)
    elif job.kind == "deploy":
        await deploys.give_up(ports, job, reason)
    else:
        await ports.db.write(lambda session: jobs.finish(session, job, "failed", reason=reason))
    await tell(ports)


async def reconcile(ports: Ports) -> None:
    """Tell the cluster again what is desired of every app: what a start does first.

    Those that a job is at are left to it: what it does may be what ended the process before us.
    """
    for row in await ports.db.read(_apps):
        with suppress(Stale):  # another worker was quicker
            await apply_app(ports, row.uuid)


# ---- build


async def build(ports: Ports, job: Claim) -> None:
    row = await ports.db.read_one(_build, id=int(job.key))
    if row is None:
        return await close(ports, job)
    try:
        started = await _start_build(ports, job)
        point("build.started")
        result = await _build_image(ports, job, row, started)
        point("image.built")
        await _record_release(ports, job, row, result)
        point("release.recorded")
    except Cancelled:
        await _end_build(ports, job, "cancelled", "the build was cancelled")
    except Abandoned as failure:
        await _end_build(ports, job, "abandoned", str(failure))
    except BuildFailed as failure:
        await _end_build(ports, job, "failed", str(failure))
    await tell(ports)


async def _start_build(ports: Ports, job: Claim) -> datetime:
    """Gives the moment of its first start; raises `Cancelled` for one that ended while it was queued."""
    id = int(job.key)

    async def body(session: AsyncSession) -> datetime:
        await jobs.check(session, job)
        row = await session.get_one(Build, id)
        if row.state not in builds.OPEN:
            raise Cancelled(row.reason)
        row.state, row.started = "building", row.started or now()
        await build_log.add_lines(session, id, ["Starting build... but first, coffee!"])
        return row.started

    started = await ports.db.write(body, app=job.app_uuid)
    await ports.nudges.send(builds.TOPIC, str(id))
    return started


async def _build_image(ports: Ports, job: Claim, row: Any, started: datetime) -> dict[str, Any]:
    """Run the image builder as a one-off, keep what it prints, and give its result."""
    one_off = OneOff(
        id=f"build-{row.uuid}",
        app=row.app,
        kind="build",
        release=0,
        image=f"{row.app}:{row.id}",
        command="",
        env={},
        timeout=ports.build_timeout,
        source=await ports.objects.path(row.source),
        generation=row.generation,
    )
    exit = await run_one_off(ports, job, row.id, one_off, ())
    if exit.code is None and exit.signal is None:
        raise Abandoned("the build was abandoned: its process is gone and nobody saw it end")
    if exit.signal and exit.at >= started + timedelta(seconds=ports.build_timeout):
        raise BuildFailed(f"the build ran longer than {ports.build_timeout:g} s and was ended")
    result = await ports.cluster.pods.result(one_off.id) if exit.code == 0 else None
    if result is None:
        raise BuildFailed(f"the build failed with {rollout.describe_exit(exit)}")
    return dict(json.loads(result))


async def _record_release(ports: Ports, job: Claim, row: Any, image: Mapping[str, Any]) -> None:
    """The build's end and its release, in one transaction, on the latest config at this moment."""

    async def body(session: AsyncSession) -> None:
        app = await session.get_one(App, row.app_uuid)
        if await session.scalar(sa.select(Job.cancel_requested).where(Job.id == job.id)):
            raise Cancelled("cancelled")  # who asked was told that it was not too late
        built = await session.get_one(Build, row.id)
        built.state, built.image, built.digest = "succeeded", f"{app.id}:{row.id}", image["digest"]
        config = (await releases.latest(session, app)).config_uuid
        summary = f"{row.username} deployed {built.sha[:7]}"
        release = await releases.record(
            session, app.uuid, row.user_id, build_id=row.id, config_uuid=config, summary=summary
        )
        built.release_uuid = release.uuid
        lines = ["Build complete.", f"-----> Releasing v{release.version}"]
        if app.autodeploy:
            await releases.queue_deploy(session, release, build=row.id)
        else:
            lines.append("-----> Not deployed: autodeploy is off, use `drycc releases deploy`")
            built.finished = now()
        await build_log.add_lines(session, row.id, lines)
        await jobs.finish(session, job, "succeeded", release=release.version)
        point("release.recording")

    await ports.db.write(body, app=row.app_uuid)
    await ports.cluster.pods.forget(f"build-{row.uuid}")
    await ports.objects.delete(row.source)
    await jobs.wake(ports.nudges)


async def _end_build(ports: Ports, job: Claim, state: str, reason: str) -> None:
    """Record an end without a release; nothing of the build is left but its row and its log."""
    row = await ports.db.read_one(_build, id=int(job.key))
    if row is not None:
        await ports.cluster.pods.cancel(f"build-{row.uuid}")

    async def body(session: AsyncSession) -> None:
        build = await session.get(Build, int(job.key))
        if build is not None and build.state in builds.OPEN:
            app = await session.get_one(App, build.app_uuid)
            builds.end(build, state, "the app was destroyed" if app.is_destroyed else reason)
        await jobs.finish(session, job, state, reason=reason)

    await ports.db.write(body)
    await ports.nudges.send(builds.TOPIC, job.key)
    if row is not None:
        await ports.cluster.pods.forget(f"build-{row.uuid}")
        await ports.objects.delete(row.source)


# ---- apply, destroy


async def apply(ports: Ports, job: Claim) -> None:
    """Make pods match the pointers after a scale or a restart; the cluster goes on from there."""
    await apply_app(ports, job.app_uuid, job)
    await close(ports, job)


async def destroy(ports: Ports, job: Claim) -> None:
    """Remove all of the app; its row, and with it this job, goes last."""
    row = await ports.db.read_one(sa.select(App.id, App.generation).where(App.uuid == job.app_uuid))
    if row is None:
        return
    await jobs.confirm(ports.db, job)
    await ports.cluster.workloads.remove(row.id, row.generation)
    point("app.removing")
    await ports.logs.forget(row.id)
    for key in await ports.objects.list(f"sources/{job.app_uuid}/"):
        await ports.objects.delete(key)
    point("app.removed")

    async def body(session: AsyncSession) -> None:
        await jobs.check(session, job)
        await session.execute(sa.delete(App).where(App.uuid == job.app_uuid))

    await ports.db.write(body, app=job.app_uuid)
    await ports.nudges.send("apps", str(job.app_uuid))
    await tell(ports)


_HANDLERS: dict[str, Callable[[Ports, Claim], Awaitable[None]]] = {
    "build": build,
    "deploy": deploys.deploy,
    "apply": apply,
    "destroy": destroy,
}
_is_at_work = sa.exists().where(Job.app_uuid == App.uuid, Job.lane == "deploy", Job.state == "running")
_apps = sa.select(App.uuid).where(~App.is_destroyed, ~_is_at_work).order_by(App.id)
_build = (
    sa.select(
        Build.id,
        Build.uuid,
        Build.app_uuid,
        Build.user_id,
        Build.state,
        Build.source,
        App.id.label("app"),
        App.generation,
        User.username,
    )
    .join(App, App.uuid == Build.app_uuid)
    .join(User, User.id == Build.user_id)
    .where(Build.id == sa.bindparam("id"), ~App.is_destroyed)
)
