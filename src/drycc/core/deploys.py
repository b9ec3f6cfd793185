"""The second job of the pipeline: pointers move to a release, pods follow, the outcome is recorded."""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends.cluster.base import OneOff
from drycc.core import jobs, outcomes, releases, rollout, workloads
from drycc.core.jobs import Claim
from drycc.core.models import App, Build, Config, Job, Release, Workload
from drycc.core.output import show_lines
from drycc.core.pods import Cancelled
from drycc.core.work import Ports, apply_app, close, run_one_off, tell
from drycc.errors import BuildFailed
from drycc.kit.aio import cancel, within
from drycc.kit.crash import point
from drycc.kit.ids import now

LAST_LINES = 20  # of a failed pod, shown to the pusher
LOOK_AGAIN = 1.0  # seconds: a nudge between processes may be lost


async def deploy(ports: Ports, job: Claim) -> None:
    """Roll a recorded release out; goes on after the pointers have moved when it is repeated."""
    row = await ports.db.read_one(_release, release=UUID(job.key))
    if row is None or row.is_destroyed:
        return await close(ports, job)
    if "former" not in job.result:
        if (newer := await _find_newer(ports, job)) is not None:
            return await outcomes.supersede(ports, job, newer)
        await outcomes.say(ports, job, "Launching App...")
        if not await _release_step(ports, job, row):
            return await tell(ports)
        await _move_pointers(ports, job, row)
        point("pointers.moved")
    await _forget_step(ports, job, row)
    told = await apply_app(ports, job.app_uuid, job)
    point("deploy.applied")
    await _settle(ports, job, row, told)
    await tell(ports)


async def _release_step(ports: Ports, job: Claim, row: Any) -> bool:
    """Run the Procfile's `release` line, for a push only; the job ends with one that fails: False."""
    if not _find_step(job, row):
        return True
    try:
        await _run_step(ports, job, row)
    except Cancelled:
        await outcomes.finish_taken_over(ports, job)
    except BuildFailed as failure:
        await outcomes.record_crash(ports, job, str(failure), {}, is_rolled_back=False)
    else:
        return True
    await _forget_step(ports, job, row)
    return False


async def _run_step(ports: Ports, job: Claim, row: Any) -> None:
    command = _find_step(job, row)
    await outcomes.say(ports, job, f"-----> Running release step: {command}")
    values = workloads.open_values(row, ports.keyring)
    one_off = OneOff(
        id=_name_step(row),
        app=row.id,
        kind="release",
        release=row.version,
        image=row.image,
        command=command,
        env=workloads.make_environment(row, values, releases.RELEASE_STEP),
        timeout=ports.release_timeout,
        generation=row.generation,
    )
    masked = [item["value"] for item in values]
    exit = await run_one_off(ports, job, job.payload["build"], one_off, masked)
    if exit.code != 0:
        raise BuildFailed(f"the release step ended with {rollout.describe_exit(exit)}")


async def _forget_step(ports: Ports, job: Claim, row: Any) -> None:
    """Only when what came of it is recorded: before, it would be run again."""
    if _find_step(job, row):
        await ports.cluster.pods.forget(_name_step(row))


def _find_step(job: Claim, row: Any) -> str:
    """The command of the release step, "" when there is none to run."""
    return row.procfile.get(releases.RELEASE_STEP, "") if job.payload["build"] is not None else ""


def _name_step(row: Any) -> str:
    return f"release-{row.release_uuid}"


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
        point("pointers.moving")

    await ports.db.write(body, app=job.app_uuid)
    await outcomes.say(
        ports, job, f"-----> Deploying {', '.join(job.result['moved']) or 'nothing: no process type changed'}"
    )


async def _settle(ports: Ports, job: Claim, row: Any, told: int) -> None:
    """Wait until the roll-out is over and record what came of it."""
    try:
        decision = await _wait_for_pods(ports, job, row, told)
    except Cancelled:
        return await outcomes.finish_taken_over(ports, job)
    if isinstance(decision, rollout.Ready):
        return await outcomes.record_success(ports, job, row)
    tail = await ports.cluster.pods.tail(decision.pod, LAST_LINES) if decision.pod else []
    values = [item["value"] for item in workloads.open_values(row, ports.keyring)]
    lines = [f"       {decision.ptype}: {line}" for line in show_lines(tail, values)]
    await outcomes.say(ports, job, *([f"-----> Last lines of {decision.pod}:", *lines] if lines else []))
    await outcomes.record_crash(
        ports, job, decision.reason, outcomes.find_former(job), is_rolled_back=decision.is_rolled_back
    )


async def give_up(ports: Ports, job: Claim, reason: str) -> None:
    """The deploy cannot go on, wherever it stands: what has moved goes back, or is held."""
    can_roll_back = job.result.get("can_roll_back", False)
    await outcomes.record_crash(ports, job, reason, outcomes.find_former(job), is_rolled_back=can_roll_back)


async def _wait_for_pods(ports: Ports, job: Claim, row: Any, told: int) -> rollout.Ready | rollout.Failed:
    """Look whenever the cluster says that something changed, until there is a decision.

    `told` is the generation that the cluster knows. A scale or a restart that comes meanwhile is told here,
    since its own job waits for this one.
    """
    started, changed = now(), asyncio.Event()
    watching = asyncio.create_task(_watch(ports, row.id, changed))
    try:
        while True:
            changed.clear()
            if await jobs.is_cancelled(ports.db, job):
                raise Cancelled("taken over by a newer deploy")
            rows = await ports.db.read(_counts, app=job.app_uuid)
            if any(one.generation != told for one in rows):
                told = await apply_app(ports, job.app_uuid, job)
                continue
            desired = _desired(ports, job, row, {one.ptype: one.replicas for one in rows}, started)
            decision = rollout.step(desired, await ports.cluster.workloads.observe(row.id), now())
            if not isinstance(decision, rollout.Wait):
                return decision
            await within(min(decision.seconds, LOOK_AGAIN), changed.wait())
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


def _desired(
    ports: Ports, job: Claim, row: Any, counts: Mapping[str, int], started: datetime
) -> rollout.Desired:
    replicas = {ptype: count for ptype, count in counts.items() if ptype in job.result["moved"]}
    return rollout.Desired(replicas, row.version, started, ports.deploy_timeout, job.result["can_roll_back"])


async def _find_newer(ports: Ports, job: Claim) -> int | None:
    """The newest deploy that waits and does all that this one would do."""

    def does(newer: dict[str, Any]) -> bool:
        is_whole = not newer["ptypes"]
        is_wider = is_whole or (mine["ptypes"] and set(mine["ptypes"]) <= set(newer["ptypes"]))
        return bool(is_wider and newer["force"] >= mine["force"])

    mine = job.payload
    rows = await ports.db.read(_newer_deploys, app=job.app_uuid, id=job.id)
    return next((row.id for row in rows if does(row.payload)), None)


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
_counts = (
    sa.select(Workload.ptype, Workload.replicas, App.generation)
    .join(App, App.uuid == Workload.app_uuid)
    .where(Workload.app_uuid == sa.bindparam("app"))
)
