"""The timer that keeps the store's bounds by age and over all apps."""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final

from drycc.backends.logstore.base import LogStore
from drycc.errors import Unavailable
from drycc.kit.ids import now

log = logging.getLogger("drycc.logs")

MOST_SECONDS: Final = 60.0
LEAST_SECONDS: Final = 0.1
LOOKS: Final = 16  # while a line gets as old as it may


def choose_pause(age: float) -> float:
    """Seconds between two looks, when lines are kept for `age` seconds."""
    return max(LEAST_SECONDS, min(age / LOOKS, MOST_SECONDS))


async def keep_bounds(logs: LogStore, pause: float, clock: Callable[[], datetime] = now) -> None:
    """Drop what is too old or too much, every `pause` seconds; never ends."""
    while True:
        try:
            await logs.drop_old(clock())
        except Unavailable as error:
            log.warning("%s", error)
        await asyncio.sleep(pause)
