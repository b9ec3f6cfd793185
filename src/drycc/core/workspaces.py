"""Workspaces; each user has one of their own, made when it is first needed."""

import re

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends.db import Database
from drycc.core.identity import Identity
from drycc.core.models import Workspace
from drycc.errors import Forbidden, NotFound

SHORTEST, LONGEST = 5, 140
# Names of the platform itself, for workspaces and apps alike.
RESERVED = re.compile(r"drycc(-[\w-]+)?|kube(-[\w-]+)?|default")


async def ensure_personal(session: AsyncSession, user: Identity) -> str:
    """The id of the user's own workspace, made now if there is none; it never changes afterwards."""
    found = await session.scalar(sa.select(Workspace.id).where(Workspace.user_id == user.id))
    if found is not None:
        return found
    base = re.sub(r"[^a-z0-9]", "", user.username.lower())[:LONGEST].ljust(SHORTEST, "0")
    taken = set(await session.scalars(sa.select(Workspace.id).where(Workspace.id.startswith(base))))
    id = _choose_id(base, taken)
    session.add(Workspace(id=id, user_id=user.id))
    await session.flush()
    return id


async def require_member(db: Database, user: Identity, id: str) -> None:
    """Raises `NotFound` for an unknown workspace, `Forbidden` for one that is not the user's."""
    row = await db.read_one(_owner, id=id)
    if row is None:
        raise NotFound("No Workspace matches the given query.")
    if not (user.is_superuser or user.is_staff or row.user_id == user.id):
        raise Forbidden(f"You are not a member of workspace '{id}'")


def _choose_id(base: str, taken: set[str]) -> str:
    candidates = [base, *(f"{base}{number}" for number in range(1, len(taken) + 2))]
    return next(id for id in candidates if id not in taken and not RESERVED.fullmatch(id))


_owner = sa.select(Workspace.user_id).where(Workspace.id == sa.bindparam("id"))
