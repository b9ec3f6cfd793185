"""The LogStore port: lines of apps, read and followed by an opaque cursor."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

Source = Literal["app", "access", "platform"]


@dataclass(frozen=True, slots=True)
class Line:
    at: datetime
    source: Source
    text: str  # without its newline; bytes that are not UTF-8 are U+FFFD
    ptype: str = ""
    release: int = 0
    pod: str = ""


@dataclass(frozen=True, slots=True)
class Reached:
    """How far into a pod's output file the lines of one `append` go."""

    pod: str
    offset: int


@dataclass(frozen=True, slots=True)
class Page:
    lines: Sequence[Line]
    cursor: str  # stands after the last line; opaque


class LogStore(Protocol):
    async def append(self, app: str, lines: Sequence[Line], reached: Reached | None = None) -> None:
        """Keep the lines, in this order; durable when it returns."""

    async def reached(self, app: str, pod: str) -> int:
        """The offset of the last `append` for that pod's file, also before our restart; 0 if none."""

    async def read(
        self,
        app: str,
        *,
        cursor: str | None = None,
        tail: int | None = None,
        pod: str = "",
        limit: int = 1000,
    ) -> Page:
        """Lines after `cursor`, or the last `tail` ones, at most `limit`; an unknown app has none.

        What retention has dropped behind a cursor is one platform line that counts it.
        """

    def follow(self, app: str, cursor: str, *, pod: str = "") -> AsyncIterator[Page]:
        """Pages after `cursor` as they come; never ends, loses no line, keeps none for a slow reader."""

    async def forget(self, app: str) -> None:
        """Remove all lines of the app."""
