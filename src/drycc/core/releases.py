"""Releases: recorded with the next number, deployed by a job, rolled back to by a new one."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends.cluster.base import Pods
from drycc.backends.db import Database
from drycc.backends.nudges.base import Nudges
from drycc.core import jobs, procfile
from drycc.core.models import App, Build, Job, Release, Workload
from drycc.errors import Invalid
from drycc.kit.ids import now

RELEASE_STEP = "release"  # this name in a Procfile is a step before the roll-out and no process type
RESERVED = (procfile.ONE_OFF, RELEASE_STEP)


async def record(
    session: AsyncSession, app: UUID, user_id: int, *, build_id: int | None, config_uuid: UUID, summary: str
) -> Release:
    """Add the app's next release; the caller holds `write(app)`, so numbers have no gap and no double."""
    newest = await session.scalar(sa.select(sa.func.max(Release.version)).where(Release.app_uuid == app))
    release = Release(
        app_uuid=app,
        user_id=user_id,
        version=(newest or 0) + 1,
        build_id=build_id,
        config_uuid=config_uuid,
        summary=summary,
    )
    session.add(release)
    await session.flush()
    return release


async def latest(session: AsyncSession, app: App) -> Release:
    """The release that reads, merges and scale start from: the newest that has not failed.

    With autorollback off it is simply the newest.
    """
    query = _of_app(app.uuid)
    if app.autorollback:
        query = query.where(~Release.failed)
    return (await session.scalars(query)).first() or await _first(session, app.uuid)


async def _first(session: AsyncSession, app: UUID) -> Release:
    return (await session.scalars(_of_app(app).where(Release.version == 1))).one()


async def newest(session: AsyncSession, app: UUID) -> Release:
    return (await session.scalars(_of_app(app))).first() or await _first(session, app)


async def previous(session: AsyncSession, app: App, release: Release) -> Release | None:
    """What `release` is compared with: the newest other one that succeeded, or just the newest other one."""
    query = _of_app(app.uuid).where(Release.uuid != release.uuid)
    if app.autorollback:
        query = query.where(~Release.failed, Release.state == "succeed")
    return (await session.scalars(query)).first()


async def deploy(db: Database, nudges: Nudges, app: UUID, ptypes: Sequence[str], *, force: bool) -> None:
    """Queue a deploy of the newest release; no `ptypes` means all of its process types.

    Raises `Invalid` with the contract's texts. With `force` a running deploy is taken over.
    """

    async def body(session: AsyncSession) -> None:
        release = await newest(session, app)
        if release.build_id is None:
            raise Invalid("there are no builds available for deploy")
        await _check_ptypes(session, app, release.build_id, ptypes)
        await _check_running(session, app, ptypes, force=force)
        await queue_deploy(session, release, ptypes=ptypes, force=True)

    await db.write(body, app=app)
    await jobs.wake(nudges)


async def rollback(
    db: Database,
    nudges: Nudges,
    pods: Pods,
    app_uuid: UUID,
    user: tuple[int, str],
    version: int | None,
    ptypes: Sequence[str],
) -> int:
    """Record a release with an earlier one's build and config and queue its deploy; gives its number.

    `user` is id and name; `version` None means the one before the latest. Raises `Invalid`, also
    when the image is gone, before anything is touched.
    """
    user_id, username = user

    async def find(session: AsyncSession) -> tuple[int, str | None]:
        target = await _target(session, app_uuid, version)
        if target.build_id is None:
            return target.version, None
        await _check_ptypes(session, app_uuid, target.build_id, ptypes, text=NOT_INCLUDED)
        return target.version, (await session.get_one(Build, target.build_id)).image

    async def body(session: AsyncSession) -> int:
        target = await _target(session, app_uuid, number)
        release = await record(
            session,
            app_uuid,
            user_id,
            build_id=target.build_id,
            config_uuid=target.config_uuid,
            summary=f"{username} rolled back to v{number}",
        )
        if release.build_id is not None:
            await jobs.take_back(session, app_uuid)
            await queue_deploy(session, release, ptypes=ptypes, force=True)
        return release.version

    number, image = await db.write(find, app=app_uuid)
    if image is not None and not await pods.has_image(image):
        raise Invalid(f"The image of v{number} is gone: push its commit again.")
    made = await db.write(body, app=app_uuid)
    await jobs.wake(nudges)
    return made


async def queue_deploy(
    session: AsyncSession,
    release: Release,
    *,
    ptypes: Sequence[str] = (),
    force: bool = False,
    build: int | None = None,
) -> None:
    """Queue the roll-out of a release; `build` is the build whose pusher waits for it."""
    payload = {"ptypes": list(ptypes), "force": force, "build": build}
    await jobs.queue(session, "deploy", release.app_uuid, key=str(release.uuid), payload=payload)


def ptypes_of(lines: dict[str, Any]) -> list[str]:
    """The process types of a build's Procfile; without one there is `web` alone."""
    return [ptype for ptype in lines or ["web"] if ptype not in RESERVED]


def succeed(release: Release, ptypes: Sequence[str]) -> None:
    """Record that the release serves, also one that has failed before."""
    release.state, release.failed, release.exception = "succeed", False, None
    release.deployed_ptypes = sorted({*release.deployed_ptypes, *ptypes})
    _add_condition(release, "succeed", ptypes)


def crash(release: Release, ptypes: Sequence[str], reason: str) -> None:
    """Record that the release failed, and why."""
    release.state, release.failed, release.exception = "crashed", True, f"error: {reason}"
    _add_condition(release, "crashed", ptypes, exception=reason)


NOT_EXISTS = "process type {} is not exists"
NOT_INCLUDED = "process type {} is not included in procfile"


def _add_condition(release: Release, state: str, ptypes: Sequence[str], **more: str) -> None:
    condition = {"state": state, "action": "pipeline", "ptypes": list(ptypes)} | more
    condition["created"] = now().strftime("%Y-%m-%dT%H:%M:%SZ")
    release.conditions = [condition, *release.conditions]


async def _target(session: AsyncSession, app: UUID, version: int | None) -> Release:
    if version is None:
        version = (await latest(session, await session.get_one(App, app))).version - 1
    if version < 1:
        raise Invalid("version cannot be below 0")
    if version == 1:
        raise Invalid("Cannot roll back to initial release.")
    target = (await session.scalars(_of_app(app).where(Release.version == version))).first()
    if target is None:
        raise Invalid("Release matching query does not exist.")
    if target.failed:
        raise Invalid("Cannot roll back to failed release.")
    return target


async def _check_ptypes(
    session: AsyncSession, app: UUID, build_id: int, ptypes: Sequence[str], *, text: str = NOT_EXISTS
) -> None:
    build = await session.get_one(Build, build_id)
    present = await session.scalars(sa.select(Workload.ptype).where(Workload.app_uuid == app))
    unknown = sorted(set(ptypes) - {*ptypes_of(build.procfile), *present})
    if unknown:
        raise Invalid(text.format(",".join(unknown)))


async def _check_running(session: AsyncSession, app: UUID, ptypes: Sequence[str], *, force: bool) -> None:
    running = (await session.scalars(_running_deploy, {"app": app})).all()
    locked = sorted({ptype for job in running for ptype in job.result.get("moved", [])})
    if running and not force and (not ptypes or set(ptypes) & set(locked)):
        shown = f": {locked}" if locked else ""
        raise Invalid(f"there is an executing pipeline, please wait or force deploy{shown}")
    if force:
        await jobs.take_back(session, app)


def _of_app(app: UUID) -> sa.Select[Release]:
    return sa.select(Release).where(Release.app_uuid == app).order_by(Release.version.desc()).limit(1)


_running_deploy = sa.select(Job).where(
    Job.app_uuid == sa.bindparam("app"), Job.kind == "deploy", jobs.IS_UNDER_WAY
)
