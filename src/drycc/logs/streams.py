"""The two log websockets: of an app (E043) and of a pod (E041)."""

from collections import deque
from contextlib import aclosing
from typing import Final

from starlette.websockets import WebSocket

from drycc.backends.cluster.base import Pods
from drycc.backends.db import Database
from drycc.backends.logstore.base import LogStore
from drycc.core import apps, policy, tokens
from drycc.core.apps import AppRef
from drycc.core.secrets import Keyring
from drycc.errors import DryccError, Unauthenticated
from drycc.logs.asks import PodAsk, read_app_ask, read_pod_ask
from drycc.logs.formats import join_chunks, show_line
from drycc.logs.read import follow_tail, read_tail
from drycc.logs.sockets import Messages, answer, receive_first

STALL_SECONDS: Final = 30.0
TEXT_CHARACTERS: Final = 8 * 1024 * 1024  # of the one message with a pod's lines; the client takes 32 MiB


class Streams:
    def __init__(
        self, db: Database, keyring: Keyring, pods: Pods, logs: LogStore, stall: float = STALL_SECONDS
    ) -> None:
        self._db = db
        self._keyring = keyring
        self._pods = pods
        self._logs = logs
        self._stall = stall

    async def stream_app(self, websocket: WebSocket) -> None:
        """Lines of the app as the client prints them; with `follow` until the time is over."""
        app = await self._admit(websocket)
        if app and (message := await receive_first(websocket)) is not None:
            await answer(websocket, self._show_app(app.id, message), self._stall)

    async def stream_pod(self, websocket: WebSocket) -> None:
        """What one pod printed, and nothing else; with `follow` until it ends."""
        app = await self._admit(websocket)
        if app and (message := await receive_first(websocket)) is not None:
            shown = self._show_pod(app.id, websocket.path_params["pod"], message)
            await answer(websocket, shown, self._stall)

    async def _admit(self, websocket: WebSocket) -> AppRef | None:
        """Accept who may view the app; everybody else gets 403 for an answer to the handshake."""
        try:
            app = await self._find_app(websocket)
        except DryccError:
            await websocket.close()
            return None
        await websocket.accept()
        return app

    async def _find_app(self, websocket: WebSocket) -> AppRef:
        header = websocket.headers.get("authorization", "").encode("latin-1")
        identity = await tokens.authenticate(self._db, self._keyring, header)
        if identity is None:
            raise Unauthenticated("Authentication credentials were not provided.")
        app = await apps.find(self._db, websocket.path_params["app"])
        policy.require(identity, app, "view")
        return app

    async def _show_app(self, app: str, message: str | bytes) -> Messages:
        ask = read_app_ask(message)
        if ask.follow:
            pages = follow_tail(self._logs, app, ask.lines, seconds=ask.timeout)
        else:
            pages = read_tail(self._logs, app, ask.lines)
        async with aclosing(pages):
            async for page in pages:
                for chunk in join_chunks(show_line(app, line) for line in page.lines):
                    yield chunk

    async def _show_pod(self, app: str, pod: str, message: str | bytes) -> Messages:
        ask = read_pod_ask(message)
        if refusal := _refuse(pod, ask):
            yield refusal
        elif ask.follow and await self._is_running(app, pod):
            async with aclosing(follow_tail(self._logs, app, ask.lines, pod=pod)) as pages:
                async for page in pages:
                    for chunk in join_chunks(f"{line.text}\n" for line in page.lines):
                        yield chunk.encode()
        elif text := await self._read_pod(app, pod, ask.lines):
            yield text

    async def _is_running(self, app: str, pod: str) -> bool:
        return any(running.name == pod for running in await self._pods.list(app))

    async def _read_pod(self, app: str, pod: str, lines: int) -> str:
        """The last lines of the pod in one text of bounded size."""
        texts: deque[str] = deque()
        size = 0
        async for page in read_tail(self._logs, app, lines, pod):
            for line in page.lines:
                texts.append(f"{line.text}\n")
                size += len(texts[-1])
            while size > TEXT_CHARACTERS:
                size -= len(texts.popleft())
        return "".join(texts)


def _refuse(pod: str, ask: PodAsk) -> str:
    """Why this cannot be shown; empty when it can."""
    if ask.previous:
        return f"the output of all runs of {pod} is kept together on this cluster: leave out --previous\n"
    if ask.container not in ("", pod, pod.rsplit("-", 2)[0]):
        return f"container {ask.container} is not valid for pod {pod}\n"
    return ""
