"""The build of a release."""

import sqlalchemy as sa
from fastapi import APIRouter, Response

from drycc.api.deps import Ports, ViewApp
from drycc.api.routers.releases import IS_SHOWN, NEWEST_FIRST, Version, parse_version
from drycc.api.schemas.base import APP_ERRORS, answers
from drycc.api.schemas.releases import Build, NoBuild
from drycc.core import models
from drycc.errors import NotFound
from drycc.kit.http import Json

router = APIRouter(tags=["builds"], responses=APP_ERRORS)
BLANK = {
    "app": None,
    "image": "",
    "stack": "",
    "sha": "",
    "procfile": None,
    "dryccfile": None,
    "dockerfile": "",
}


@router.get(
    "/v2/apps/{app:appid}/build/",
    summary="Show the build of the latest or of a given release; blank without one",
    responses=answers(Build | NoBuild),
)
async def get_build(app: ViewApp, ports: Ports, version: Version = "") -> Response:
    row = await ports.db.read_one(_build, app=app.uuid, version=parse_version(version))
    if row is None:
        raise NotFound("No Release matches the given query.")
    return Json(BLANK if row.uuid is None else dict(row._mapping) | {"app": app.id})


_build = (
    sa.select(
        models.User.username.label("owner"),
        models.Build.image,
        models.Build.stack,
        models.Build.sha,
        models.Build.procfile,
        models.Build.dryccfile,
        models.Build.dockerfile,
        models.Build.created,
        models.Build.updated,
        models.Build.uuid,
    )
    .select_from(models.Release)
    .join(models.App, models.App.uuid == models.Release.app_uuid)
    .outerjoin(models.Build, models.Build.id == models.Release.build_id)
    .outerjoin(models.User, models.User.id == models.Build.user_id)
    .where(IS_SHOWN)
    .order_by(NEWEST_FIRST)
    .limit(1)
)
