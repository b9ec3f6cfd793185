"""HTTP pieces between uvicorn and the roles' routes: what every response of the process passes.

Everything is plain ASGI: FastAPI knows nothing of it, and it knows nothing of FastAPI.
"""

import asyncio
import json
import logging
import re
from collections.abc import MutableMapping, Sequence
from datetime import datetime
from time import monotonic
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
    NotFound,
    Throttled,
    Unauthenticated,
    Unavailable,
    Unprocessable,
)
from drycc.kit.aio import within
from drycc.kit.ids import stamp

log = logging.getLogger("drycc.http")

VERSION_HEADERS = ((b"DRYCC_API_VERSION", b"2.3"), (b"DRYCC_PLATFORM_VERSION", b"2.3.0"))
CORS_HEADERS = ("content-type", "accept", "origin", "Authorization", "Host")
LONGEST_HEADERS = 32 * 1024  # bytes of a request's target and headers
LONGEST_BODY = 1024 * 1024  # bytes
BODY_TIMEOUT = 30.0  # seconds for a client to send a body
LINGER = 1.0  # seconds in which a refused body is thrown away, so that the answer is read
STATUS = {
    NotFound: 404,
    Conflict: 409,
    Invalid: 400,
    Unprocessable: 422,
    Forbidden: 403,
    Unauthenticated: 401,
    Throttled: 429,
    Unavailable: 503,
}
NO_PAGE = "<!doctype html><html><head><title>Not Found</title></head><body><h1>Not Found</h1></body></html>"
_secret_value = re.compile(
    r"(?i)([?&;](?:[\w.-]*[_.-])?(?:token|key|code|state|password|passwd|secret|signature)=)[^&;#\s]+"
)
_secret_path = re.compile(r"(/auth/token/)[^/?\s]+")


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
    """JSON from rows as they come: times and UUIDs become text."""

    def render(self, content: Any) -> bytes:
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), default=_plain)
        return text.encode()


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
    return Json(content, status, headers)


def answer_no_page() -> Response:
    """For a path that no route has, unlike an object that is not there."""
    return HTMLResponse(NO_PAGE, 404)


def redact(target: str) -> str:
    """A request target as it may stand in a log: values of secret parameters replaced, others kept."""
    return _secret_path.sub(r"\1***", _secret_value.sub(r"\1***", target))


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
        except Exception:
            if has_started:
                raise
            await _answer_bug(scope)(scope, receive, send)
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
            return await _refuse(431, text)(scope, receive, send)
        await self.app(scope, receive, send)
        return None


class JsonBody:
    """Reads the body before the app runs: JSON of at most `longest` bytes, and an empty one is `{}`."""

    def __init__(self, app: ASGIApp, longest: int = LONGEST_BODY, timeout: float = BODY_TIMEOUT) -> None:
        self.app = app
        self.longest = longest
        self.timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return await self.app(scope, receive, send)
        headers = dict(scope["headers"])
        try:
            body = await self._read(headers, receive)
        except ConnectionAbortedError:  # half a body is no request
            return None
        except TimeoutError:
            return await _refuse(408, f"The body did not arrive within {self.timeout:g} s.")(
                scope, receive, send
            )
        if body is None:
            return await self._refuse_body(scope, receive, send)
        if body and not _is_json(headers.get(b"content-type", b"")):
            kind = headers.get(b"content-type", b"").decode("latin-1")
            return await _refuse(415, f'Unsupported media type "{kind}" in request.')(scope, receive, send)
        scope = {**scope, "headers": [*_without_type(scope), (b"content-type", b"application/json")]}
        await self.app(scope, _replay(body or b"{}", receive), send)
        return None

    async def _read(self, headers: MutableMapping[bytes, bytes], receive: Receive) -> bytes | None:
        """None when it is too long, at once when the client says so itself."""
        if int(headers.get(b"content-length", b"0")) > self.longest:
            return None
        body = bytearray()
        async with asyncio.timeout(self.timeout):
            while len(body) <= self.longest:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ConnectionAbortedError
                body += message.get("body", b"")
                if not message.get("more_body"):
                    break
        return bytes(body) if len(body) <= self.longest else None

    async def _refuse_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = _refuse(413, f"The body may take {self.longest} bytes.")
        start = {"type": "http.response.start", "status": 413, "headers": response.raw_headers}
        await send(start)
        await send({"type": "http.response.body", "body": response.body, "more_body": True})
        await within(LINGER, _drain(receive))
        await send({"type": "http.response.body", "body": b""})


class AccessLog:
    """One line a request: method, target without secrets, status, milliseconds."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started, status = monotonic(), 0

        async def watch(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, watch)
        finally:
            took = (monotonic() - started) * 1000
            log.info("%s %s %d %.1f ms", scope["method"], show_target(scope), status, took)
        return None


def show_target(scope: Scope) -> str:
    """Path and query of a request as they may stand in a log."""
    query = scope.get("query_string", b"").decode("latin-1")
    return redact(quote(scope["path"]) + (f"?{query}" if query else ""))


def with_path(scope: Scope, path: str) -> Scope:
    """A copy of the scope for another path."""
    return {**scope, "path": path, "raw_path": quote(path).encode()}


def _answer_bug(scope: Scope) -> Response:
    """Called while the exception is handled; its id leads from the answer to the trace."""
    id = uuid4().hex
    log.exception("internal error %s in %s %s", id, scope["method"], show_target(scope))
    return Json({"detail": "Server Error"}, 500, {"X-Error-Id": id})


def _refuse(status: int, text: str) -> Response:
    """For a request whose rest is not read: the connection ends with it."""
    return Json({"detail": text}, status, {"Connection": "close"})


async def _drain(receive: Receive) -> None:
    while (await receive()).get("more_body"):
        pass


def _replay(body: bytes, receive: Receive) -> Receive:
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


def _is_json(kind: bytes) -> bool:
    return kind.partition(b";")[0].strip().lower() == b"application/json"


def _without_type(scope: Scope) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in scope["headers"] if name != b"content-type"]


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return stamp(value) or ""
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"no JSON form for {type(value).__name__}")
