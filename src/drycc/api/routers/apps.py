"""Apps: create, list, get, destroy; their settings and domains as far as they exist."""

from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Query, Response

from drycc.api import pages
from drycc.api.deps import AnyUser, EndApp, Ports, ViewApp
from drycc.api.pages import Paged
from drycc.api.schemas.apps import App, AppBody, AppSettings, Domain
from drycc.api.schemas.base import APP_ERRORS, ERRORS, Detail, Listing, Responses, answers
from drycc.core import apps, models, workspaces
from drycc.kit.http import Json

router = APIRouter(tags=["apps"])
MOST_WORDS = 10
NOT_GONE: Responses = {503: {"description": "The end takes longer than 30 s and goes on", "model": Detail}}


@router.get("/v2/apps/", summary="List the apps I may see", responses=ERRORS | answers(Listing[App]))
async def list_apps(
    user: AnyUser,
    ports: Ports,
    page: Paged,
    search: Annotated[str, Query(description="Prefixes of an id, all of which must fit")] = "",
    workspace: Annotated[str, Query(description="Only apps of this workspace")] = "",
) -> Response:
    if workspace:
        await workspaces.require_member(ports.db, user, workspace)
    conditions = [models.App.id.startswith(word, autoescape=True) for word in _words(search)]
    if workspace:
        conditions.append(models.App.workspace_id == workspace)
    elif not user.is_superuser:
        conditions.append(models.App.owner_id == user.id)
    total, rows = await page.fetch(ports.db, _select_apps(*conditions))
    return page.wrap(total, _fold(rows))


@router.post("/v2/apps/", summary="Create an app", status_code=201, responses=ERRORS | answers(App, 201))
async def create_app(body: AppBody, user: AnyUser, ports: Ports) -> Response:
    reserved = {name.strip() for name in ports.settings.reserved_names.split(",")}
    id = await apps.create(
        ports.db, ports.keyring, user, id=body.id, workspace=body.workspace, reserved=reserved
    )
    return Json(await _load(ports, id), 201)


@router.get("/v2/apps/{app:appid}/", summary="Show an app", responses=APP_ERRORS | answers(App))
async def get_app(app: ViewApp, ports: Ports) -> Response:
    return Json(await _load(ports, app.id))


@router.delete(
    "/v2/apps/{app:appid}/",
    summary="Destroy an app and all that belongs to it; answers when it is gone",
    status_code=204,
    responses=APP_ERRORS | answers(None, 204) | NOT_GONE,
)
async def destroy_app(app: EndApp, ports: Ports) -> Response:
    await apps.destroy(ports.db, ports.nudges, app)
    return Response(status_code=204)


@router.get(
    "/v2/apps/{app:appid}/settings/", summary="Show settings", responses=APP_ERRORS | answers(AppSettings)
)
async def get_settings(app: ViewApp) -> Response:
    return Json(
        {
            "uuid": app.uuid,
            "owner": app.owner,
            "app": app.id,
            "routable": app.routable,
            "autodeploy": app.autodeploy,
            "autorollback": app.autorollback,
            "autoscale": {},
            "label": {},
            "created": app.created,
            "updated": app.updated,
        }
    )


@router.get(
    "/v2/apps/{app:appid}/domains/", summary="List domains", responses=APP_ERRORS | answers(Listing[Domain])
)
async def list_domains(app: ViewApp, page: Paged) -> Response:
    """None yet: the name under which the platform serves every app is no domain of the app's own."""
    return page.wrap(0, [])


async def _load(ports: Ports, id: str) -> dict[str, Any]:
    rows = await ports.db.read(_select_apps(models.App.id == id), limit=1, offset=0)
    plain = [{key: value for key, value in row._mapping.items() if key != "total"} for row in rows]
    return _fold(plain)[0]


def _words(search: str) -> list[str]:
    return search.replace("\0", "").lower().split()[:MOST_WORDS]


def _fold(rows: pages.Rows) -> list[dict[str, Any]]:
    """One object an app from its rows, of which there is one a process type."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        plain = {key: value for key, value in row.items() if key not in ("ptype", "replicas")}
        app = found.setdefault(row["id"], plain | {"structure": {}})
        if row["ptype"] is not None:
            app["structure"][row["ptype"]] = row["replicas"]
    return list(found.values())


def _select_apps(*conditions: sa.ColumnElement[bool]) -> sa.Select[*tuple[Any, ...]]:
    """A page of apps with their process types, in one statement."""
    page = (
        sa.select(*_columns, pages.TOTAL)
        .join(models.User, models.User.id == models.App.owner_id)
        .where(~models.App.is_destroyed, *conditions)
        .order_by(models.App.id)
        .limit(pages.LIMIT)
        .offset(pages.OFFSET)
        .subquery()
    )
    return (
        sa.select(page, models.Workload.ptype, models.Workload.replicas)
        .outerjoin(models.Workload, models.Workload.app_uuid == page.c.uuid)
        .order_by(page.c.id, models.Workload.ptype)
    )


_columns = (
    models.App.uuid,
    models.App.id,
    models.App.uid,
    models.User.username.label("owner"),
    models.App.workspace_id.label("workspace"),
    models.App.created,
    models.App.updated,
)
