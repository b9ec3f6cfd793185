"""The two log websockets: of an app (E043) and of a pod (E041)."""

import json
from collections import deque
from collections.abc import Iterable
from contextlib import aclosing
from typing import Final

from starlette.websockets import WebSocket

from drycc.backends.cluster.base import Pods
from drycc.backends.db import Database
from drycc.backends.logstore.base import LogStore, Page
from drycc.core.apps import AppRef
from drycc.core.secrets import Keyring
from drycc.errors import DryccError, Unavailable
from drycc.kit.http import translate
from drycc.logs.admission import find_app
from drycc.logs.asks import PodAsk, read_app_ask, read_pod_ask
from drycc.logs.formats import join_chunks, show_line, show_page
from drycc.logs.read import follow_from, read_on, read_tail
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
        """Accept who may view the app; everybody else gets 403 for an answer to the handshake, or 503."""
        try:
            app = await find_app(self._db, self._keyring, websocket)
        except Unavailable as error:
            await websocket.send_denial_response(translate(error))
            return None
        except DryccError:
            await websocket.close()
            return None
        await websocket.accept()
        return app

    async def _show_app(self, app: str, message: str | bytes) -> Messages:
        ask = read_app_ask(message)
        pages = read_on(self._logs, app, ask.cursor) if ask.cursor else read_tail(self._logs, app, ask.lines)
        if ask.follow:
            pages = follow_from(self._logs, app, pages, seconds=ask.timeout)
        async with aclosing(pages):
            async for page in pages:
                for message in _show_page(app, page, as_json=ask.cursor is not None):
                    yield message

    async def _show_pod(self, app: str, pod: str, message: str | bytes) -> Messages:
        ask = read_pod_ask(message)
        if refusal := _refuse(pod, ask):
            yield refusal
        elif ask.follow and await self._is_running(app, pod):
            tail = read_tail(self._logs, app, ask.lines, pod)
            async with aclosing(follow_from(self._logs, app, tail, pod=pod)) as pages:
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


def _show_page(app: str, page: Page, *, as_json: bool) -> Iterable[str]:
    if as_json:
        return [json.dumps(show_page(page), ensure_ascii=False)]
    return join_chunks(show_line(app, line) for line in page.lines)


def _refuse(pod: str, ask: PodAsk) -> str:
    """Why this cannot be shown; empty when it can."""
    if ask.previous:
        return f"the output of all runs of {pod} is kept together on this cluster: leave out --previous\n"
    if ask.container not in ("", pod, pod.rsplit("-", 2)[0]):
        return f"container {ask.container} is not valid for pod {pod}\n"
    return ""
