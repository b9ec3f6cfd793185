"""How tests wait: for a condition, never for a time."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any


async def until(
    condition: Callable[[], Any | Awaitable[Any]], *, within: float = 10, every: float = 0.005
) -> Any:
    """The first truthy answer of `condition`; fails when there is none `within` seconds."""
    async with asyncio.timeout(within):
        while True:
            answer = condition()
            answer = await answer if inspect.isawaitable(answer) else answer
            if answer:
                return answer
            await asyncio.sleep(every)
