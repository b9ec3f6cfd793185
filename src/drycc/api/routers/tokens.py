"""API tokens of the asker."""

from typing import Annotated
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Path, Response

from drycc.api import pages
from drycc.api.deps import AnyUser, Ports
from drycc.api.pages import Paged
from drycc.api.schemas.auth import Token
from drycc.api.schemas.base import ERRORS, Listing, answers
from drycc.core import models, tokens
from drycc.errors import NotFound

router = APIRouter(tags=["tokens"], responses=ERRORS)


@router.get("/v2/tokens/", summary="List my tokens", responses=answers(Listing[Token]))
async def list_tokens(user: AnyUser, ports: Ports, page: Paged) -> Response:
    return await page.answer(ports.db, _tokens, user=user.id)


@router.delete(
    "/v2/tokens/{uuid:word}/", summary="Revoke a token", status_code=204, responses=answers(None, 204)
)
async def revoke_token(
    uuid: Annotated[str, Path(description="The token's UUID")], user: AnyUser, ports: Ports
) -> Response:
    await tokens.revoke(ports.db, ports.nudges, user, _parse(uuid))
    return Response(status_code=204)


def _parse(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise NotFound("No Token matches the given query.") from None


_tokens = (
    sa.select(
        models.Token.uuid,
        models.User.username.label("owner"),
        models.Token.alias,
        models.Token.fuzzy_key,
        models.Token.created,
        models.Token.updated,
        pages.TOTAL,
    )
    .join(models.User, models.User.id == models.Token.user_id)
    .where(models.Token.user_id == sa.bindparam("user"))
    .order_by(models.Token.created.desc(), models.Token.uuid)
    .limit(pages.LIMIT)
    .offset(pages.OFFSET)
)
