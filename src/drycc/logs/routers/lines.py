"""Lines of an app by cursor: what the released client has no command for."""

from datetime import datetime
from typing import Annotated, Any, Final, Protocol

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import AwareDatetime, BaseModel

from drycc.backends.db import Database
from drycc.backends.logstore.base import Filter, LogStore
from drycc.core.apps import AppRef
from drycc.core.secrets import Keyring
from drycc.kit.http import Json
from drycc.kit.paths import APP_PATH
from drycc.logs.admission import find_app
from drycc.logs.formats import show_page

MOST: Final = 1000
MOST_TAIL: Final = 1_000_000


class Ports(Protocol):
    """What the application that this is mounted in must hold in its state as `needs`."""

    @property
    def db(self) -> Database: ...
    @property
    def keyring(self) -> Keyring: ...
    @property
    def logs(self) -> LogStore: ...


async def get_ports(request: Request) -> Ports:
    needs: Ports = request.app.state.needs
    return needs


async def admit(
    request: Request,
    ports: Annotated[Ports, Depends(get_ports)],
    app: Annotated[str, Path(description="The app's id")],
) -> AppRef:
    return await find_app(ports.db, ports.keyring, request)


class Line(BaseModel):
    at: datetime
    source: str
    ptype: str
    pod: str
    stream: str
    text: str


class Lines(BaseModel):
    results: list[Line]
    cursor: str


class Detail(BaseModel):
    detail: str


RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": Lines},
    400: {"description": "A parameter breaks a rule: texts by parameter"},
    401: {"description": "No token, or none that holds", "model": Detail},
    403: {"description": "No permission on the app", "model": Detail},
    404: {"description": "There is no such app; a JSON string", "model": str},
}
router = APIRouter(tags=["lines"], responses=RESPONSES)


@router.get(f"{APP_PATH}/lines/", summary="Read lines by cursor")
async def list_lines(
    app: Annotated[AppRef, Depends(admit)],
    ports: Annotated[Ports, Depends(get_ports)],
    cursor: Annotated[str, Query(description="Go on after the page that gave it; else from the first")] = "",
    limit: Annotated[int, Query(ge=1, le=MOST, description="Lines of a page")] = 100,
    tail: Annotated[int | None, Query(ge=0, le=MOST_TAIL, description="Begin so many before the end")] = None,
    since: Annotated[AwareDatetime | None, Query(description="Only lines of this time and later")] = None,
    ptype: Annotated[str, Query(description="Only lines of this process type")] = "",
    pod: Annotated[str, Query(description="Only lines of this pod")] = "",
    text: Annotated[str, Query(description="Only lines in which this stands, letter for letter")] = "",
) -> Response:
    """Beyond the original. The cursor of the answer stands after the last line given, and when nothing
    matched among the 100,000 lines that one request looks at, after those: ask on with it, with the same
    filters. An answer without lines and with the cursor that was asked with means: nothing new yet.

    What is no longer kept behind a cursor is one line of the source `platform` that counts it. `source` is
    `app`, `access` (a request through the edge) or `platform`; `stream` is `stdout` for all that a pod
    prints, whose two streams are one file, and empty for the others. Lines longer than 16 KiB come in
    pieces that end in `…`.
    """
    only = Filter(pod, ptype, text, since)
    page = await ports.logs.read(app.id, cursor=cursor or None, tail=tail, only=only, limit=limit)
    return Json(show_page(page))
