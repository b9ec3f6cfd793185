"""From a queued build to a release that serves: two jobs, one story.

`build` ends by recording a release and queueing its deploy; `deploy` moves the pointers, applies
them and waits until the roll-out is ready or has failed. Config changes, rollback and deploys by
hand enter at `deploy`; scale and restart at `apply`; `destroy` ends it all. Every step may run
twice.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends.cluster.base import OneOff
from drycc.core import builds, deploys, jobs, releases, rollout
from drycc.core.jobs import Claim
from drycc.core.models import App, Build, User
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
        await deploys.record_crash(ports, job, reason, {}, is_rolled_back=False)
    else:
        await ports.db.write(lambda session: jobs.finish(session, job, "failed", reason=reason))
    await tell(ports)


async def reconcile(ports: Ports) -> None:
    """Tell the cluster again what is desired of every app: what a start does first."""
    for row in await ports.db.read(_apps):
        await apply_app(ports, row.uuid)


# ---- build


async def build(ports: Ports, job: Claim) -> None:
    id = int(job.key)
    row = await ports.db.read_one(_build, id=id)
    if row is None or row.state not in builds.OPEN:
        return await close(ports, job)
    try:
        await _start_build(ports, id)
        result = await _build_image(ports, job, row)
        await _record_release(ports, job, row, result)
        point("release.recorded")
    except Cancelled:
        await _end_build(ports, job, "cancelled", "the build was cancelled")
    except BuildFailed as failure:
        await _end_build(ports, job, "failed", str(failure))
    await tell(ports)


async def _start_build(ports: Ports, id: int) -> None:
    async def body(session: AsyncSession) -> None:
        row = await session.get_one(Build, id)
        row.state, row.started = "building", row.started or now()
        await builds.add_lines(session, id, ["Starting build... but first, coffee!"])

    await ports.db.write(body)
    await ports.nudges.send(builds.TOPIC, str(id))


async def _build_image(ports: Ports, job: Claim, row: Any) -> dict[str, Any]:
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
    )
    exit = await run_one_off(ports, job, row.id, one_off, ())
    if exit.code is None and exit.signal is None:
        raise BuildFailed("the build was abandoned: its process is gone and nobody saw it end")
    result = await ports.cluster.pods.result(one_off.id) if exit.code == 0 else None
    if result is None:
        raise BuildFailed(f"the build failed with {rollout.describe_exit(exit)}")
    return dict(json.loads(result))


async def _record_release(ports: Ports, job: Claim, row: Any, image: Mapping[str, Any]) -> None:
    """The build's end and its release, in one transaction, on the latest config at this moment."""

    async def body(session: AsyncSession) -> None:
        app = await session.get_one(App, row.app_uuid)
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
        await builds.add_lines(session, row.id, lines)
        await jobs.finish(session, job, "succeeded", release=release.version)

    await ports.db.write(body, app=row.app_uuid)
    await ports.cluster.pods.forget(f"build-{row.uuid}")
    await ports.objects.delete(row.source)
    await jobs.wake(ports.nudges)


async def _end_build(ports: Ports, job: Claim, state: str, reason: str) -> None:
    id = int(job.key)

    async def body(session: AsyncSession) -> str:
        row = await session.get_one(Build, id)
        if row.state in builds.OPEN:
            builds.end(row, state, reason)
        await jobs.finish(session, job, state, reason=reason)
        return row.source

    await ports.objects.delete(await ports.db.write(body))
    await ports.nudges.send(builds.TOPIC, str(id))


# ---- apply, destroy


async def apply(ports: Ports, job: Claim) -> None:
    """Make pods match the pointers after a scale or a restart; the cluster goes on from there."""
    await apply_app(ports, job.app_uuid)
    await close(ports, job)


async def destroy(ports: Ports, job: Claim) -> None:
    """Remove all of the app; its row, and with it this job, goes last."""
    row = await ports.db.read_one(sa.select(App.id).where(App.uuid == job.app_uuid))
    if row is None:
        return
    await ports.cluster.routes.remove(row.id)
    await ports.cluster.workloads.remove(row.id)
    await ports.logs.forget(row.id)
    for key in await ports.objects.list(f"sources/{row.id}/"):
        await ports.objects.delete(key)
    point("app.removed")

    async def body(session: AsyncSession) -> None:
        await session.execute(sa.delete(App).where(App.uuid == job.app_uuid))

    await ports.db.write(body)
    await ports.nudges.send("apps", str(job.app_uuid))
    await tell(ports)


_HANDLERS: dict[str, Callable[[Ports, Claim], Awaitable[None]]] = {
    "build": build,
    "deploy": deploys.deploy,
    "apply": apply,
    "destroy": destroy,
}
_apps = sa.select(App.uuid).where(~App.is_destroyed).order_by(App.id)
_build = (
    sa.select(
        Build.id,
        Build.uuid,
        Build.app_uuid,
        Build.user_id,
        Build.state,
        Build.source,
        App.id.label("app"),
        User.username,
    )
    .join(App, App.uuid == Build.app_uuid)
    .join(User, User.id == Build.user_id)
    .where(Build.id == sa.bindparam("id"), ~App.is_destroyed)
)
