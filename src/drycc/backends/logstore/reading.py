"""What can be read of one app's lines at one instant: the newest blocks from memory, the others from
segments. It never changes, so it is read in any thread while the writer goes on."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from drycc.backends.logstore.base import Line, Page
from drycc.backends.logstore.blocks import Block, decode
from drycc.errors import Invalid
from drycc.kit.ids import now

PAGE_CHARACTERS = 1024 * 1024


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

    def page(self, cursor: str | None, tail: int | None, pod: str, limit: int) -> Page:
        start = self.first if cursor is None else self._number(cursor)
        if tail is not None:
            start = max(start, self._tail(tail, pod))
        reader = _Reader(start, pod, limit)
        for block in self._forward(start):
            reader.take(block)
            if reader.is_full:
                break
        is_over = pod in self.ended and reader.next >= self.end
        return Page(reader.lines, self.cursor(reader.next), is_over)

    def _number(self, cursor: str) -> int:
        """The number of the line after the cursor."""
        life, _, number = cursor.partition("-")
        if not number.isdecimal():
            raise Invalid("this cursor is none of ours", field="cursor")
        return min(int(number), self.end) if life == self.life else self.first

    def _tail(self, count: int, pod: str) -> int:
        """The number from which on there are `count` lines, of the pod if one is named."""
        if not pod or count <= 0:
            return max(self.first, self.end - max(count, 0))
        for block in self._backward():
            numbers = block.numbers(pod)
            if len(numbers) >= count:
                return numbers[-count]
            count -= len(numbers)
        return self.first

    def _forward(self, start: int) -> Iterator[Block]:
        blocks = self.recent if self._is_recent(start) else self._stored(start)
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

    def __init__(self, start: int, pod: str, limit: int) -> None:
        self.next = start
        self.lines: list[Line] = []
        self._pod = pod
        self._limit = limit
        self._characters = 0

    @property
    def is_full(self) -> bool:
        return len(self.lines) >= self._limit or self._characters >= PAGE_CHARACTERS

    def take(self, block: Block) -> None:
        if block.first > self.next:
            self._mark(block)
        lines = block.lines() if block.may_have(self._pod) else ()
        for line in lines[self.next - block.first :]:
            if self.is_full:
                return
            self.next += 1
            if self._pod in ("", line.pod):
                self.lines.append(line)
                self._characters += len(line.text)
        self.next = block.end

    def _mark(self, block: Block) -> None:
        """Say how many lines are missing."""
        at = block.lines()[0].at if block.count else now()
        self.lines.append(Line(at, "platform", f"WARN {block.first - self.next} lines are no longer kept"))
        self.next = block.first
