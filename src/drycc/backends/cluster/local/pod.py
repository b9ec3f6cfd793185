"""One pod in memory, and one run of its process from start to end."""

import asyncio
import logging
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from drycc.backends.cluster.base import Exit, Pod, PodState
from drycc.backends.cluster.local import environment, ports
from drycc.backends.cluster.local.directory import PodDirectory, PodRecord
from drycc.backends.cluster.local.leader import lead
from drycc.errors import NoSpace, Unavailable
from drycc.kit import crash, process
from drycc.kit.aio import cancel
from drycc.kit.disk import NO_SPACE, find_trouble, has_space
from drycc.kit.ids import now
from drycc.kit.process import Process

log = logging.getLogger("drycc.pods")

CANNOT_START = 126  # the exit code of a pod whose program could not be started, as in the shell
STARVED_CAP = 10.0  # seconds at most until a pod that a full disk has kept from starting is tried again
FIRST_LOOK, LONGEST_LOOK = 0.005, 0.25  # seconds between two attempts to connect
FIRST_SEARCH, LONGEST_SEARCH = 1.0, 30.0  # seconds between two searches for ports it listens on


@dataclass(frozen=True, slots=True)
class Launch:
    """What a pod runs: a program, in a copy of `tree` or in an empty directory."""

    argv: Sequence[str]
    tree: Path | None
    env: Mapping[str, str] = field(repr=False)
    source: Path | None = None  # copied in
    size: int = 0  # bytes that the tree takes, as far as known


@dataclass(eq=False, slots=True)
class LocalPod:
    record: PodRecord
    directory: PodDirectory
    process: Process | None = None
    is_stopping: bool = False
    last_exit: Exit | None = None
    failures: int = 0  # exits since it was last ready for long
    due: float = 0  # by the monotonic clock: not to be started again before
    is_starved: bool = False  # its last start failed for want of space
    ready_since: float | None = None
    listens: tuple[int, ...] = ()
    task: "asyncio.Task[None] | None" = None  # while it is started and watched
    retiring: "asyncio.Task[None] | None" = None
    spawned: asyncio.Event = field(default_factory=asyncio.Event)  # also when it could not be started
    over: asyncio.Event = field(default_factory=asyncio.Event)  # of a one-off: it has ended

    @property
    def is_ready(self) -> bool:
        return self.process is not None and self.record.is_ready and not self.is_stopping

    @property
    def state(self) -> PodState:
        if self.is_stopping:
            return "terminating"
        if self.process is not None:
            return "up" if self.record.is_ready else "starting"
        return "crashed" if self.last_exit else "initializing"

    def view(self, *, is_current: bool) -> Pod:
        record = self.record
        return Pod(
            name=record.name,
            app=record.app,
            ptype=record.ptype,
            release=record.release,
            state=self.state,
            is_ready=self.is_ready,
            is_current=is_current,
            started=datetime.fromtimestamp(record.created, UTC),
            restarts=record.restarts,
            last_exit=self.last_exit,
            listens=() if self.is_ready else self.listens,
        )


async def start(pod: LocalPod, launch: Launch) -> None:
    """Give the pod fresh directories and a process; a pod for which that fails has ended and says why."""
    try:
        await asyncio.to_thread(_prepare, pod, launch)
        crash.point("pod.prepared")
        argv = lead(pod.directory, launch.tree, launch.argv, launch.env)
        with open(os.devnull, "wb") as nowhere:  # noqa: ASYNC230
            silence = {nowhere.fileno(): 2}
            pod.process = await process.spawn(argv, launch.env, output=pod.directory.out, inherit=silence)
        crash.point("pod.spawned")
    except (OSError, ValueError, Unavailable) as error:
        why = find_trouble(error) or getattr(error, "strerror", None) or error
        await asyncio.to_thread(_fail, pod, f"the pod cannot be started: {why}")
        return
    pod.record.pid, pod.record.start_time = pod.process.pid, pod.process.start_time
    await asyncio.to_thread(pod.directory.note, pod.record)


def refuse(pod: LocalPod, reason: str) -> None:
    """End a pod that has nothing to run, with that line in its output. Blocks."""
    with suppress(OSError, Unavailable):
        pod.directory.make()
        pod.directory.save(pod.record)
    _fail(pod, reason)


async def attend(pod: LocalPod, changed: Callable[[], None]) -> None:
    """Watch the pod's process: note when it is ready and how it ends, and leave nothing of its group."""
    leader = pod.process
    if leader is None:
        return
    watching = asyncio.create_task(_become_ready(pod, leader, changed), name=f"ready {pod.record.name}")
    try:
        status = await process.ended(leader)
    finally:
        await cancel(watching)
    await clean_up(pod.record.id, leader)
    pod.last_exit = await asyncio.to_thread(_note_exit, pod, status)
    pod.process = None


async def clean_up(id: str, leader: Process | None) -> None:
    """Kill what is left of the pod, also what has left its group."""
    if leader is not None:
        await process.stop(leader, 0)
    while rest := await process.find(environment.POD, id):
        for one in rest:
            process.signal_one(one, signal.SIGKILL)
        for one in rest:
            await process.ended(one)


def _prepare(pod: LocalPod, launch: Launch) -> None:
    if not has_space(pod.directory.path.parent, launch.size):
        raise NoSpace(NO_SPACE)  # a copy that cannot end would take the last space from everybody
    pod.directory.make()
    if launch.source:
        shutil.copyfile(launch.source, pod.directory.source)
    record = pod.record
    record.pid, record.start_time, record.is_ready = 0, 0, record.kind != "workload"
    record.started = time.time()
    pod.listens, pod.is_starved = (), False
    pod.directory.save(record)


def _fail(pod: LocalPod, reason: str) -> None:
    pod.is_starved = NO_SPACE in reason
    with suppress(OSError):
        pod.directory.clear()  # what was copied before the space was gone
    with suppress(OSError):
        pod.directory.append(reason)
        pod.directory.write_status(CANNOT_START)
    pod.last_exit = Exit(CANNOT_START, None, now(), reason)


def _note_exit(pod: LocalPod, status: int | None) -> Exit:
    """What the leader has noted; else what we saw of the leader itself, noted for the next of us."""
    seen = pod.directory.read_exit()
    if seen is None and status is not None:
        code = os.waitstatus_to_exitcode(status)
        with suppress(OSError):
            pod.directory.write_status(code if code >= 0 else 128 - code)
        seen = pod.directory.read_exit()
    if seen and seen.code == CANNOT_START and not has_space(pod.directory.path):
        _fail(pod, f"the pod cannot be started: {NO_SPACE}")
        return pod.last_exit or seen
    return seen or Exit(None, None, now())


async def _become_ready(pod: LocalPod, leader: Process, changed: Callable[[], None]) -> None:
    """Returns when the pod is ready; the caller ends the wait when the process has ended."""
    if pod.record.is_ready:
        pod.ready_since = pod.ready_since or monotonic()
        return
    if pod.record.ready_after is None:
        await _wait_for_port(pod, leader, changed)
    else:
        await asyncio.sleep(pod.record.started + pod.record.ready_after - time.time())
    pod.record.is_ready, pod.ready_since = True, monotonic()
    await asyncio.to_thread(pod.directory.note, pod.record)
    changed()


async def _wait_for_port(pod: LocalPod, leader: Process, changed: Callable[[], None]) -> None:
    delay, search = FIRST_LOOK, FIRST_SEARCH
    next_search = monotonic() + search
    while not await ports.accepts(pod.record.port):
        if monotonic() >= next_search:
            await _look_for_ports(pod, leader, changed)
            search = min(LONGEST_SEARCH, 2 * search)
            next_search = monotonic() + search
        await asyncio.sleep(delay)
        delay = min(LONGEST_LOOK, 1.5 * delay)


async def _look_for_ports(pod: LocalPod, leader: Process, changed: Callable[[], None]) -> None:
    pids = await process.members(leader)
    listens = await asyncio.to_thread(ports.find_listening, pids)
    if listens != pod.listens:
        pod.listens = listens
        changed()
