"""Logging in with a password, collecting the token, and who one is."""

from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Path, Query, Request, Response

from drycc.api.deps import Anyone, AnyUser, Ports
from drycc.api.schemas.auth import LoginBody, LoginKey, NewToken, User
from drycc.api.schemas.base import ERRORS, answers
from drycc.core import identity, models, tokens
from drycc.errors import Invalid
from drycc.kit.http import Json

router = APIRouter(tags=["auth"], responses=ERRORS)


@router.post("/v2/auth/login/", summary="Log in", responses=answers(LoginKey))
async def log_in(body: LoginBody, asker: Anyone, ports: Ports, request: Request) -> Response:
    if body.username is None or body.password is None:
        text = "This controller has no login by browser yet: give name and password, drycc login <url> -u -p"
        raise Invalid(text, field="non_field_errors")
    address = request.client.host if request.client else ""
    throttle = request.app.state.throttle
    user = await identity.log_in(ports.db, throttle, body.username, body.password, address)
    return Json({"key": await tokens.open_login(ports.db, ports.keyring, user)})


@router.get(
    "/v2/auth/token/{key:word}/",
    summary="Collect the token of a login; asked again it is the same one",
    responses=answers(NewToken) | {404: {"description": "There is no such login, or not yet; no body"}},
)
async def collect_token(
    key: Annotated[str, Path(description="What the login answered")],
    asker: Anyone,
    ports: Ports,
    alias: Annotated[str, Query(description="What the token is for")] = "",
) -> Response:
    found = await tokens.collect(ports.db, ports.keyring, key, alias)
    if found is None:
        return Response(status_code=404)
    return Json({"uuid": found.uuid, "token": found.token, "username": found.username})


@router.get("/v2/auth/whoami/", summary="Who I am", responses=answers(User))
async def show_me(user: AnyUser, ports: Ports) -> Response:
    row = await ports.db.read_one(_user, id=user.id)
    return Json(dict(row._mapping) | {"groups": [], "user_permissions": []} if row else {})


_user = sa.select(
    models.User.id,
    models.User.email,
    models.User.username,
    models.User.first_name,
    models.User.last_name,
    models.User.is_superuser,
    models.User.is_staff,
    models.User.last_login,
    models.User.date_joined,
    models.User.is_active,
).where(models.User.id == sa.bindparam("id"))
