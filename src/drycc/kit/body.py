"""Request bodies: bounded in size and time, JSON or empty, read before the app runs."""

import asyncio
import json
import re
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from drycc.kit.aio import within
from drycc.kit.http import Json, refuse

LONGEST_BODY = 1024 * 1024  # bytes
BODY_TIMEOUT = 30.0  # seconds for a client to send a body
LINGER = 1.0  # seconds in which a refused body is thrown away, so that the answer is read


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
            return await refuse(408, f"The body did not arrive within {self.timeout:g} s.")(
                scope, receive, send
            )
        if body is None:
            return await self._refuse_body(scope, receive, send)
        if body and not _is_json(headers.get(b"content-type", b"")):
            kind = headers.get(b"content-type", b"").decode("latin-1")
            return await refuse(415, f'Unsupported media type "{kind}" in request.')(scope, receive, send)
        if fault := _find_fault(body):
            return await Json({"detail": f"JSON parse error - {fault}"}, 400)(scope, receive, send)
        scope = {**scope, "headers": [*_without_type(scope), (b"content-type", b"application/json")]}
        await self.app(scope, _replay(body or b"{}", receive), send)
        return None

    async def _read(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes | None:
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
        response = refuse(413, f"The body may take {self.longest} bytes.")
        start = {"type": "http.response.start", "status": 413, "headers": response.raw_headers}
        await send(start)
        await send({"type": "http.response.body", "body": response.body, "more_body": True})
        await within(LINGER, _drain(receive))
        await send({"type": "http.response.body", "body": b""})


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


def _find_fault(body: bytes) -> str | None:
    """Why the body is no text, if so. JSON lets half a character be written, and nothing can keep it.

    What is text and no JSON is told by who parses it.
    """
    try:
        body.decode()
        if _HALF.search(body):
            json.dumps(json.loads(body), ensure_ascii=False).encode()
    except UnicodeError as error:
        return str(error)
    except (ValueError, RecursionError):
        pass
    return None


_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


def _without_type(scope: Scope) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in scope["headers"] if name != b"content-type"]
