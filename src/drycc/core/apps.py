"""Apps: created with their first config and release, found by id, destroyed whole."""

import asyncio
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends.db import Database
from drycc.backends.nudges.base import Nudges
from drycc.core import jobs, releases, workspaces
from drycc.core.configs import make_config
from drycc.core.identity import Identity
from drycc.core.models import App, Job, User, Workspace
from drycc.core.secrets import Keyring
from drycc.errors import Forbidden, Invalid, NotFound, Unavailable
from drycc.kit.aio import within
from drycc.kit.ids import app_name

TOPIC = "apps"  # says which app is gone
LONGEST_ID = 63
FIRST_UID = 1000
DEFAULT_PLAN = "std1.large.c1m1"
MOST_TRIES = 20  # of creates at one moment, each takes the next free uid
GONE_WITHIN = 45.0  # seconds; a pod may take its grace of 30
LOOK_AGAIN = 1.0  # seconds: a nudge may be lost
RULE = (
    "App name must start with an alphabetic character, cannot end with a hyphen "
    "and can only contain a-z (lowercase), 0-9 and hyphens."
)
SLUG = 'Enter a valid "slug" consisting of letters, numbers, underscores or hyphens.'


@dataclass(frozen=True, slots=True)
class AppRef:
    """An app as it was found; what changes it takes the `uuid` and reads again."""

    uuid: UUID
    id: str
    uid: int
    owner_id: int
    owner: str
    workspace_id: str
    autodeploy: bool
    autorollback: bool
    routable: bool
    data_key: bytes = field(repr=False)
    generation: int
    is_destroyed: bool
    created: datetime
    updated: datetime


async def find(db: Database, id: str, *, even_destroyed: bool = False) -> AppRef:
    """The app of this id; raises `NotFound`, also for one whose end was asked for."""
    row = await db.read_one(_by_id, id=id)
    if row is None or (row.is_destroyed and not even_destroyed):
        raise NotFound("No App matches the given query.")
    return AppRef(*row)


async def create(
    db: Database,
    keyring: Keyring,
    owner: Identity,
    *,
    id: str | None = None,
    workspace: str | None = None,
    reserved: Collection[str] = (),
) -> str:
    """Record an app with its config and release v1; gives its id, generated when none is asked for."""
    if id is not None:
        check_id(id, reserved)
    for _ in range(MOST_TRIES):
        chosen = id or app_name()
        try:
            await db.write(lambda session: _record(session, keyring, owner, chosen, workspace))  # noqa: B023
        except IntegrityError:  # the uid, the workspace or the id went to somebody else; look again
            continue
        return chosen
    raise Unavailable("too many apps are being created, try again")


def check_id(id: str, reserved: Collection[str] = ()) -> None:
    """Raises `Invalid` with the contract's texts, all that apply."""
    texts = []
    if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", id):
        texts.append(RULE)
    if id in reserved or workspaces.RESERVED.fullmatch(id):
        texts.append(f"{id} is a reserved name.")
    if len(id) > LONGEST_ID:
        texts.append(f"Ensure this field has no more than {LONGEST_ID} characters.")
    if not re.fullmatch(r"[a-zA-Z0-9_-]+", id):
        texts.append(SLUG)
    if texts:
        raise Invalid(*texts, field="id")


async def destroy(db: Database, nudges: Nudges, app: AppRef, *, deadline: float = GONE_WITHIN) -> None:
    """Ask for the app's end and wait until its row is gone; asking again waits again.

    Raises `Unavailable` after `deadline` seconds; the end comes nevertheless.
    """
    try:
        async with nudges.subscribe(TOPIC) as gone, asyncio.timeout(deadline):
            await db.write(lambda session: _request_end(session, app.uuid), app=app.uuid)
            await jobs.wake(nudges)
            while await db.read_one(_is_there, uuid=app.uuid):
                await within(LOOK_AGAIN, anext(gone))
    except NotFound:
        return
    except TimeoutError:
        text = f"Could not delete Kubernetes Namespace {app.id} within {deadline:g} seconds"
        raise Unavailable(text) from None


async def _record(
    session: AsyncSession, keyring: Keyring, owner: Identity, id: str, workspace: str | None
) -> None:
    if await session.scalar(sa.select(App.uuid).where(App.id == id)):
        raise Invalid("Application with this id already exists.", field="id")
    app = App(
        uuid=(uuid := uuid4()),
        id=id,
        uid=await session.scalar(_next_uid),
        owner_id=owner.id,
        workspace_id=await _choose_workspace(session, owner, workspace),
        data_key=keyring.new_data_key(uuid),
    )
    session.add(app)
    await session.flush()
    limits = {"web": DEFAULT_PLAN, "run": DEFAULT_PLAN}
    config = make_config(keyring, app, owner.id, values=[], refs={}, limits=limits)
    session.add(config)
    await session.flush()
    summary = f"{owner.username} created initial release"
    await releases.record(
        session, app.uuid, owner.id, build_id=None, config_uuid=config.uuid, summary=summary
    )


async def _choose_workspace(session: AsyncSession, user: Identity, id: str | None) -> str:
    if id is None:
        return await workspaces.ensure_personal(session, user)
    row = await session.get(Workspace, id)
    if row is None:
        raise Invalid(f"Object with id={id} does not exist.", field="workspace")
    if not (user.is_superuser or user.is_staff or row.user_id == user.id):
        raise Forbidden("You do not have permission to perform this action.")
    return row.id


async def _request_end(session: AsyncSession, uuid: UUID) -> None:
    app = await session.get_one(App, uuid)
    if not app.is_destroyed:
        app.is_destroyed = True
        app.generation += 1
        running = sa.update(Job).where(Job.app_uuid == uuid, Job.state == "running")
        await session.execute(running.values(cancel_requested=True))
    if await session.scalar(_open_end, {"uuid": uuid}) is None:  # none yet, or one that was given up
        await jobs.queue(session, "destroy", uuid)


_by_id = (
    sa.select(
        App.uuid,
        App.id,
        App.uid,
        App.owner_id,
        User.username.label("owner"),
        App.workspace_id,
        App.autodeploy,
        App.autorollback,
        App.routable,
        App.data_key,
        App.generation,
        App.is_destroyed,
        App.created,
        App.updated,
    )
    .join(User, User.id == App.owner_id)
    .where(App.id == sa.bindparam("id"))
)
_is_there = sa.select(App.uuid).where(App.uuid == sa.bindparam("uuid"))
_open_end = sa.select(Job.id).where(
    Job.app_uuid == sa.bindparam("uuid"), Job.kind == "destroy", Job.state.in_(("queued", "running"))
)
_next_uid = sa.select(sa.func.coalesce(sa.func.max(App.uid), FIRST_UID - 1) + 1)
