"""Which segments must go so that the store keeps its bounds by age and over all apps."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

SPANS: Final = 16  # into which the age is divided: a line goes at most one of them too late


@dataclass(frozen=True, slots=True)
class Bounds:
    app_bytes: int  # of one app's segments
    total_bytes: int  # of all apps' segments
    age: float  # of a line, in seconds

    @property
    def span(self) -> float:
        """How many seconds a segment is written to."""
        return self.age / SPANS


@dataclass(frozen=True, slots=True)
class Stored:
    """A segment as it lies on disk."""

    app: str  # the name of its directory
    name: str
    size: int
    written: float  # the last time, in seconds since 1970


def list_stored(root: Path) -> list[Stored]:
    """Segments of all apps. Blocks."""
    return [stored for file in root.glob("[!.]*/*-*.log") for stored in _look(file)]


def choose_drops(stored: Sequence[Stored], bounds: Bounds, at: datetime) -> Mapping[str, Sequence[Stored]]:
    """The segments to drop when it is `at`, by app."""
    drops: defaultdict[str, list[Stored]] = defaultdict(list)
    oldest = at.timestamp() - bounds.age
    for segment in stored:
        if segment.written < oldest:
            drops[segment.app].append(segment)
    for segment in _over([left for left in stored if left.written >= oldest], bounds.total_bytes):
        drops[segment.app].append(segment)
    return drops


def _over(stored: Sequence[Stored], total: int) -> Iterator[Stored]:
    """What is too much for `total`: the oldest segments of the apps that take more than their share."""
    sizes = _sum_sizes(stored)
    excess = sizes.total() - total
    for segment in sorted(stored, key=lambda segment: (segment.written, segment.name)):
        if excess > 0 and sizes[segment.app] * len(sizes) > total:
            sizes[segment.app] -= segment.size
            excess -= segment.size
            yield segment


def _sum_sizes(stored: Iterable[Stored]) -> Counter[str]:
    sizes: Counter[str] = Counter()
    for segment in stored:
        sizes[segment.app] += segment.size
    return sizes


def _look(file: Path) -> Iterator[Stored]:
    with suppress(FileNotFoundError):  # dropped, or its app forgotten, since it was listed
        found = file.stat()
        yield Stored(file.parent.name, file.name, found.st_size, found.st_mtime)
