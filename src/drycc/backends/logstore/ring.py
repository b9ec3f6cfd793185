"""The LogStore of this machine: durable segments on disk, the newest blocks of each app in memory."""

import asyncio
import re
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from zlib import crc32

from drycc.backends.logstore.base import (
    CUT,
    EVERY_LINE,
    LINE_BYTES,
    SCAN_LINES,
    Filter,
    Line,
    LogStore,
    Page,
    Reached,
)
from drycc.backends.logstore.retention import Bounds, choose_drops, list_stored
from drycc.backends.logstore.segments import Batch, Segments, remove_trash
from drycc.errors import Invalid, Unavailable
from drycc.kit.disk import find_trouble

T = TypeVar("T")
LANES = 4
RECENT_APPS = 32  # of one lane, whose newest blocks are in memory
APP = re.compile(r"[a-z0-9][a-z0-9-]*")
NO_APP = "_"  # keeps how far files that belong to no single app are read


class _Log:
    """One app's segments, and the event that wakes its followers."""

    def __init__(self, app: str, segments: Segments) -> None:
        self.app = app
        self.segments = segments
        self.changed = asyncio.Event()

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class _Lane:
    """One thread for the appends of some apps: what arrives while it writes is written together next."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="logstore")
        self._waiting: list[tuple[_Log, Batch, asyncio.Future[None]]] = []
        self._flushing: asyncio.Task[None] | None = None
        self._recent: OrderedDict[str, Segments] = OrderedDict()

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def load(self, app: str, directory: Path, bounds: Bounds) -> Segments:
        return await self.run(self._load, app, directory, bounds)

    async def append(self, log: _Log, batch: Batch) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((log, batch, done))
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())
        await done

    async def close(self) -> None:
        if self._flushing:
            await asyncio.wait([self._flushing])
        await asyncio.to_thread(self._thread.shutdown)

    async def _flush(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting, []
            logs: dict[_Log, list[tuple[Batch, asyncio.Future[None]]]] = {}
            for log, batch, done in taken:
                logs.setdefault(log, []).append((batch, done))
            for log, entries in logs.items():
                await self._append(log, entries)

    async def _append(self, log: _Log, entries: Iterable[tuple[Batch, "asyncio.Future[None]"]]) -> None:
        try:
            await self.run(self._write, log, [batch for batch, _ in entries])
        except Exception as error:  # noqa: BLE001 - raised by those who wait
            _settle(entries, error)
        else:
            log.wake()
            _settle(entries, None)

    def _write(self, log: _Log, batches: Sequence[Batch]) -> None:
        log.segments.append(batches)
        self._keep_recent(log.app, log.segments)

    def _load(self, app: str, directory: Path, bounds: Bounds) -> Segments:
        segments = Segments(directory, bounds)
        self._keep_recent(app, segments)
        return segments

    def _keep_recent(self, app: str, segments: Segments) -> None:
        """Keep the newest blocks of this app in memory; those of the app that rested longest are dropped."""
        self._recent[app] = segments
        self._recent.move_to_end(app)
        if len(self._recent) > RECENT_APPS:
            self._recent.popitem(last=False)[1].forget_recent()


class LocalLogStore(LogStore):
    """Async context manager; leaving it waits for the appends under way."""

    def __init__(self, root: Path, bounds: Bounds) -> None:
        self._root = root
        self._bounds = bounds
        self._logs: dict[str, _Log] = {}
        self._lanes = [_Lane() for _ in range(LANES)]

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(remove_trash, self._root)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(lane.close() for lane in self._lanes))

    async def append(self, app: str, lines: Sequence[Line], reached: Reached | None = None) -> None:
        log = await self._open(app)
        try:
            await self._lane(app).append(log, Batch(_bounded(lines), reached))
        except OSError as error:
            raise find_trouble(error) or Unavailable(
                f"the log store cannot write: {error.strerror}"
            ) from error

    async def reached(self, app: str, pod: str) -> int:
        return (await self._open(app)).segments.reached(pod)

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
        view = (await self._open(app)).segments.view
        return await asyncio.to_thread(view.page, cursor, tail, only, limit, scan)

    async def follow(self, app: str, cursor: str, *, pod: str = "") -> AsyncGenerator[Page, None]:
        log = await self._open(app)
        while True:
            changed = log.changed  # before the read: what comes after it sets this event
            page = await self.read(app, cursor=cursor, only=Filter(pod))
            cursor = page.cursor
            if page.lines or page.is_over:
                yield page
            if page.is_over:
                return
            if not page.has_more:
                await changed.wait()

    async def drop_old(self, at: datetime) -> None:
        stored = await asyncio.to_thread(list_stored, self._root)
        failures = []
        for directory, chosen in choose_drops(stored, self._bounds, at).items():
            log = await self._open("" if directory == NO_APP else directory)
            names = {(segment.name, segment.size) for segment in chosen}
            try:
                await self._lane(log.app).run(log.segments.drop, names)
            except OSError as error:
                failures.append(error)
            log.wake()
        if failures:
            raise Unavailable(f"old lines cannot be dropped: {failures[0].strerror}") from failures[0]

    async def forget(self, app: str) -> None:
        log = await self._open(app)
        await self._lane(app).run(log.segments.remove)
        log.wake()

    def _lane(self, app: str) -> _Lane:
        return self._lanes[crc32(app.encode()) % LANES]

    async def _open(self, app: str) -> _Log:
        if app not in self._logs:
            if app and not APP.fullmatch(app):
                raise Invalid(f"{app!r} is no name of an app")
            directory = self._root / (app or NO_APP)
            segments = await self._lane(app).load(app, directory, self._bounds)
            self._logs.setdefault(app, _Log(app, segments))
        return self._logs[app]


def _settle(entries: Iterable[tuple[Batch, "asyncio.Future[None]"]], error: Exception | None) -> None:
    for _, done in entries:
        if done.done():
            continue  # whoever waited was cancelled
        if error:
            done.set_exception(error)
        else:
            done.set_result(None)


def _bounded(lines: Sequence[Line]) -> list[Line]:
    """The lines, those of several lines or longer than the bound as several."""
    kept: list[Line] = []
    for line in lines:
        if "\n" in line.text or len(line.text) > LINE_BYTES:
            kept.extend(replace(line, text=piece) for piece in _pieces(line.text))
        else:
            kept.append(line)
    return kept


def _pieces(text: str) -> list[str]:
    pieces = []
    for line in text.split("\n"):
        while len(line) > LINE_BYTES:
            pieces.append(line[: LINE_BYTES - 1] + CUT)
            line = line[LINE_BYTES - 1 :]
        pieces.append(line)
    return pieces
