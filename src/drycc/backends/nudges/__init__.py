"""How processes wake each other."""

from drycc.backends.nudges.base import Nudges


async def open_nudges(url: str) -> Nudges:
    """The adapter for `memory:`."""
    from drycc.backends.nudges.memory import MemoryNudges

    return MemoryNudges()
