"""A push from its commit to its outcome: received, checked, archived, queued, followed."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from drycc.backends.db import Database
from drycc.backends.nudges.base import Nudges
from drycc.backends.objects.base import ObjectStore
from drycc.build import refs, repository
from drycc.build.git import Push
from drycc.build.repository import Repositories
from drycc.build.source import archive
from drycc.build.spec import Spec, read_spec
from drycc.core import builds
from drycc.core.apps import AppRef
from drycc.core.identity import Identity
from drycc.core.models import Build
from drycc.errors import Conflict, NoSpace, NotFound, PushRejected
from drycc.kit.aio import insist
from drycc.kit.crash import point

PATIENCE = 60.0  # seconds for which the database may be away from a push


@dataclass(frozen=True, slots=True)
class Ports:
    """What a push needs of the platform. `closing` is set when the platform ends the sessions itself."""

    db: Database
    objects: ObjectStore
    nudges: Nudges
    repositories: Repositories
    hooks: Path
    tree_limit: int  # bytes
    slots: int  # builds that run at once
    closing: asyncio.Event


@dataclass(frozen=True, slots=True)
class Target:
    """Where a push goes and who pushes; `announced` is set once the pusher knows the build's id."""

    app: AppRef
    user: Identity
    repository: Path
    announced: asyncio.Event


async def receive(push: Push, target: Target, ports: Ports) -> None:
    """Returns when the pushed commit serves; raises `PushRejected` with the reason when it does not."""
    refs.check_options(push.question.options)
    choice = refs.choose(push.question.updates)
    spec = await asyncio.to_thread(read_spec, push.question.incoming, choice.sha, ports.tree_limit)
    await _tell(push, choice, spec)
    key = await _store(push, target, choice.sha, ports)
    point("source.stored")
    build = await _queue(push, target, builds.Source(choice.sha, spec.stack, key, spec.procfile), ports)
    await _follow(push, build, target.announced, ports)


async def _tell(push: Push, choice: refs.Choice, spec: Spec) -> None:
    for other in choice.others:
        await push.say(f" !     {other}")
    await push.say(f"-----> {spec.detected} app, {choice.branch} at {choice.sha[:8]}")
    for note in spec.notes:
        await push.say(f" !     {note}")


async def _store(push: Push, target: Target, sha: str, ports: Ports) -> str:
    """Store the source and make the commit the app's, both or neither; gives the source's key."""
    incoming = push.question.incoming
    key = await archive(ports.objects, incoming, target.app.uuid, sha)
    point("source.archived")
    try:
        await asyncio.to_thread(repository.keep, incoming, target.repository, sha)
    except BaseException:
        await ports.objects.delete(key)
        raise
    return key


async def _queue(push: Push, target: Target, source: builds.Source, ports: Ports) -> int:
    """Queue the build; a client that goes away meanwhile leaves none that nobody knows of."""
    queueing = asyncio.create_task(_queue_patiently(target, source, ports))
    try:
        return await asyncio.shield(queueing)
    except asyncio.CancelledError:
        await _abandon(push, await queueing, ports)
        raise


async def _queue_patiently(target: Target, source: builds.Source, ports: Ports) -> int:
    """Repeat it while the database is away. A build of this source was queued before the answer was lost."""
    is_repeat = False

    async def step() -> int:
        nonlocal is_repeat
        if is_repeat and (row := await ports.db.read_one(_queued, source=source.key)):
            return int(row.id)
        is_repeat = True
        app, user = target.app.uuid, target.user.id
        return await builds.queue(ports.db, ports.nudges, app, user, source, slots=ports.slots)

    try:
        return await insist(step, within=PATIENCE)
    except NoSpace:
        await ports.objects.delete(source.key)
        raise


async def _follow(push: Push, build: int, announced: asyncio.Event, ports: Ports) -> None:
    """Relay the build's lines; a client that goes away cancels it, an end of ours does not."""
    try:
        await push.say(f"-----> Build {build}")
        announced.set()
        async for line in builds.follow(ports.db, ports.nudges, build):
            await push.say(line)
    except (asyncio.CancelledError, ConnectionError) as gone:
        if ports.closing.is_set():
            raise PushRejected(
                f"the platform restarts; build {build} goes on without this terminal"
            ) from gone
        await _abandon(push, build, ports)
        raise
    outcome = await insist(lambda: builds.outcome(ports.db, build), within=PATIENCE)
    if not outcome.has_succeeded:
        raise PushRejected(outcome.text or "the build ended without a release")


async def _abandon(push: Push, build: int, ports: Ports) -> None:
    if "keep" not in push.question.options:
        reason = "the pusher went away"
        with suppress(Conflict, NotFound):  # over by itself
            await insist(lambda: builds.cancel(ports.db, ports.nudges, build, reason), within=PATIENCE)


_queued = sa.select(Build.id).where(Build.source == sa.bindparam("source"))
