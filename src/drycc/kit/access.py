"""The platform's own log of requests: one line each, without the secrets that stand in targets."""

import logging
import re
from time import monotonic
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("drycc.http")

_secret_value = re.compile(
    r"(?i)([?&;](?:[\w.-]*[_.-])?(?:token|key|code|state|password|passwd|secret|signature)=)[^&;#\s]+"
)
_secret_path = re.compile(r"(/auth/token/)[^/?\s]+")


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


def redact(target: str) -> str:
    """A request target as it may stand in a log: values of secret parameters replaced, others kept."""
    return _secret_path.sub(r"\1***", _secret_value.sub(r"\1***", target))


def show_target(scope: Scope) -> str:
    """Path and query of a request as they may stand in a log."""
    query = scope.get("query_string", b"").decode("latin-1")
    return redact(quote(scope["path"]) + (f"?{query}" if query else ""))
