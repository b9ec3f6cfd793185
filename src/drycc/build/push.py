"""A push from its commit to its outcome: received, checked, archived, queued, followed."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

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
from drycc.errors import Conflict, NotFound, PushRejected
from drycc.kit.crash import point


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
    await asyncio.to_thread(repository.keep, push.question.incoming, target.repository, choice.sha)
    key = await archive(ports.objects, target.repository, target.app.uuid, choice.sha)
    point("source.stored")
    build = await _queue(push, target, builds.Source(choice.sha, spec.stack, key, spec.procfile), ports)
    await _follow(push, build, target.announced, ports)


async def _tell(push: Push, choice: refs.Choice, spec: Spec) -> None:
    for other in choice.others:
        await push.say(f" !     {other}")
    await push.say(f"-----> {spec.detected} app, {choice.branch} at {choice.sha[:8]}")
    for note in spec.notes:
        await push.say(f" !     {note}")


async def _queue(push: Push, target: Target, source: builds.Source, ports: Ports) -> int:
    """Queue the build; a client that goes away meanwhile leaves none that nobody knows of."""
    queueing = asyncio.create_task(
        builds.queue(ports.db, ports.nudges, target.app.uuid, target.user.id, source, slots=ports.slots)
    )
    try:
        return await asyncio.shield(queueing)
    except asyncio.CancelledError:
        await _abandon(push, await queueing, ports)
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
    outcome = await builds.outcome(ports.db, build)
    if not outcome.has_succeeded:
        raise PushRejected(outcome.text or "the build ended without a release")


async def _abandon(push: Push, build: int, ports: Ports) -> None:
    if "keep" not in push.question.options:
        with suppress(Conflict, NotFound):  # over by itself
            await builds.cancel(ports.db, ports.nudges, build, "the pusher went away")
