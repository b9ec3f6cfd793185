"""SSH keys of the asker. An id may hold any character, slashes too."""

from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Path, Response

from drycc.api import pages
from drycc.api.deps import AnyUser, Ports
from drycc.api.pages import Paged
from drycc.api.schemas.base import ERRORS, Listing, answers
from drycc.api.schemas.keys import Key, KeyBody
from drycc.core import keys, models
from drycc.errors import NotFound
from drycc.kit.http import Json

router = APIRouter(tags=["keys"], responses=ERRORS)
KeyId = Annotated[str, Path(description="The key's id")]


@router.get("/v2/keys/", summary="List my SSH keys", responses=answers(Listing[Key]))
async def list_keys(user: AnyUser, ports: Ports, page: Paged) -> Response:
    return await page.answer(ports.db, _keys, user=user.id)


@router.post("/v2/keys/", summary="Add an SSH key", status_code=201, responses=answers(Key, 201))
async def add_key(body: KeyBody, user: AnyUser, ports: Ports) -> Response:
    key = await keys.add(ports.db, user, body.id, body.public)
    return Json(
        {
            "uuid": key.uuid,
            "id": key.id,
            "owner": user.username,
            "public": key.public,
            "fingerprint": key.fingerprint,
            "created": key.created,
            "updated": key.updated,
        },
        201,
    )


@router.get("/v2/keys/{id:path}/", summary="Show an SSH key", responses=answers(Key))
async def get_key(id: KeyId, user: AnyUser, ports: Ports) -> Response:
    row = await ports.db.read_one(_key, user=user.id, id=_check(id))
    if row is None:
        raise NotFound("No Key matches the given query.")
    return Json(dict(row._mapping))


@router.delete(
    "/v2/keys/{id:path}/", summary="Remove an SSH key", status_code=204, responses=answers(None, 204)
)
async def remove_key(id: KeyId, user: AnyUser, ports: Ports) -> Response:
    await keys.remove(ports.db, user, _check(id))
    return Response(status_code=204)


def _check(id: str) -> str:
    if "\0" in id:
        raise NotFound("No Key matches the given query.")
    return id


_columns = (
    models.Key.uuid,
    models.Key.id,
    models.User.username.label("owner"),
    models.Key.public,
    models.Key.fingerprint,
    models.Key.created,
    models.Key.updated,
)
_keys = (
    sa.select(*_columns, pages.TOTAL)
    .join(models.User, models.User.id == models.Key.user_id)
    .where(models.Key.user_id == sa.bindparam("user"))
    .order_by(models.Key.public)
    .limit(pages.LIMIT)
    .offset(pages.OFFSET)
)
_key = (
    sa.select(*_columns)
    .join(models.User, models.User.id == models.Key.user_id)
    .where(models.Key.user_id == sa.bindparam("user"), models.Key.id == sa.bindparam("id"))
)
