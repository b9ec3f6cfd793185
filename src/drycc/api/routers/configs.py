"""The config of a release, and changes of it."""

from collections.abc import Mapping
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Query, Response

from drycc.api.deps import AnyUser, ChangeApp, Ports, ViewApp
from drycc.api.routers.releases import IS_SHOWN, NEWEST_FIRST, Version, parse_version
from drycc.api.schemas.base import APP_ERRORS, Detail, Responses, answers
from drycc.api.schemas.releases import Config, ConfigBody
from drycc.core import configs, models
from drycc.core.apps import AppRef
from drycc.errors import NotFound
from drycc.kit.http import Json

router = APIRouter(tags=["config"], responses=APP_ERRORS)
REFUSED: Responses = {
    409: {"description": "Nothing would change", "model": Detail},
    422: {"description": "What shall be unset is not there", "model": Detail},
}
Merge = Annotated[str, Query(description="false: scopes that the values name lose their old ones first")]


@router.get(
    "/v2/apps/{app:appid}/config/",
    summary="Show the config of the latest or of a given release",
    responses=answers(Config),
)
async def get_config(app: ViewApp, ports: Ports, version: Version = "") -> Response:
    row = await ports.db.read_one(_config, app=app.uuid, version=parse_version(version))
    if row is None:
        raise NotFound("No Release matches the given query.")
    values = configs.open_values(ports.keyring, app, row.uuid, row.sealed_values)
    return Json(_show(app, dict(row._mapping), values))


@router.post(
    "/v2/apps/{app:appid}/config/",
    summary="Set and unset values; makes a release",
    status_code=201,
    responses=answers(Config, 201) | REFUSED,
)
async def change_config(
    body: ConfigBody, app: ChangeApp, user: AnyUser, ports: Ports, merge: Merge = "true"
) -> Response:
    asked = configs.parse(body.model_dump(exclude_unset=True), is_merged=merge.lower() not in ("false", "0"))
    changed = await configs.change(ports.db, ports.nudges, ports.keyring, app.uuid, user, asked)
    return Json(_show(app, vars(changed.row) | {"owner": user.username}, changed.values), 201)


def _show(app: AppRef, row: Mapping[str, Any], values: list[configs.Value]) -> dict[str, Any]:
    return {
        "uuid": row["uuid"],
        "owner": row["owner"],
        "app": app.id,
        "values": values,
        "values_refs": row["values_refs"],
        "limits": row["limits"],
        "tags": {},
        "registry": {},
        "healthcheck": {},
        "termination_grace_period": {},
        "lifecycle": {},
        "lifecycle_post_start": {},
        "lifecycle_pre_stop": {},
        "created": row["created"],
        "updated": row["updated"],
    }


_config = (
    sa.select(
        models.Config.uuid,
        models.User.username.label("owner"),
        models.Config.sealed_values,
        models.Config.values_refs,
        models.Config.limits,
        models.Config.created,
        models.Config.updated,
    )
    .select_from(models.Release)
    .join(models.App, models.App.uuid == models.Release.app_uuid)
    .join(models.Config, models.Config.uuid == models.Release.config_uuid)
    .join(models.User, models.User.id == models.Config.user_id)
    .where(IS_SHOWN)
    .order_by(NEWEST_FIRST)
    .limit(1)
)
