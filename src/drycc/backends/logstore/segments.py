"""The segments of one app: files of blocks, appended to, closed at a size, dropped oldest first.

Everything here blocks, and for one app is called by one thread at a time.
"""

import os
import shutil
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from drycc.backends.logstore.base import Line, Reached
from drycc.backends.logstore.blocks import IS_LAST, IS_ONLY, Block, decode, encode, pack
from drycc.backends.logstore.compaction import join_blocks
from drycc.backends.logstore.files import append_data, write_whole
from drycc.backends.logstore.offsets import drop_ended, make_head, reach, read_head
from drycc.backends.logstore.reading import Segment, View
from drycc.backends.logstore.retention import Bounds
from drycc.kit import crash
from drycc.kit.files import sync_directory
from drycc.kit.ids import now

SEGMENT_BYTES = 1024 * 1024
RECENT_BYTES = 256 * 1024  # of one app's blocks in memory
BLOCK_BYTES = 200  # what a block takes in memory besides its payload


@dataclass(frozen=True, slots=True)
class Batch:
    lines: Sequence[Line]
    reached: Reached | None


class Segments:
    """`view` is replaced, never changed, once what it shows is durable."""

    def __init__(self, directory: Path, bounds: Bounds) -> None:
        self.view = View(uuid4().hex[:8])
        self._directory = directory
        self._bounds = bounds
        self._began: datetime | None = None  # the first line of the newest segment
        self._reached: dict[str, Reached] = {}
        self._gone: frozenset[str] = frozenset()  # pods of before the app was forgotten
        self._forgotten: datetime | None = None
        self._load()

    def reached(self, pod: str) -> int:
        found = self._reached.get(pod)
        return found.offset if found else 0

    def append(self, batches: Iterable[Batch]) -> None:
        """Write a block for each batch that is new, and make them durable with one sync."""
        blocks, reached = self._number(batches)
        if not blocks:
            return
        newest = self._writable()
        data = b"".join(encode(block) for block in blocks)
        append_data(newest.path, data)
        self._reached = reached
        self._began = self._began or _first_time(blocks)
        self._show([*self.view.segments[:-1], replace(newest, size=newest.size + len(data))], blocks)
        self._keep_bound()

    def forget_recent(self) -> None:
        """Give the memory of the newest blocks back; they are read from the segments."""
        self.view = replace(self.view, recent=())

    def drop(self, chosen: Collection[tuple[str, int]]) -> None:
        """Remove the oldest segments while they are among these names with these sizes: not one that
        was written to since it was chosen."""
        while (segments := self.view.segments) and (segments[0].path.name, segments[0].size) in chosen:
            if len(segments) == 1:
                if segments[0].first == self.view.end:
                    return  # it has no lines
                self._begin_segment()
            self._drop_oldest()

    def remove(self) -> None:
        """Remove all lines; later ones of the same pods are ignored, and access lines of before."""
        self._gone = frozenset(self._reached) or self._gone  # also when this is a repeat
        self._forgotten = now()
        if self._directory.exists():
            trash = self._directory.with_name(f".gone-{uuid4().hex}")
            self._directory.rename(trash)
            crash.point("lines.renamed")
            shutil.rmtree(trash)
        self._reached = {}
        self._began = None
        self.view = View(uuid4().hex[:8], ended=self._gone)

    def _number(self, batches: Iterable[Batch]) -> tuple[list[Block], dict[str, Reached]]:
        """Blocks for the new batches, and how far files are reached with them."""
        blocks: list[Block] = []
        reached = dict(self._reached)
        number = self.view.end
        for batch in batches:
            lines = [line for line in batch.lines if not self._is_late(line)]
            if _is_repeat(batch, reached) or self._is_gone(batch, lines):
                continue
            block = _block(number, lines, batch.reached)
            number = block.end
            blocks.append(block)
            reach(reached, block)
        return blocks, reached

    def _is_gone(self, batch: Batch, kept: Sequence[Line]) -> bool:
        if kept:
            return False
        return bool(batch.lines) or batch.reached is None or batch.reached.pod in self._gone

    def _is_late(self, line: Line) -> bool:
        """Whether the line is of the app before it was forgotten."""
        if line.source == "access":
            return self._forgotten is not None and line.at <= self._forgotten
        return line.pod in self._gone

    def _writable(self) -> Segment:
        """The segment to append to, without what an interrupted append left behind its known end."""
        if self.view.segments:
            newest = self.view.segments[-1]
            if newest.path.stat().st_size != newest.size:
                os.truncate(newest.path, newest.size)
            if newest.size < min(SEGMENT_BYTES, self._bounds.app_bytes // 8) and not self._is_long():
                return newest
        self._begin_segment()
        return self.view.segments[-1]

    def _is_long(self) -> bool:
        """Whether the newest segment is written to for so long that its first lines would get too old."""
        return self._began is not None and (now() - self._began).total_seconds() > self._bounds.span

    def _show(self, segments: Iterable[Segment], blocks: Sequence[Block]) -> None:
        self.view = View(
            self.view.life,
            blocks[-1].end if blocks else self.view.end,
            tuple(segments),
            _newest([*self.view.recent, *(block for block in blocks if block.count)]),
            self._gone.union(pod for pod, place in self._reached.items() if place.is_last),
        )

    def _begin_segment(self) -> None:
        """The new file has its head, which carries what older segments knew of files, or isn't there.

        It takes the place of a segment without lines, which only said how far files were read.
        """
        if not self._directory.exists():
            self._directory.mkdir(parents=True)
            sync_directory(self._directory.parent)
        self._reached = drop_ended(self._reached)
        path = self._directory / f"{self.view.end:016x}-{self.view.life}.log"
        size = write_whole(path, [make_head(self.view.end, self._reached)])
        closed = [segment for segment in self.view.segments if segment.path != path]
        closed[-1:] = map(self._compact, closed[-1:])
        self._began = None
        self._show([*closed, Segment(self.view.end, path, size)], ())

    def _compact(self, segment: Segment) -> Segment:
        """Rewrite a segment that is closed, when that makes it smaller; readers see the same lines."""
        blocks = [block for block in segment.blocks() if block.count]
        joined = list(join_blocks(blocks))
        if len(joined) > len(blocks) // 2:
            return segment
        size = write_whole(segment.path, [make_head(segment.first, self._reached), *joined])
        return replace(segment, size=size)

    def _keep_bound(self) -> None:
        size = sum(segment.size for segment in self.view.segments)
        while size > self._bounds.app_bytes and len(self.view.segments) > 1:
            size -= self.view.segments[0].size
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        oldest, *rest = self.view.segments
        recent = tuple(block for block in self.view.recent if block.first >= rest[0].first)
        self.view = replace(self.view, segments=tuple(rest), recent=recent)
        oldest.path.unlink(missing_ok=True)

    def _load(self) -> None:
        """Take up what an earlier process left; a block that was torn is cut off by the next append."""
        segments = [_segment(path) for path in sorted(self._directory.glob("*-*.log"))]
        while segments and not self._restore(segments):
            segments.pop().path.unlink()

    def _restore(self, segments: list[Segment]) -> bool:
        """Go on after the last of these; False when not even its head is whole."""
        newest = segments[-1]
        found = list(decode(newest.path.read_bytes()))
        if not found or not found[0][0].is_head:
            return False
        blocks = [block for block, _ in found]
        self._reached = read_head(blocks[0])
        for block in blocks[1:]:
            reach(self._reached, block)
        self.view = View(newest.path.stem.partition("-")[2], blocks[-1].end)
        self._began = _first_time(blocks)
        self._show([*segments[:-1], replace(newest, size=found[-1][1])], blocks[1:])
        return True


def remove_trash(root: Path) -> None:
    """Finish the removals that an earlier process began."""
    for trash in root.glob(".gone-*"):
        shutil.rmtree(trash)


def _is_repeat(batch: Batch, reached: dict[str, Reached]) -> bool:
    if batch.reached is None or batch.reached.pod not in reached:
        return False
    present = reached[batch.reached.pod]
    return (batch.reached.offset, batch.reached.is_last) <= (present.offset, present.is_last)


def _block(number: int, lines: Sequence[Line], reached: Reached | None) -> Block:
    payload = pack(lines) if lines else b""
    if reached is None:
        return Block(number, len(lines), payload)
    is_only = all(line.pod == reached.pod for line in lines)
    flags = IS_LAST * reached.is_last | IS_ONLY * is_only
    return Block(number, len(lines), payload, reached.pod, reached.offset, flags)


def _first_time(blocks: Iterable[Block]) -> datetime | None:
    return next((block.lines()[0].at for block in blocks if block.count), None)


def _newest(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """As many of the last blocks as memory is for, at least one."""
    size, count = 0, 0
    for block in reversed(blocks):
        size += len(block.payload) + BLOCK_BYTES
        if size > RECENT_BYTES and count:
            break
        count += 1
    return tuple(blocks[len(blocks) - count :])


def _segment(path: Path) -> Segment:
    return Segment(int(path.stem.partition("-")[0], 16), path, path.stat().st_size)
