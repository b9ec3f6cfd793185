"""The HTTP pieces alone: translation, body, log lines, on a small app and a real socket."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from drycc import errors
from drycc.kit.body import JsonBody
from drycc.kit.http import Errors, FinalSlash, Json, translate, wrap_routes
from tests.api.conftest import listen
from tests.platform import Answer, exchange


async def echo(request: Request) -> Response:
    if request.url.path == "/fail":
        raise errors.Conflict("busy")
    if request.url.path == "/bug":
        raise ZeroDivisionError
    if request.url.path == "/full":
        raise OSError(errno.ENOSPC, "No space left on device")
    body = await request.body()
    return Json({"path": request.url.path, "method": request.method, "body": body.decode()})


@pytest.fixture
async def port() -> AsyncIterator[int]:
    inner = Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "POST"])])
    inner.add_middleware(Errors)
    mounted = FinalSlash(JsonBody(inner, longest=1000, timeout=0.2), "/v2/")
    async with listen(wrap_routes(Starlette(routes=[Mount("", mounted)]))) as port:
        yield port


async def call(port: int, method: str, path: str, body: bytes | None = None, kind: str = "") -> Answer:
    headers = {"Host": "x"} | ({"Content-Type": kind} if kind else {})
    return await asyncio.to_thread(exchange, port, method, path, headers, body)


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (errors.NotFound("No App matches the given query."), 404, '"No App matches the given query."'),
        (errors.Conflict("busy"), 409, '{"detail":"busy"}'),
        (errors.Invalid("bad"), 400, '{"detail":"bad"}'),
        (errors.Invalid("bad", "worse", field="id"), 400, '{"id":["bad","worse"]}'),
        (errors.Unprocessable("no"), 422, '{"detail":"no"}'),
        (errors.Forbidden("no"), 403, '{"detail":"no"}'),
        (errors.Unauthenticated("who"), 401, '{"detail":"who"}'),
        (errors.Unavailable("away"), 503, '{"detail":"away"}'),
        (errors.NoSpace("full"), 503, '{"detail":"full"}'),
        (errors.Throttled("slow", seconds=9.6), 429, '{"detail":"slow"}'),
        (errors.BuildFailed("schön"), 400, '{"detail":"schön"}'),
    ],
)
def test_our_errors_as_clients_parse_them(error: errors.DryccError, status: int, body: str) -> None:
    response = translate(error)
    assert (response.status_code, bytes(response.body).decode()) == (status, body)
    assert response.headers["content-type"] == "application/json"
    if status == 401:
        assert response.headers["www-authenticate"] == "token"
    if status == 429:
        assert response.headers["retry-after"] == "10"
    if status == 503:
        assert response.headers["retry-after"] == "5"


async def test_errors_are_translated_and_bugs_have_an_id(port: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "drycc.http")
    failed = await call(port, "GET", "/fail")
    assert (failed.status, failed.json()) == (409, {"detail": "busy"})
    bug = await call(port, "GET", "/bug?password=hunter2")
    assert (bug.status, bug.json()) == (500, {"detail": "Server Error"})
    assert bug.headers["x-error-id"] in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert "GET /bug?password=*** 500" in caplog.text
    assert "hunter2" not in caplog.text


async def test_a_full_disk_is_said_without_a_trace(port: int, caplog: pytest.LogCaptureFixture) -> None:
    answer = await call(port, "GET", "/full")
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["detail"].startswith("no space is left on the platform's disk")
    assert "Traceback" not in caplog.text


async def test_slashes(port: int) -> None:
    for asked, got in [
        ("/v2", "/v2/"),
        ("/v2/x", "/v2/x/"),
        ("/v2/x/", "/v2/x/"),
        ("//v2/x", "/v2/x/"),
        ("/v2x", "/v2x"),
        ("/healthz", "/healthz"),
        ("/v2/a%2Fb%20c%C3%BC", "/v2/a/b cü/"),
    ]:
        assert (await call(port, "GET", asked)).json()["path"] == got, asked
    head = await call(port, "HEAD", "/v2/x")
    assert (head.status, head.body) == (200, b"")


async def test_bodies_are_json_or_empty_and_bounded(port: int) -> None:
    kind = "application/json"
    assert (await call(port, "POST", "/", b'{"a":1}', kind)).json()["body"] == '{"a":1}'
    assert (await call(port, "POST", "/", b"{}", "Application/JSON;charset=utf-8")).status == 200
    for empty in (None, b""):
        for any_kind in ("", kind, "text/plain"):
            assert (await call(port, "POST", "/", empty, any_kind)).json()["body"] == "{}"
    for other in ("text/plain", "", "application/x-www-form-urlencoded"):
        refused = await call(port, "POST", "/", b"a=b", other)
        assert (refused.status, refused.json()) == (
            415,
            {"detail": f'Unsupported media type "{other}" in request.'},
        )
    assert (await call(port, "POST", "/", b"x" * 1000, kind)).status == 200
    long = await call(port, "POST", "/", b"x" * 1001, kind)
    assert (long.status, long.headers["connection"]) == (413, "close")


async def test_a_body_that_does_not_come_and_one_that_breaks_off(port: int) -> None:
    def send(end: bool) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
            if end:
                connection.shutdown(socket.SHUT_WR)
            return connection.recv(65536)

    assert (await asyncio.to_thread(send, False)).startswith(b"HTTP/1.1 408 ")
    assert await asyncio.to_thread(send, True) == b""


async def test_an_error_after_the_answer_began_is_not_answered_twice() -> None:
    async def half(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("half")(scope, receive, send)
        raise errors.Conflict("too late")

    sent = []

    async def send(message: object) -> None:
        sent.append(message)

    async def receive() -> dict[str, object]:
        return {"type": "http.request"}

    with pytest.raises(errors.Conflict):
        await Errors(half)({"type": "http", "method": "GET", "path": "/"}, receive, send)
    assert len(sent) == 2


@pytest.mark.parametrize(
    "body",
    [
        rb'{"web": "\ud800"}',
        rb'{"\uDFFF": 1}',
        rb'["\udc00\ud800"]',
        b'{"web": "\xed\xa0\x80"}',
        b'{"web": "\xff"}',
    ],
)
async def test_half_a_character_is_no_json(port: int, body: bytes) -> None:
    answer = await call(port, "POST", "/v2/apps/", body, "application/json")
    assert answer.status == 400
    assert answer.json()["detail"].startswith("JSON parse error - 'utf-8' codec can't ")


@pytest.mark.parametrize("body", [rb'{"web": "\ud83d\ude00"}', rb'["\\ud800"]', rb'{"\ud800"', b"[" * 999])
async def test_whole_characters_and_what_is_no_json_pass(port: int, body: bytes) -> None:
    answer = await call(port, "POST", "/v2/apps/", body, "application/json")
    assert (answer.status, answer.json()["body"]) == (200, body.decode())


def test_an_answer_never_fails_for_half_a_character() -> None:
    assert Json({"web": "\ud800 schön"}).body == '{"web":"\\ud800 schön"}'.encode()
