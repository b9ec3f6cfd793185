"""The role `api`: the FastAPI application, mounted with what a request passes on its way there."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Mount

from drycc import __version__
from drycc.api.deps import Needs
from drycc.api.routers import apps, auth, builds, configs, health, keys, pods, releases, tokens
from drycc.core.identity import Throttle
from drycc.core.tokens import TOPIC, forget
from drycc.kit.aio import running
from drycc.kit.body import JsonBody
from drycc.kit.http import Errors, FinalSlash, Json, answer_no_page
from drycc.roles import Role

ROUTERS = (health, auth, tokens, keys, apps, builds, configs, releases, pods)

# What a framework that clients were written against says of the same faults.
TEXTS = {
    "missing": "This field is required.",
    "string_type": "Not a valid string.",
    "string_too_long": "Ensure this field has no more than {max_length} characters.",
    "bool_type": "Must be a valid boolean.",
    "int_type": "A valid integer is required.",
}
NULL = "This field may not be null."
NO_OBJECT = "Invalid data. Expected a dictionary, but got {}."


def make_app(needs: Needs, *, routers: Sequence[APIRouter] = ()) -> FastAPI:
    """The application alone, as its routes and its OpenAPI document stand in it."""
    app = FastAPI(
        title="dryccd",
        version=__version__,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={HTTPException: _answer_http, RequestValidationError: _answer_invalid},
    )
    app.add_middleware(Errors)
    app.state.needs = needs
    app.state.throttle = Throttle()
    for module in ROUTERS:
        app.include_router(module.router)
    for router in routers:
        app.include_router(router)
    return app


def make_routes(needs: Needs, *, routers: Sequence[APIRouter] = ()) -> Sequence[BaseRoute]:
    return [Mount("", app=FinalSlash(JsonBody(make_app(needs, routers=routers)), "/v2/"))]


@asynccontextmanager
async def lifespan(needs: Needs) -> AsyncIterator[None]:
    async def follow_revocations() -> None:
        async with needs.nudges.subscribe(TOPIC) as ids:
            async for _ in ids:
                forget(needs.db)

    async with running(("tokens", follow_revocations)):
        yield


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return answer_no_page()
    detail = f'Method "{request.method}" not allowed.' if error.status_code == 405 else error.detail
    return Json({"detail": detail}, error.status_code, dict(error.headers or {}))


async def _answer_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = error.errors()
    if faults[0]["type"] == "json_invalid":
        fault = json.JSONDecodeError(faults[0]["ctx"]["error"], error.body, faults[0]["loc"][1])
        return Json({"detail": f"JSON parse error - {fault}"}, 400)
    fields: dict[str, list[str]] = {}
    for fault in faults:
        name = str(fault["loc"][1]) if len(fault["loc"]) > 1 else "non_field_errors"
        texts = fields.setdefault(name, [])
        if (text := _describe(fault)) not in texts:
            texts.append(text)
    return Json(fields, 400)


def _describe(fault: dict[str, Any]) -> str:
    if fault["type"] in ("model_attributes_type", "dict_type"):
        return NO_OBJECT.format(type(fault["input"]).__name__)
    if fault["input"] is None and fault["type"].endswith("_type"):
        return NULL
    text = TEXTS.get(fault["type"])
    return text.format(**fault.get("ctx", {})) if text else str(fault["msg"])


def make_role(*routers: APIRouter) -> Role[Needs]:
    """The role, with client routers of other doors in its application and its OpenAPI document."""
    return Role("api", Needs, lifespan, partial(make_routes, routers=routers))
