"""Whether the process lives and is ready."""

from fastapi import APIRouter, Response

from drycc.api.deps import AnyUser, Ports
from drycc.api.schemas.base import ERRORS
from drycc.errors import Unavailable
from drycc.kit.http import Json

router = APIRouter(tags=["service"])


@router.get("/healthz", summary="Whether the process lives")
async def is_alive() -> Response:
    return Response("OK", media_type="text/plain")


@router.get("/readiness", summary="Whether the platform serves", responses={503: {"description": "Not now"}})
async def is_ready(ports: Ports) -> Response:
    if not ports.health.is_ready:
        raise Unavailable("starting or stopping")
    await ports.db.ping()
    return Response("OK", media_type="text/plain")


@router.get("/v2/", summary="Whether this is a controller", responses=ERRORS)
async def show_index(user: AnyUser) -> Response:
    return Json({})
