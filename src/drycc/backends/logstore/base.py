"""The LogStore port: lines of apps, read and followed by an opaque cursor."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, Protocol

LINE_BYTES: Final = 16 * 1024  # a longer line is kept as several
CUT: Final = "\u2026"  # ends a piece of a line that goes on in the next
SCAN_LINES: Final = 100_000  # that one read looks at

Source = Literal["app", "access", "platform"]


@dataclass(frozen=True, slots=True)
class Line:
    at: datetime
    source: Source
    text: str  # without its newline; a platform line begins with its level: "INFO …", "WARN …"
    ptype: str = ""
    release: int = 0
    pod: str = ""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which lines a reader wants: those for which every part that is set holds."""

    pod: str = ""
    ptype: str = ""
    text: str = ""  # stands somewhere in the line, letter for letter
    since: datetime | None = None

    def takes(self, line: Line) -> bool:
        return (
            self.pod in ("", line.pod)
            and self.ptype in ("", line.ptype)
            and self.text in line.text
            and (self.since is None or line.at >= self.since)
        )


EVERY_LINE: Final = Filter()


@dataclass(frozen=True, slots=True)
class Reached:
    """How far into a pod's output file the lines of one `append` go."""

    pod: str
    offset: int
    is_last: bool = False  # the pod has ended and its file is read to the end


@dataclass(frozen=True, slots=True)
class Page:
    lines: Sequence[Line]
    cursor: str  # stands after the last line that was looked at; opaque
    is_over: bool = False  # with a pod: it has ended and no line of it follows
    has_more: bool = False  # the page is full; a read from its cursor goes on at once


class LogStore(Protocol):
    async def append(self, app: str, lines: Sequence[Line], reached: Reached | None = None) -> None:
        """Keep the lines, in this order, all or none; durable when it returns.

        With `reached` a repeat is known by its offset and ignored. Raises `Unavailable` when the
        store cannot write; then the same call may be made again.
        """

    async def reached(self, app: str, pod: str) -> int:
        """The offset of the last `append` for that pod's file, also before our restart; 0 if none."""

    async def read(
        self,
        app: str,
        *,
        cursor: str | None = None,
        tail: int | None = None,
        only: Filter = EVERY_LINE,
        limit: int = 1000,
        scan: int = SCAN_LINES,
    ) -> Page:
        """Lines after `cursor`, or the last `tail` ones, at most `limit`; an unknown app has none.

        With `tail` the page begins there and goes on by cursor like any other. After looking at
        `scan` lines the page is full, however few of them it has, and so it is when its lines are
        long; a tail is looked for among so many lines. What retention has dropped behind a cursor
        is one platform line that counts it, whatever the filter. Raises `Invalid` for a cursor that
        is none of ours; one of an app of this name that was forgotten stands at the beginning.
        """

    def follow(self, app: str, cursor: str, *, pod: str = "") -> AsyncGenerator[Page, None]:
        """Pages after `cursor` as they come; loses no line, keeps none for a slow reader.

        Ends only with a `pod`, after a page that says `is_over`, which may have no lines.
        """

    async def drop_old(self, at: datetime) -> None:
        """Drop the lines that the store's bounds no longer allow when it is `at`; wakes who follows.

        Bounds by age and over all apps hold after each call, the one of a single app at any time.
        Raises `Unavailable` when some could not be dropped.
        """

    async def forget(self, app: str) -> None:
        """Remove all lines of the app, and those of its present pods that come later."""
