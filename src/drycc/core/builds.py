"""Builds: queued by a push, followed line by line, cancelled while nothing was released."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends.db import Database
from drycc.backends.nudges.base import LOST, Nudges
from drycc.core import build_log, jobs
from drycc.core.build_log import Page
from drycc.core.models import Build, Job, Release, User
from drycc.errors import BuildFailed, Conflict, NotFound, Unavailable
from drycc.kit.aio import within
from drycc.kit.crash import point
from drycc.kit.ids import now

TOPIC = "builds"
LOOK_AGAIN = 1.0  # seconds: nudges between processes may be lost
PATIENCE = 60.0  # seconds for which the database may be away from who follows
PAGE = 200  # lines a statement
OPEN = ("queued", "building")


@dataclass(frozen=True, slots=True)
class Source:
    """What a push asks to build. `key` is the source's key in the ObjectStore."""

    sha: str
    stack: str
    key: str
    procfile: dict[str, str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a build. Succeeded: its release serves, or waits to be deployed by hand.

    `text` says why it has not.
    """

    is_over: bool
    has_succeeded: bool
    text: str
    release: int | None


class Abandoned(BuildFailed):
    """Its process is gone and nobody saw how it ended."""

    code = "abandoned"


async def queue(
    db: Database, nudges: Nudges, app: UUID, user_id: int, source: Source, *, slots: int | None = None
) -> int:
    """Record a build and its job; a build of the app that still waits is superseded. Gives the build's id.

    `slots` is how many builds run at once on this node; the log says what the build waits for.
    """

    async def body(session: AsyncSession) -> int:
        build = Build(
            app_uuid=app,
            user_id=user_id,
            sha=source.sha,
            stack=source.stack,
            source=source.key,
            procfile=source.procfile,
        )
        session.add(build)
        await session.flush()
        await _supersede_waiting(session, app, build.id)
        await jobs.queue(session, "build", app, key=str(build.id))
        await build_log.add_lines(session, build.id, await _say_ahead(session, app, build.id, slots))
        point("build.queueing")
        return build.id

    id = await db.write(body, app=app)
    point("build.queued")
    await nudges.send(TOPIC, "look")
    await jobs.wake(nudges)
    return id


async def follow(db: Database, nudges: Nudges, id: int) -> AsyncIterator[str]:
    """The build's lines from the first on, until the build and the roll-out of its release are over.

    Nothing is held while the reader takes a line, and none is lost while the database is away.
    """
    cursor = ""
    while True:
        page = await _poll_patiently(db, nudges, id, cursor)
        for line in page.lines:
            yield line.text
        if page.is_over:
            return
        cursor = page.cursor


async def poll(
    db: Database,
    nudges: Nudges,
    id: int,
    cursor: str,
    limit: int,
    *,
    wait: float,
    is_closing: Callable[[], bool] = lambda: False,
) -> Page:
    """A page of the build's log; waits up to `wait` seconds for the first line after the cursor."""
    until = monotonic() + wait
    async with nudges.subscribe(TOPIC) as nudged:
        while True:
            page = await build_log.read(db, id, cursor, limit)
            left = until - monotonic()
            if page.lines or page.is_over or left <= 0 or is_closing():
                return page
            await within(min(LOOK_AGAIN, left), _hear(nudged, id))


async def _poll_patiently(db: Database, nudges: Nudges, id: int, cursor: str) -> Page:
    """Raises `Unavailable` when the database has been away for `PATIENCE` seconds."""
    until = monotonic() + PATIENCE
    while True:
        try:
            return await poll(db, nudges, id, cursor, PAGE, wait=PATIENCE)
        except Unavailable:
            if monotonic() > until:
                raise
        await asyncio.sleep(LOOK_AGAIN)


async def _hear(nudged: AsyncIterator[str], id: int) -> None:
    """Until a nudge says that there may be news of this build."""
    async for heard in nudged:
        if heard in (str(id), "look", LOST):
            return


async def outcome(db: Database, id: int) -> Outcome:
    """What is known of the build now; a build that was removed with its app is over."""
    row = await db.read_one(_outcome, id=id)
    if row is None:
        return Outcome(is_over=True, has_succeeded=False, text="the app was destroyed", release=None)
    has_succeeded = row.finished is not None and row.state == "succeeded" and not row.reason
    return Outcome(row.finished is not None, has_succeeded, row.reason, row.version)


async def cancel(db: Database, nudges: Nudges, id: int, reason: str) -> None:
    """Ask that the build ends, while it is queued or building.

    Raises `Conflict` when it is too late, from the release on, and `NotFound`.
    """

    async def body(session: AsyncSession) -> None:
        build = await session.get_one(Build, id)
        if build.state not in OPEN:
            raise Conflict(await _say_too_late(session, build))
        job = (await session.scalars(_job_of, {"id": str(id)})).one()
        job.cancel_requested, build.reason = True, reason
        if job.state == "queued":  # it runs nevertheless, and tidies up
            end(build, "cancelled", reason)

    row = await db.read_one(sa.select(Build.app_uuid).where(Build.id == id))
    if row is None:
        raise NotFound("No Build matches the given query.")
    await db.write(body, app=row.app_uuid)
    await jobs.wake(nudges)
    await nudges.send(TOPIC, "look")


def end(build: Build, state: str, reason: str) -> None:
    """Record how the build ended; a reason that was given with a cancellation stays."""
    build.reason = build.reason or reason
    build.state, build.finished = state, now()


def find_duration(started: datetime | None, ended: datetime | None) -> float | None:
    """Seconds for which a build ran, or has run until now; None for one that never started."""
    return round(((ended or now()) - started).total_seconds(), 3) if started else None


async def _say_ahead(session: AsyncSession, app: UUID, id: int, slots: int | None) -> list[str]:
    row = (await session.execute(_ahead, {"id": id, "slots": slots})).one()
    if row.app_ahead:
        running = await session.scalar(_running, {"app": app})
        return [f"-----> Waiting: build {running} of this app is running"]
    if row.node_ahead:
        return [f"-----> Waiting: {row.node_ahead} builds are ahead of this one, {slots} run at once"]
    return []


async def _say_too_late(session: AsyncSession, build: Build) -> str:
    if build.state != "succeeded":
        return f"build {build.id} is over: {build.state}"
    version = await session.scalar(sa.select(Release.version).where(Release.uuid == build.release_uuid))
    return f"build {build.id} has become v{version}: it is too late to cancel it, but you can roll back"


async def _supersede_waiting(session: AsyncSession, app: UUID, by: int) -> None:
    waiting = await session.scalars(
        sa.select(Build).where(Build.app_uuid == app, Build.state == "queued", Build.id != by)
    )
    for build in waiting:
        end(build, "superseded", f"superseded by build {by}")


_other = sa.orm.aliased(Build)
_count = sa.select(sa.func.count()).select_from(_other)
_of_app = _count.where(_other.app_uuid == Build.app_uuid, _other.state == "building").scalar_subquery()
_of_node = _count.where(_other.state.in_(OPEN), _other.id < Build.id).scalar_subquery()
_taken = _count.where(_other.state == "building").scalar_subquery()
_is_full = sa.and_(Build.state == "queued", _taken >= sa.bindparam("slots", type_=sa.Integer))
# What a queued build waits for: one of its app that runs, and all before it while no slot is free.
APP_AHEAD = sa.case((Build.state == "queued", _of_app), else_=0).label("app_ahead")
NODE_AHEAD = sa.case((_is_full, _of_node), else_=0).label("node_ahead")
_ahead = sa.select(APP_AHEAD, NODE_AHEAD).where(Build.id == sa.bindparam("id"))
SHOWN = (
    sa.select(
        Build.id,
        Build.uuid,
        User.username.label("owner"),
        Build.state,
        Build.reason,
        Build.sha,
        Build.stack,
        Build.image,
        Release.version.label("release"),
        APP_AHEAD,
        NODE_AHEAD,
        Build.started,
        sa.func.coalesce(Release.created, Build.finished).label("ended"),  # a release is how it ends
        Build.created,
        Build.updated,
    )
    .join(User, User.id == Build.user_id)
    .outerjoin(Release, Release.uuid == Build.release_uuid)
)
_job_of = sa.select(Job).where(Job.kind == "build", Job.key == sa.bindparam("id"))
_running = sa.select(sa.func.max(Build.id)).where(
    Build.app_uuid == sa.bindparam("app"), Build.state == "building"
)
_outcome = (
    sa.select(
        Build.state, Build.finished, Build.reason, Release.version, Release.state.label("release_state")
    )
    .outerjoin(Release, Release.uuid == Build.release_uuid)
    .where(Build.id == sa.bindparam("id"))
)
