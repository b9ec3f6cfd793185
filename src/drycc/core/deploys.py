"""The second job of the pipeline: pointers move to a release, pods follow, the outcome is recorded."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends.cluster.base import OneOff
from drycc.core import builds, jobs, releases, rollout, workloads
from drycc.core.jobs import Claim
from drycc.core.models import App, Build, Config, Job, Release, Workload
from drycc.core.pods import Cancelled
from drycc.core.secrets import mask
from drycc.core.work import Ports, apply_app, close, log_line, run_one_off, tell
from drycc.errors import BuildFailed
from drycc.kit.aio import cancel, within
from drycc.kit.crash import point
from drycc.kit.ids import now

LAST_LINES = 20  # of a failed pod, shown to the pusher


async def deploy(ports: Ports, job: Claim) -> None:
    """Roll a recorded release out; goes on after the pointers have moved when it is repeated."""
    row = await ports.db.read_one(_release, release=UUID(job.key))
    if row is None or row.is_destroyed:
        return await close(ports, job)
    if "former" not in job.result:
        if (newer := await _find_newer(ports, job)) is not None:
            return await _supersede(ports, job, newer)
        try:
            await _say(ports, job, "Launching App...")
            await _release_step(ports, job, row)
        except Cancelled:
            return await _finish_taken_over(ports, job)
        except BuildFailed as failure:
            await record_crash(ports, job, str(failure), {}, is_rolled_back=False)
            return await tell(ports)
        await _move_pointers(ports, job, row)
        point("pointers.moved")
    await apply_app(ports, job.app_uuid)
    point("deploy.applied")
    await _settle(ports, job, row)
    await tell(ports)


async def _release_step(ports: Ports, job: Claim, row: Any) -> None:
    """Run the Procfile's `release` line, for a push only, before any pointer moves."""
    command = row.procfile.get(releases.RELEASE_STEP)
    if not command or job.payload["build"] is None:
        return
    await _say(ports, job, f"-----> Running release step: {command}")
    values = workloads.open_values(row, ports.keyring)
    one_off = OneOff(
        id=f"release-{row.release_uuid}",
        app=row.id,
        kind="release",
        release=row.version,
        image=row.image,
        command=command,
        env=workloads.make_environment(row, values, releases.RELEASE_STEP),
        timeout=ports.release_timeout,
    )
    masked = [item["value"] for item in values]
    exit = await run_one_off(ports, job, job.payload["build"], one_off, masked)
    await ports.cluster.pods.forget(one_off.id)
    if exit.code != 0:
        raise BuildFailed(f"the release step ended with {rollout.describe_exit(exit)}")


async def _move_pointers(ports: Ports, job: Claim, row: Any) -> None:
    async def body(session: AsyncSession) -> None:
        app = await session.get_one(App, job.app_uuid)
        release = await session.get_one(Release, row.release_uuid)
        payload = job.payload
        former = await workloads.move(
            session, ports.keyring, app, release, payload["ptypes"], force=payload["force"]
        )
        before = await releases.previous(session, app, release)
        await jobs.note(
            session,
            job,
            former={ptype: stood.dump() for ptype, stood in former.items()},
            moved=sorted(former),
            can_roll_back=app.autorollback and before is not None and before.build_id is not None,
        )

    await ports.db.write(body, app=job.app_uuid)
    await _say(
        ports, job, f"-----> Deploying {', '.join(job.result['moved']) or 'nothing: no process type changed'}"
    )


async def _settle(ports: Ports, job: Claim, row: Any) -> None:
    """Wait until the roll-out is over and record what came of it."""
    try:
        decision = await _wait_for_pods(ports, job, row)
    except Cancelled:
        return await _finish_taken_over(ports, job)
    if isinstance(decision, rollout.Ready):
        return await _record_success(ports, job, row)
    tail = await ports.cluster.pods.tail(decision.pod, LAST_LINES) if decision.pod else []
    masked = [item["value"] for item in workloads.open_values(row, ports.keyring)]
    lines = [f"       {decision.ptype}: {mask(line, masked)}" for line in tail]
    await _say(ports, job, *([f"-----> Last lines of {decision.pod}:", *lines] if lines else []))
    former = {ptype: workloads.Former.parse(stood) for ptype, stood in job.result["former"].items()}
    await record_crash(ports, job, decision.reason, former, is_rolled_back=decision.is_rolled_back)
    await apply_app(ports, job.app_uuid)


async def _wait_for_pods(ports: Ports, job: Claim, row: Any) -> rollout.Ready | rollout.Failed:
    """Look whenever the cluster says that something changed, until there is a decision."""
    started, changed = now(), asyncio.Event()
    watching = asyncio.create_task(_watch(ports, row.id, changed))
    try:
        while True:
            changed.clear()
            if await jobs.is_cancelled(ports.db, job):
                raise Cancelled("taken over by a newer deploy")
            desired = await _desired(ports, job, row, started)
            decision = rollout.step(desired, await ports.cluster.workloads.observe(row.id), now())
            if not isinstance(decision, rollout.Wait):
                return decision
            await within(decision.seconds, changed.wait())
    finally:
        await cancel(watching)


async def _watch(ports: Ports, app: str, changed: asyncio.Event) -> None:
    """Set the event when the app's pods or any job changed."""

    async def observations() -> None:
        async with aclosing(ports.cluster.workloads.changes()) as names:  # type: ignore[type-var]
            async for name in names:
                if name == app:
                    changed.set()

    async def requests() -> None:
        async with ports.nudges.subscribe(jobs.TOPIC) as nudged:
            async for _ in nudged:
                changed.set()

    await asyncio.gather(observations(), requests())


async def _desired(ports: Ports, job: Claim, row: Any, started: Any) -> rollout.Desired:
    """Replicas as they are wanted now: a scale may have come between."""
    rows = await ports.db.read(_replicas, app=job.app_uuid)
    replicas = {row.ptype: row.replicas for row in rows if row.ptype in job.result["moved"]}
    return rollout.Desired(replicas, row.version, started, ports.deploy_timeout, job.result["can_roll_back"])


async def _record_success(ports: Ports, job: Claim, row: Any) -> None:
    async def body(session: AsyncSession) -> list[str]:
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
        return gone

    if await ports.db.write(body, app=job.app_uuid):
        await apply_app(ports, job.app_uuid)
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

    async def body(session: AsyncSession) -> None:
        app = await session.get_one(App, job.app_uuid)
        release = await session.get_one(Release, UUID(job.key))
        releases.crash(release, sorted(former), reason)
        if is_rolled_back:
            await workloads.put_back(session, app, former)
        else:
            await workloads.hold(session, app, former)
        await _end_pushed(session, job, f"v{release.version} failed: {reason}")
        await jobs.finish(session, job, "failed", reason=reason)

    await ports.db.write(body, app=job.app_uuid)
    if row := await ports.db.read_one(_release, release=UUID(job.key)):
        await log_line(ports, row.id, f"ERROR v{row.version} failed: {reason}")


async def _finish_taken_over(ports: Ports, job: Claim) -> None:
    async def body(session: AsyncSession) -> None:
        app = await session.get_one(App, job.app_uuid)
        reason = "the app was destroyed" if app.is_destroyed else "a newer deploy has taken over"
        await _end_pushed(session, job, reason)
        await jobs.finish(session, job, "cancelled")

    await ports.db.write(body, app=job.app_uuid)
    await tell(ports)


async def _find_newer(ports: Ports, job: Claim) -> int | None:
    """The newest deploy of all process types that waits behind this one."""
    waiting = await ports.db.read(_newer_deploys, app=job.app_uuid, id=job.id)
    return next((row.id for row in waiting if not row.payload["ptypes"]), None)


async def _supersede(ports: Ports, job: Claim, newer: int) -> None:
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


async def _end_pushed(session: AsyncSession, job: Claim, reason: str) -> None:
    """The pusher of this release's build, if there is one, waits no longer."""
    if job.payload["build"] is not None:
        row = await session.get_one(Build, job.payload["build"])
        row.finished, row.reason = now(), reason


async def _say(ports: Ports, job: Claim, *lines: str) -> None:
    """Tell the pusher who waits for this release, if there is one."""
    if job.payload["build"] is not None and lines:
        await ports.db.write(lambda session: _add_lines(session, job, lines))
        await ports.nudges.send(builds.TOPIC, str(job.payload["build"]))


async def _add_lines(session: AsyncSession, job: Claim, lines: Sequence[str]) -> None:
    if job.payload["build"] is not None:
        await builds.add_lines(session, job.payload["build"], lines)


async def _collect(ports: Ports) -> None:
    """Let the cluster remove images that no release refers to any more."""
    kept: dict[str, set[int]] = {}
    for row in await ports.db.read(_images):
        kept.setdefault(row.id, set()).add(row.build_id)
    await ports.cluster.pods.collect({app: frozenset(ids) for app, ids in kept.items()})


_release = (
    sa.select(*workloads.COLUMNS, App.is_destroyed)
    .select_from(Release)
    .join(App, App.uuid == Release.app_uuid)
    .join(Build, Build.id == Release.build_id)
    .join(Config, Config.uuid == Release.config_uuid)
    .where(Release.uuid == sa.bindparam("release"))
)
_newer_deploys = (
    sa.select(Job.id, Job.payload)
    .where(
        Job.app_uuid == sa.bindparam("app"),
        Job.kind == "deploy",
        Job.state == "queued",
        Job.id > sa.bindparam("id"),
    )
    .order_by(Job.id.desc())
)
_replicas = sa.select(Workload.ptype, Workload.replicas).where(Workload.app_uuid == sa.bindparam("app"))
_other = sa.orm.aliased(Release)
_is_newest = ~sa.exists().where(_other.app_uuid == Release.app_uuid, _other.version > Release.version)
_is_pointed_at = sa.exists().where(Workload.release_uuid == Release.uuid)
_images = (
    sa.select(App.id, Release.build_id)
    .join(Release, Release.app_uuid == App.uuid)
    .where(Release.build_id.is_not(None), sa.or_(~Release.failed, _is_newest, _is_pointed_at))
    .distinct()
)
