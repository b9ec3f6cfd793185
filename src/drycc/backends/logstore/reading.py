"""What can be read of one app's lines at one instant: the newest blocks from memory, the others from
segments. It never changes, so it is read in any thread while the writer goes on."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, pairwise
from pathlib import Path

from drycc.backends.logstore.base import EVERY_LINE, Filter, Line, Page
from drycc.backends.logstore.blocks import Block, decode
from drycc.errors import Invalid
from drycc.kit.ids import now

PAGE_CHARACTERS = 1024 * 1024
CURSOR = re.compile(r"([0-9a-f]{8})-([0-9]{1,18})")
CLOCK_SLACK = timedelta(hours=1)  # by which a line's time may be after that of its file


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of blocks; `first` is the number of its first line."""

    first: int
    path: Path
    size: int

    def blocks(self) -> list[Block]:
        """Empty when retention was faster."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return []
        return [block for block, _ in decode(data) if not block.is_head]

    def is_before(self, moment: datetime) -> bool:
        """Whether it was written to for the last time well before the moment."""
        try:
            written = self.path.stat().st_mtime
        except FileNotFoundError:
            return True
        return datetime.fromtimestamp(written, UTC) + CLOCK_SLACK < moment


@dataclass(frozen=True, slots=True)
class View:
    life: str  # differs after the app was forgotten
    end: int = 0  # number of the next line
    segments: tuple[Segment, ...] = ()
    recent: tuple[Block, ...] = ()  # the newest blocks, without a gap up to `end`
    ended: frozenset[str] = frozenset()  # pods that print nothing more

    @property
    def first(self) -> int:
        return self.segments[0].first if self.segments else self.end

    def cursor(self, number: int) -> str:
        return f"{self.life}-{number}"

    def page(self, cursor: str | None, tail: int | None, only: Filter, limit: int, scan: int) -> Page:
        start = self.first if cursor is None else self._number(cursor)
        if only.since is not None:
            start = max(start, self._since(only.since))
        if tail is not None:
            start = self._tail(tail, start, only, scan)
        reader = _Reader(start, only, limit, scan)
        for block in self._forward(start):
            reader.take(block)
            if reader.is_full:
                break
        if reader.next < self.first:
            reader.mark(self.first, now())
        is_over = only.pod in self.ended and reader.next >= self.end
        return Page(
            reader.lines, self.cursor(reader.next), is_over, reader.is_full and reader.next < self.end
        )

    def _number(self, cursor: str) -> int:
        """The number of the line after the cursor."""
        found = CURSOR.fullmatch(cursor)
        if not found:
            raise Invalid("this cursor is none of ours", field="cursor")
        return min(int(found[2]), self.end) if found[1] == self.life else self.first

    def _since(self, moment: datetime) -> int:
        """A number before which all lines are older: that of the first line of some segment."""
        start = self.first
        for segment, following in pairwise(self.segments):
            if not segment.is_before(moment):
                break
            start = following.first
        return start

    def _tail(self, count: int, start: int, only: Filter, scan: int) -> int:
        """The number, `start` or later, from which on there are `count` lines that the filter takes."""
        if only == EVERY_LINE or count <= 0:
            return max(start, self.first, self.end - max(count, 0))
        for block in self._backward():
            numbers = block.numbers(only)
            if len(numbers) >= count:
                return max(start, numbers[-count])
            count -= len(numbers)
            scan -= block.count if block.may_have(only.pod) else 0
            if scan <= 0 or block.first <= start:
                return max(start, block.first)
        return max(start, self.first)

    def _forward(self, start: int) -> Iterator[Block]:
        """What a broken file lacks may still be in memory."""
        blocks = self.recent if self._is_recent(start) else chain(self._stored(start), self.recent)
        for block in blocks:
            if block.end > self.end:
                return  # written, but not yet known to be durable
            if block.end > start:
                yield block

    def _is_recent(self, start: int) -> bool:
        return bool(self.recent) and self.recent[0].first <= start

    def _stored(self, start: int) -> Iterator[Block]:
        index = bisect_right(self.segments, start, key=lambda segment: segment.first)
        for segment in self.segments[max(index - 1, 0) :]:
            yield from segment.blocks()

    def _backward(self) -> Iterator[Block]:
        for segment in reversed(self.segments):
            blocks: Iterable[Block] = reversed(segment.blocks())
            yield from (block for block in blocks if block.end <= self.end)


class _Reader:
    """Collects one page."""

    def __init__(self, start: int, only: Filter, limit: int, scan: int) -> None:
        self.next = start
        self.lines: list[Line] = []
        self._only = only
        self._limit = limit
        self._scan = scan
        self._characters = 0

    @property
    def is_full(self) -> bool:
        return len(self.lines) >= self._limit or self._characters >= PAGE_CHARACTERS or self._scan <= 0

    def take(self, block: Block) -> None:
        if block.end <= self.next:
            return
        if block.first > self.next:
            self.mark(block.first, block.lines()[0].at if block.count else now())
        lines = block.lines() if block.may_have(self._only.pod) else ()
        for line in lines[self.next - block.first :]:
            if self.is_full:
                return
            self.next += 1
            if self._only.takes(line):
                self.lines.append(line)
                self._characters += len(line.text)
        self.next = block.end
        self._scan -= len(lines)

    def mark(self, first: int, at: datetime) -> None:
        """Say how many lines before that number are missing."""
        self.lines.append(Line(at, "platform", f"WARN {first - self.next} lines are no longer kept"))
        self.next = first
