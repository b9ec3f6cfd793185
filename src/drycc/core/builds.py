"""Builds: queued by a push, followed line by line, cancelled while nothing was released."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends.db import Database
from drycc.backends.nudges.base import Nudges
from drycc.core import jobs
from drycc.core.models import Build, BuildLine, Job, Release
from drycc.kit.aio import within
from drycc.kit.crash import point
from drycc.kit.ids import now

TOPIC = "builds"
LOOK_AGAIN = 1.0  # seconds: nudges between processes may be lost
PAGE = 200  # lines a statement
OPEN = ("queued", "building")
MOST_LINES = 100_000


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


@dataclass(frozen=True, slots=True)
class Printed:
    """Lines of a one-off (`source` is build or release), and where in its output they end."""

    source: str
    offset: int
    lines: list[str]


async def queue(db: Database, nudges: Nudges, app: UUID, user_id: int, source: Source) -> int:
    """Record a build and its job; a build of the app that still waits is superseded. Gives the build's id."""

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
        ahead = await session.scalar(_ahead, {"app": app, "id": build.id})
        if ahead:
            await add_lines(session, build.id, [f"-----> Waiting: build {ahead} of this app is running"])
        return build.id

    id = await db.write(body, app=app)
    point("build.queued")
    await nudges.send(TOPIC, "look")
    await jobs.wake(nudges)
    return id


async def follow(db: Database, nudges: Nudges, id: int) -> AsyncIterator[str]:
    """The build's lines from the first on, until the build and the roll-out of its release are over."""
    seq = 0
    async with nudges.subscribe(TOPIC) as nudged:
        while True:
            is_over = (await outcome(db, id)).is_over
            while rows := await db.read(_lines_after, id=id, seq=seq):
                for row in rows:
                    yield row.text
                seq = rows[-1].seq
            if is_over:
                return
            await within(LOOK_AGAIN, anext(nudged))


async def outcome(db: Database, id: int) -> Outcome:
    """What is known of the build now; a build that was removed with its app is over."""
    row = await db.read_one(_outcome, id=id)
    if row is None:
        return Outcome(is_over=True, has_succeeded=False, text="the app was destroyed", release=None)
    has_succeeded = row.finished is not None and row.state == "succeeded" and not row.reason
    return Outcome(row.finished is not None, has_succeeded, row.reason, row.version)


async def cancel(db: Database, nudges: Nudges, id: int, reason: str) -> bool:
    """Ask that the build ends, while it is queued or building; from the release on it is too late: False."""

    async def body(session: AsyncSession) -> bool:
        build = await session.get(Build, id)
        if build is None or build.state not in OPEN:
            return False
        job = (await session.scalars(_job_of, {"id": str(id)})).one()
        job.cancel_requested = True
        if job.state == "queued":
            job.state, job.finished = "cancelled", now()
            end(build, "cancelled", reason)
        return True

    row = await db.read_one(sa.select(Build.app_uuid).where(Build.id == id))
    is_asked = row is not None and await db.write(body, app=row.app_uuid)
    await jobs.wake(nudges)
    await nudges.send(TOPIC, "look")
    return is_asked


def end(build: Build, state: str, reason: str) -> None:
    """Record how the build ended; who follows it is told."""
    build.state, build.reason, build.finished = state, reason, now()


async def add_lines(session: AsyncSession, id: int, lines: Iterable[str]) -> None:
    """Add lines of the platform's own; one that stands there already is not said twice."""
    said = set(await session.scalars(sa.select(BuildLine.text).where(BuildLine.build_id == id, _OURS)))
    await _insert_lines(session, id, Printed("", 0, [line for line in lines if line not in said]))


async def add_output(session: AsyncSession, id: int, printed: Printed) -> None:
    """Keep what a one-off printed, and how far into its output that reaches."""
    await _insert_lines(session, id, printed)


async def reached(db: Database, id: int, source: str) -> int:
    """How far into that one-off's output the kept lines reach, in bytes."""
    row = await db.read_one(_reached, id=id, source=source)
    return int(row[0]) if row else 0


async def _insert_lines(session: AsyncSession, id: int, printed: Printed) -> None:
    last = await session.scalar(sa.select(sa.func.max(BuildLine.seq)).where(BuildLine.build_id == id)) or 0
    if last > MOST_LINES and printed.source:
        printed = Printed(printed.source, printed.offset, [])
    for seq, line in enumerate(printed.lines, last + 1):
        session.add(
            BuildLine(build_id=id, seq=seq, at=now(), text=line, source=printed.source, offset=printed.offset)
        )


async def _supersede_waiting(session: AsyncSession, app: UUID, by: int) -> None:
    waiting = await session.scalars(
        sa.select(Build).where(Build.app_uuid == app, Build.state == "queued", Build.id != by)
    )
    for build in waiting:
        end(build, "superseded", f"superseded by build {by}")
        job = (await session.scalars(_job_of, {"id": str(build.id)})).one()
        job.state, job.finished = "superseded", now()


_OURS = BuildLine.source == ""
_job_of = sa.select(Job).where(Job.kind == "build", Job.key == sa.bindparam("id"))
_ahead = sa.select(sa.func.max(Build.id)).where(
    Build.app_uuid == sa.bindparam("app"), Build.state == "building", Build.id < sa.bindparam("id")
)
_lines_after = (
    sa.select(BuildLine.seq, BuildLine.text)
    .where(BuildLine.build_id == sa.bindparam("id"), BuildLine.seq > sa.bindparam("seq"))
    .order_by(BuildLine.seq)
    .limit(PAGE)
)
_outcome = (
    sa.select(
        Build.state, Build.finished, Build.reason, Release.version, Release.state.label("release_state")
    )
    .outerjoin(Release, Release.uuid == Build.release_uuid)
    .where(Build.id == sa.bindparam("id"))
)
_reached = sa.select(sa.func.coalesce(sa.func.max(BuildLine.offset), 0)).where(
    BuildLine.build_id == sa.bindparam("id"), BuildLine.source == sa.bindparam("source")
)
