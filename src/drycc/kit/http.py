"""HTTP pieces between uvicorn and the roles' routes: what every response of the process passes.

Everything is plain ASGI: FastAPI knows nothing of it, and it knows nothing of FastAPI.
"""

import json
import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from drycc.errors import (
    Conflict,
    DryccError,
    Forbidden,
    Invalid,
    NoSpace,
    NotFound,
    Throttled,
    Unauthenticated,
    Unavailable,
    Unprocessable,
)
from drycc.kit.access import AccessLog, show_target
from drycc.kit.disk import find_trouble
from drycc.kit.ids import stamp

log = logging.getLogger("drycc.http")

VERSION_HEADERS = ((b"DRYCC_API_VERSION", b"2.3"), (b"DRYCC_PLATFORM_VERSION", b"2.3.0"))
CORS_HEADERS = ("content-type", "accept", "origin", "Authorization", "Host")
LONGEST_HEADERS = 32 * 1024  # bytes of a request's target and headers
STATUS = {
    NotFound: 404,
    Conflict: 409,
    Invalid: 400,
    Unprocessable: 422,
    Forbidden: 403,
    Unauthenticated: 401,
    Throttled: 429,
    Unavailable: 503,
    NoSpace: 503,
}
RETRY_AFTER = 5  # seconds, for what does not answer
NO_PAGE = "<!doctype html><html><head><title>Not Found</title></head><body><h1>Not Found</h1></body></html>"


def wrap_routes(app: Starlette) -> ASGIApp:
    """All that a request passes before the routes of the roles and a response behind them."""
    app.add_middleware(Errors)  # inside Starlette's own answer to exceptions
    cors = CORSMiddleware(
        CollapseSlashes(LimitHeaders(app)),
        allow_origins=["*"],
        allow_methods=["DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT"],
        allow_headers=CORS_HEADERS,
        expose_headers=[name.decode() for name, _ in VERSION_HEADERS],
    )
    return AccessLog(AddHeaders(cors, VERSION_HEADERS))


class Json(JSONResponse):
    """JSON from rows as they come: times and UUIDs become text, half a character its escape."""

    def render(self, content: Any) -> bytes:
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), default=_plain)
        return text.encode(errors="backslashreplace")


def translate(error: DryccError) -> Response:
    """The status and the body that clients parse."""
    status = STATUS.get(type(error), 400)
    content: Any = {"detail": str(error)}
    headers = {}
    if isinstance(error, NotFound):
        content = str(error)
    elif isinstance(error, Invalid) and error.field:
        content = {error.field: error.texts}
    elif isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = error.scheme
    elif isinstance(error, Throttled):
        headers["Retry-After"] = f"{error.seconds:.0f}"
    elif isinstance(error, Unavailable):
        headers["Retry-After"] = str(RETRY_AFTER)
    return Json(content, status, headers)


def answer_no_page() -> Response:
    """For a path that no route has, unlike an object that is not there."""
    return HTMLResponse(NO_PAGE, 404)


class Errors:
    """Our own errors as responses; anything else is a bug: logged with its trace under an id."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        has_started = False

        async def watch(message: Message) -> None:
            nonlocal has_started
            has_started = has_started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except DryccError as error:
            if has_started:
                raise
            await translate(error)(scope, receive, send)
        except Exception as error:
            if has_started:
                raise
            trouble = find_trouble(error)
            await (translate(trouble) if trouble else _answer_bug(scope))(scope, receive, send)
        return None


class AddHeaders:
    """Headers on every response, also on the refusal of a websocket."""

    def __init__(self, app: ASGIApp, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.app = app
        self.headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def add(message: Message) -> None:
            if message["type"].endswith((".response.start", "websocket.accept")):
                message = {**message, "headers": [*message.get("headers", ()), *self.headers]}
            await send(message)

        await self.app(scope, receive, add)


class CollapseSlashes:
    """`//v2/` is `/v2/`: a client joins a controller's URL and a path without looking."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path", "").startswith("//"):
            scope = with_path(scope, "/" + scope["path"].lstrip("/"))
        await self.app(scope, receive, send)


class FinalSlash:
    """Routes below `prefix` are written with a final slash and answer without it too, unredirected.

    HEAD is answered as GET is; the server leaves the body out.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self.app = app
        self.prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if scope["method"] == "HEAD":
                scope = {**scope, "method": "GET"}
            path = scope["path"]
            if (path + "/").startswith(self.prefix) and not path.endswith("/"):
                scope = with_path(scope, path + "/")
        await self.app(scope, receive, send)


class LimitHeaders:
    """431 for a request whose target and headers are longer than any client's."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = sum(len(name) + len(value) for name, value in scope.get("headers", ()))
        size += len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"")
        if scope["type"] == "http" and size > LONGEST_HEADERS:
            text = f"Target and headers take {size} bytes, they may take {LONGEST_HEADERS}."
            return await refuse(431, text)(scope, receive, send)
        await self.app(scope, receive, send)
        return None


def with_path(scope: Scope, path: str) -> Scope:
    """A copy of the scope for another path."""
    return {**scope, "path": path, "raw_path": quote(path).encode()}


def _answer_bug(scope: Scope) -> Response:
    """Called while the exception is handled; its id leads from the answer to the trace."""
    id = uuid4().hex
    log.exception("internal error %s in %s %s", id, scope["method"], show_target(scope))
    return Json({"detail": "Server Error"}, 500, {"X-Error-Id": id})


def refuse(status: int, text: str) -> Response:
    """For a request whose rest is not read: the connection ends with it."""
    return Json({"detail": text}, status, {"Connection": "close"})


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return stamp(value) or ""
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"no JSON form for {type(value).__name__}")
