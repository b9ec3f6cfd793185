"""A websocket of which the client's first message is the question and all others are ignored."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from drycc.errors import DryccError, Unavailable
from drycc.kit.aio import cancel, within

FIRST_MESSAGE_SECONDS: Final = 10.0
CLOSE_SECONDS: Final = 1.0
NORMAL, POLICY, TRY_LATER = 1000, 1008, 1013

Messages = AsyncGenerator[str | bytes, None]
Closing = tuple[int, str]  # code and reason
GONE: Final[Closing] = (0, "")


async def receive_first(websocket: WebSocket) -> str | bytes | None:
    """What the client asks; None when it left, or said nothing in time and was closed."""
    try:
        async with asyncio.timeout(FIRST_MESSAGE_SECONDS):
            message = await websocket.receive()
    except TimeoutError:
        await websocket.close(POLICY, "the first message did not come in time")
        return None
    if message["type"] == "websocket.disconnect":
        return None
    return message.get("text") or message.get("bytes") or ""


async def answer(websocket: WebSocket, messages: Messages, stall: float) -> None:
    """Send the messages and close; stop when the client leaves or takes nothing for `stall` seconds.

    An error of ours closes with its text as the reason.
    """
    sending = asyncio.create_task(_send_all(websocket, messages, stall))
    leaving = asyncio.create_task(_wait_gone(websocket))
    try:
        await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        closing = await sending if sending.done() else GONE
    finally:
        await cancel(sending)
        await cancel(leaving)
    if closing != GONE:
        code, reason = closing
        patience = stall if code == NORMAL else CLOSE_SECONDS  # what was sent before is still on its way
        await within(patience, _close(websocket, code, reason))


async def _send_all(websocket: WebSocket, messages: Messages, stall: float) -> Closing:
    try:
        async with aclosing(messages):
            async for message in messages:
                async with asyncio.timeout(stall):
                    await _send(websocket, message)
    except TimeoutError:
        return TRY_LATER, "the messages are not read"
    except WebSocketDisconnect:
        return GONE
    except Unavailable as error:
        return TRY_LATER, str(error)
    except DryccError as error:
        return POLICY, str(error)
    return NORMAL, ""


async def _send(websocket: WebSocket, message: str | bytes) -> None:
    if isinstance(message, str):
        await websocket.send_text(message)
    else:
        await websocket.send_bytes(message)


async def _wait_gone(websocket: WebSocket) -> None:
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass


async def _close(websocket: WebSocket, code: int, reason: str) -> None:
    try:
        await websocket.close(code, reason[:120])
    except (WebSocketDisconnect, RuntimeError):
        return  # it left in the meantime
