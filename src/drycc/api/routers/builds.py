"""The build of a release; all builds of an app, their logs and their end."""

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Path, Query, Response

from drycc.api import pages
from drycc.api.deps import AnyUser, ChangeApp, Ports, ViewApp
from drycc.api.pages import MOST, Paged
from drycc.api.routers.releases import IS_SHOWN, NEWEST_FIRST, Version, parse_version
from drycc.api.schemas.base import APP_ERRORS, Detail, Listing, answers
from drycc.api.schemas.builds import BuildRecord, LogPage
from drycc.api.schemas.releases import Build, NoBuild
from drycc.core import builds, models
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


NO_BUILD = "No Build matches the given query."
MOST_LINES = 1000
LONGEST_WAIT = 30
Number = Annotated[str, Path(description="The build's id")]


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


@router.get(
    "/v2/apps/{app:appid}/builds/",
    summary="List builds, whatever became of them, newest first",
    responses=answers(Listing[BuildRecord]),
)
async def list_builds(app: ViewApp, ports: Ports, page: Paged) -> Response:
    """Beyond the original. A build is `queued`, `building`, `succeeded`, `failed`, `cancelled`, `superseded`
    (by a newer push, while it was queued) or `abandoned` (its process is gone and nobody saw how it ended).
    """
    total, rows = await page.fetch(ports.db, _builds, app=app.uuid, slots=ports.settings.builds)
    return page.wrap(total, [_show(row, app.id) for row in rows])


@router.get(
    "/v2/apps/{app:appid}/builds/{build:digits}/", summary="Show a build", responses=answers(BuildRecord)
)
async def get_build_record(app: ViewApp, ports: Ports, build: Number) -> Response:
    """Beyond the original. `app_ahead` and `node_ahead` say how many builds a queued one waits for: of its
    app, and of all apps while as many run as may. `reason` says why it has not succeeded, or why the
    roll-out of its release has not.
    """
    id = _parse_id(build)
    row = await ports.db.read_one(_record, app=app.uuid, id=id, slots=ports.settings.builds)
    if row is None:
        raise NotFound(NO_BUILD)
    return Json(_show(dict(row._mapping), app.id))


@router.get(
    "/v2/apps/{app:appid}/builds/{build:digits}/log/",
    summary="Read a build's log by cursor, while it is written and later",
    responses=answers(LogPage),
)
async def read_log(
    app: ViewApp,
    ports: Ports,
    build: Number,
    cursor: Annotated[str, Query(description="Go on after the page that gave it; else from the first")] = "",
    limit: Annotated[int, Query(ge=1, le=MOST_LINES, description="Lines of a page")] = MOST_LINES,
    wait: Annotated[int, Query(ge=0, le=LONGEST_WAIT, description="Seconds to wait for a first line")] = 0,
) -> Response:
    """Beyond the original. The cursor of the answer stands after the last line given and holds over
    restarts; with `is_over` no line follows any more. Of a very long output the middle is left out: a line
    `… N lines left out` stands there, its `seq` being that of the last of them.
    """
    id = await _find(app.uuid, build, ports)
    page = await builds.poll(
        *(ports.db, ports.nudges, id, cursor, limit),
        wait=wait,
        is_closing=lambda: not ports.health.is_ready,
    )
    lines = [{"seq": line.seq, "at": line.at, "text": line.text} for line in page.lines]
    return Json({"results": lines, "cursor": page.cursor, "is_over": page.is_over})


@router.post(
    "/v2/apps/{app:appid}/builds/{build:digits}/cancel/",
    summary="End a build that is queued or building",
    status_code=204,
    responses=answers(None, 204) | {409: {"description": "It is too late", "model": Detail}},
)
async def cancel(app: ChangeApp, user: AnyUser, ports: Ports, build: Number) -> Response:
    """Beyond the original. From the release on it is too late; a release can be rolled back."""
    id = await _find(app.uuid, build, ports)
    await builds.cancel(ports.db, ports.nudges, id, f"cancelled by {user.username}")
    return Response(status_code=204)


async def _find(app: UUID, build: str, ports: Ports) -> int:
    id = _parse_id(build)
    if await ports.db.read_one(_is_there, app=app, id=id) is None:
        raise NotFound(NO_BUILD)
    return id


def _parse_id(text: str) -> int:
    """Raises `NotFound` for a number that no build has."""
    id = int(text) if len(text) < 11 else 0
    if not 0 < id <= MOST:
        raise NotFound(NO_BUILD)
    return id


def _show(row: Mapping[str, Any], app: str) -> dict[str, Any]:
    return {**row, "app": app, "duration": builds.find_duration(row["started"], row["ended"])}


_of_app = models.Build.app_uuid == sa.bindparam("app")
_is_asked = sa.and_(_of_app, models.Build.id == sa.bindparam("id"))
_is_there = sa.select(models.Build.id).where(_is_asked)
_record = builds.SHOWN.where(_is_asked)
_builds = (
    builds.SHOWN.add_columns(pages.TOTAL)
    .where(_of_app)
    .order_by(models.Build.id.desc())
    .limit(pages.LIMIT)
    .offset(pages.OFFSET)
)
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
