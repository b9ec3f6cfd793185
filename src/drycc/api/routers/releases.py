"""Releases: list, get, deploy, roll back."""

import re
from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Path, Query, Response

from drycc.api import pages
from drycc.api.deps import AnyUser, ChangeApp, Ports, ViewApp
from drycc.api.pages import MOST, Paged
from drycc.api.schemas.base import APP_ERRORS, Listing, answers
from drycc.api.schemas.releases import DeployBody, NewVersion, Release, RollbackBody
from drycc.core import models, releases
from drycc.errors import Invalid, NotFound
from drycc.kit.http import Json

router = APIRouter(tags=["releases"], responses=APP_ERRORS)
NO_RELEASE = "No Release matches the given query."
Version = Annotated[str, Query(description="A release as v3 or 3; anything else means the latest")]
LATEST = 0  # as a version: the release that `core.releases.latest` means

_version = sa.bindparam("version", type_=sa.Integer)
_is_good = sa.or_(~models.Release.failed, ~models.App.autorollback)
# Joined to its app, a release is the one that was asked for; the newest of these is the answer.
IS_SHOWN = sa.and_(
    models.Release.app_uuid == sa.bindparam("app"),
    sa.or_(models.Release.version == _version, sa.and_(_version == LATEST, _is_good)),
)
NEWEST_FIRST = models.Release.version.desc()


def parse_version(text: str) -> int:
    """Raises `NotFound` for a number that no release has."""
    if not re.fullmatch(r"v?[0-9]+", text, re.ASCII):
        return LATEST
    digits = text.removeprefix("v")
    version = int(digits) if len(digits) < 11 else 0
    if not 0 < version <= MOST:
        raise NotFound(NO_RELEASE)
    return version


@router.get("/v2/apps/{app:appid}/releases/", summary="List releases", responses=answers(Listing[Release]))
async def list_releases(
    app: ViewApp,
    ports: Ports,
    page: Paged,
    ptypes: Annotated[str, Query(description="Only releases deployed to all of these, by comma")] = "",
) -> Response:
    deployed = sa.cast(models.Release.deployed_ptypes, sa.Text)
    named = [deployed.contains(f'"{name}"', autoescape=True) for name in _split(ptypes.replace("\0", ""))]
    return await page.answer(ports.db, _releases.where(*named), app=app.uuid, name=app.id)


@router.get(
    "/v2/apps/{app:appid}/releases/v{version:digits}/", summary="Show a release", responses=answers(Release)
)
async def get_release(app: ViewApp, ports: Ports, version: Annotated[str, Path()]) -> Response:
    number = parse_version(version)
    row = await ports.db.read_one(_release, app=app.uuid, name=app.id, version=number)
    if row is None:
        raise NotFound(NO_RELEASE)
    return Json(dict(row._mapping))


@router.post(
    "/v2/apps/{app:appid}/releases/deploy/",
    summary="Roll out the newest release",
    status_code=204,
    responses=answers(None, 204),
)
async def deploy(body: DeployBody, app: ChangeApp, ports: Ports) -> Response:
    await releases.deploy(ports.db, ports.nudges, app.uuid, _split(body.ptypes), force=body.force)
    return Response(status_code=204)


@router.post(
    "/v2/apps/{app:appid}/releases/rollback/",
    summary="Make a release of an earlier one's build and config",
    status_code=201,
    responses=answers(NewVersion, 201),
)
async def roll_back(body: RollbackBody, app: ChangeApp, user: AnyUser, ports: Ports) -> Response:
    version = await releases.rollback(
        ports.db,
        ports.nudges,
        ports.cluster.pods,
        app.uuid,
        (user.id, user.username),
        _parse_target(body.version),
        _split(body.ptypes),
    )
    return Json({"version": version}, 201)


def _split(ptypes: str | None) -> list[str]:
    return [name for part in (ptypes or "").split(",") if (name := part.strip())]


def _parse_target(version: int | str | None) -> int | None:
    if version is None or version == "":
        return None
    text = str(version).removeprefix("v")
    if not re.fullmatch(r"-?[0-9]{1,4000}", text, re.ASCII):
        raise Invalid("A valid integer is required.", field="version")
    return max(-1, min(int(text), MOST))


_columns = (
    models.Release.uuid,
    models.User.username.label("owner"),
    sa.bindparam("name", type_=sa.Text).label("app"),
    models.Release.state,
    models.Release.version,
    models.Release.summary,
    models.Release.failed,
    models.Release.exception,
    models.Release.conditions,
    models.Release.deployed_ptypes,
    models.Release.config_uuid.label("config"),
    models.Build.uuid.label("build"),
    models.Release.created,
    models.Release.updated,
)
_releases = (
    sa.select(*_columns, pages.TOTAL)
    .join(models.User, models.User.id == models.Release.user_id)
    .outerjoin(models.Build, models.Build.id == models.Release.build_id)
    .where(models.Release.app_uuid == sa.bindparam("app"))
    .order_by(NEWEST_FIRST)
    .limit(pages.LIMIT)
    .offset(pages.OFFSET)
)
_release = (
    sa.select(*_columns)
    .join(models.User, models.User.id == models.Release.user_id)
    .outerjoin(models.Build, models.Build.id == models.Release.build_id)
    .where(models.Release.app_uuid == sa.bindparam("app"), models.Release.version == _version)
)
