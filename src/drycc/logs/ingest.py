"""From the pods' output files to the LogStore: each line once, whatever dies in between."""

import asyncio
import logging
from contextlib import suppress
from pathlib import Path

from asyncinotify import Inotify, Mask

from drycc.backends.cluster.base import Cluster, PodFile
from drycc.backends.logstore.base import LINE_BYTES, Line, LogStore, Reached
from drycc.errors import Unavailable
from drycc.kit import crash
from drycc.kit.aio import within
from drycc.kit.ids import now
from drycc.logs.access import append_access
from drycc.logs.output import Output, Turn

log = logging.getLogger("drycc.logs")

SWEEP_SECONDS = 1.0  # for new pods, and for what inotify did not tell
BATCH_SECONDS = 0.05  # a file that grows slowly is looked at no more often
RECORD_BYTES = 128 * 1024  # of an access record, whose text the store then cuts
TURNS = 16  # files read at once; the others wait for their turn, in order


class _Follower:
    """The task that reads one file, and what wakes it."""

    def __init__(self, file: PodFile, output: Output) -> None:
        self.file = file
        self.output = output
        self.changed = asyncio.Event()
        self.is_watched = False
        self.task: asyncio.Task[None] | None = None

    def update(self, file: PodFile) -> None:
        if file.is_over and not self.file.is_over:
            self.changed.set()
        self.file = file


class Ingest:
    def __init__(self, cluster: Cluster, logs: LogStore) -> None:
        self._cluster = cluster
        self._logs = logs
        self._moved = asyncio.Event()  # pods came or went
        self._followers: dict[Path, _Follower] = {}
        self._turns = asyncio.Semaphore(TURNS)

    async def run(self) -> None:
        """Follow the files of all pods; never ends."""
        with Inotify() as inotify:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch(inotify))
                group.create_task(self._listen())
                while True:
                    self._moved.clear()
                    await self._sweep(group, inotify)
                    await within(SWEEP_SECONDS, self._moved.wait())
                    await asyncio.sleep(BATCH_SECONDS)

    async def _listen(self) -> None:
        async for _ in self._cluster.workloads.changes():
            self._moved.set()

    async def _watch(self, inotify: Inotify) -> None:
        async for event in inotify:
            if Mask.Q_OVERFLOW in event.mask:
                continue  # the sweep sees what was lost
            follower = self._followers.get(event.watch.path) if event.watch else None
            if follower:
                follower.is_watched = False
                follower.changed.set()

    async def _sweep(self, group: asyncio.TaskGroup, inotify: Inotify) -> None:
        try:
            files = {file.path: file for file in await self._cluster.pods.files()}
        except Unavailable as error:
            log.warning("output files cannot be listed: %s", error)
            return
        for path, follower in list(self._followers.items()):
            if path in files:
                follower.update(files.pop(path))
            elif follower.task:
                follower.task.cancel()
        for file in files.values():
            await self._begin(file, group, inotify)
        for follower in await asyncio.to_thread(_grown, list(self._followers.values())):
            follower.changed.set()

    async def _begin(self, file: PodFile, group: asyncio.TaskGroup, inotify: Inotify) -> None:
        reached = await self._logs.reached(file.app, file.pod)
        try:
            line_bytes = LINE_BYTES if file.app else RECORD_BYTES
            output = await asyncio.to_thread(Output, file.path, reached, line_bytes)
        except FileNotFoundError:
            return  # removed since it was listed
        follower = _Follower(file, output)
        self._followers[file.path] = follower
        follower.task = group.create_task(self._follow(follower, inotify))

    async def _follow(self, follower: _Follower, inotify: Inotify) -> None:
        try:
            while not await self._take_turn(follower, inotify):
                pass
        finally:
            del self._followers[follower.file.path]
            follower.output.close()

    async def _take_turn(self, follower: _Follower, inotify: Inotify) -> bool:
        """Read once, then wait until there is more; says whether there can be no more."""
        is_over = follower.file.is_over  # before the read, so that nothing comes after it
        follower.changed.clear()
        _arm(follower, inotify)
        try:
            has_more = await self._read(follower, is_over)
            if is_over and not has_more:
                crash.point("output.finished")
                await self._cluster.pods.forget(follower.file.pod)
                return True
        except (Unavailable, OSError) as error:
            log.warning("the output of %s waits: %s", follower.file.pod, error)
            await asyncio.sleep(SWEEP_SECONDS)
            return False
        if not has_more:
            await asyncio.sleep(BATCH_SECONDS)
            await follower.changed.wait()
        return False

    async def _read(self, follower: _Follower, is_over: bool) -> bool:
        """Move the next lines into the store; says whether there are more already."""
        output = follower.output
        async with self._turns:
            turn = await asyncio.to_thread(output.read, is_over)
            await self._keep(follower.file, turn, is_over and not turn.has_more)
            output.offset = turn.end
        return turn.has_more

    async def _keep(self, file: PodFile, turn: Turn, is_last: bool) -> None:
        if not (turn.pieces or turn.skipped or is_last):
            return
        reached = Reached(file.pod, turn.end, is_last)
        if file.app:
            await self._logs.append(file.app, _lines(file, turn), reached)
        else:
            await append_access(self._logs, file.pod, turn.pieces)
            await self._logs.append("", [], reached)


def _arm(follower: _Follower, inotify: Inotify) -> None:
    """Ask for one event: a pod that prints without end costs one a turn, not one a write."""
    if not follower.is_watched:
        with suppress(OSError):  # out of watches, or removed: the sweep looks
            inotify.add_watch(follower.file.path, Mask.MODIFY | Mask.ONESHOT)
            follower.is_watched = True


def _grown(followers: list[_Follower]) -> list[_Follower]:
    return [follower for follower in followers if follower.output.grew()]


def _lines(file: PodFile, turn: Turn) -> list[Line]:
    at = now()
    lines = [Line(at, "app", piece.text, file.ptype, file.release, file.pod) for piece in turn.pieces]
    if turn.skipped:
        text = f"WARN {file.pod} prints faster than its log is kept: {turn.skipped} bytes left out"
        lines.insert(0, Line(at, "platform", text, pod=file.pod))
    return lines
