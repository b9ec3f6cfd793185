"""Processes that outlive us: each leads a session of its own, is watched by pidfd and ended as a group.

Whoever starts a process awaits `ended`: only that reaps it.
"""

import asyncio
import os
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from drycc.kit.aio import within

# What Python or our own parent may have set to "ignore", which exec would hand on.
DEFAULT_SIGNALS = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGPIPE,
    signal.SIGTERM,
    signal.SIGCHLD,
    signal.SIGXFSZ,
)

MOST_ROUNDS, LONGEST_ROUND = 10, 1.0  # of killing descendants, which may make new ones; seconds


@dataclass(frozen=True, slots=True)
class Process:
    """`start_time` (clock ticks since boot) tells it from a later process of the same pid."""

    pid: int  # also the id of its group and session
    start_time: int


@dataclass(frozen=True, slots=True)
class Stat:
    """What `/proc/<pid>/stat` says of a process."""

    pid: int
    state: str  # one letter; Z and X have ended
    parent: int
    group: int
    session: int
    start_time: int

    @property
    def is_alive(self) -> bool:
        return self.state not in "ZX"


async def spawn(
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    output: Path | None,
    inherit: Mapping[int, int] | None = None,
) -> Process:
    """Start `argv` (`argv[0]` is a path) in a session of its own, with exactly `env`.

    Standard input is empty; output and errors are appended to the file `output`, or dropped.
    `inherit` maps file descriptors of ours to their numbers there; no number may be on both sides
    of two different pairs. Everything else of ours is closed there. Raises OSError.
    """
    return await asyncio.to_thread(_spawn, argv, env, output, inherit or {})


async def find(name: str, value: str) -> list[Process]:
    """The living processes of our user whose environment had NAME=VALUE when they were started."""
    return await asyncio.to_thread(_find, f"\0{name}={value}\0".encode())


async def ended(process: Process) -> int | None:
    """Wait until the process has ended.

    The answer is a status as from `os.waitpid` for the first that awaits a child of ours, else None.
    """
    async with _watch(process.pid) as gone:
        if (stat := read_stat(process.pid)) is None or stat.start_time != process.start_time:
            return None
        await gone.wait()
    return _reap(process.pid)


def is_alive(process: Process) -> bool:
    stat = read_stat(process.pid)
    return stat is not None and stat.is_alive and stat.start_time == process.start_time


def signal_group(process: Process, number: signal.Signals) -> None:
    """Send a signal to what is left of the process's group; never to one that reused its number."""
    stat = read_stat(process.pid)
    if stat is None or stat.start_time == process.start_time:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def signal_one(process: Process, number: signal.Signals) -> None:
    """Send a signal to this process alone; never to one that reused its number."""
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(process.pid)
        try:
            if is_alive(process):
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


async def stop(process: Process, grace: float) -> None:
    """SIGTERM to the group, SIGKILL after `grace` seconds; returns when nothing of the group is left.

    The SIGKILL is also for descendants that have left the group.
    """
    signal_group(process, signal.SIGTERM)
    if not await within(grace, _group_ended(process)):
        await _kill_descendants(process)
        signal_group(process, signal.SIGKILL)
        await _group_ended(process)


def read_variable(process: Process, name: str) -> str | None:
    """A variable of the environment that the process was started with; None when it has none, or is gone."""
    _, found, rest = _read_environ(process.pid).partition(f"\0{name}=".encode())
    return rest.partition(b"\0")[0].decode(errors="surrogateescape") if found else None


async def members(process: Process) -> list[int]:
    """The pids of the living processes of its group."""
    return await asyncio.to_thread(_members, process)


def read_stat(pid: int) -> Stat | None:
    """None when there is no such process."""
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in parentheses and may hold blanks and parentheses.
    fields = line[line.rindex(b")") + 2 :].split()
    parent, group, session = map(int, fields[1:4])
    return Stat(pid, fields[0].decode(), parent, group, session, int(fields[19]))


def _spawn(
    argv: Sequence[str], env: Mapping[str, str], output: Path | None, inherit: Mapping[int, int]
) -> Process:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions: list[tuple[int, int, str, int, int] | tuple[int, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(output or os.devnull), flags, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
        *((os.POSIX_SPAWN_DUP2, ours, theirs) for ours, theirs in inherit.items()),
    ]
    pid = os.posix_spawn(
        argv[0],
        list(argv),
        env,
        file_actions=actions,
        setsid=True,
        setsigmask=(),
        setsigdef=DEFAULT_SIGNALS,
    )
    stat = read_stat(pid)
    assert stat is not None  # it is our child and nobody has reaped it yet
    return Process(pid, stat.start_time)


def _reap(pid: int) -> int | None:
    try:
        reaped, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return status if reaped else None


def _find(token: bytes) -> list[Process]:
    return [
        Process(stat.pid, stat.start_time) for stat in _list_processes() if token in _read_environ(stat.pid)
    ]


def _read_environ(pid: int) -> bytes:
    """Empty for a process that ended meanwhile or that we may not look into."""
    try:
        if Path(f"/proc/{pid}").stat().st_uid != os.geteuid():
            return b""
        return b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _members(process: Process) -> list[int]:
    found = [stat for stat in _list_processes() if stat.group == process.pid]
    is_reused = any(stat.pid == process.pid and stat.start_time != process.start_time for stat in found)
    return [] if is_reused else [stat.pid for stat in found]


def _list_processes() -> Iterator[Stat]:
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal() and (stat := read_stat(int(entry.name))) and stat.is_alive:
            yield stat


async def _kill_descendants(process: Process) -> None:
    """Before their ancestor: afterwards nothing tells whose they were. What forks meanwhile is seen next."""
    for _ in range(MOST_ROUNDS):
        found = await asyncio.to_thread(_descendants, process)
        for one in found:
            signal_one(one, signal.SIGKILL)
        if not found or not await within(LONGEST_ROUND, _all_ended(found)):
            return


def _descendants(process: Process) -> list[Process]:
    if not is_alive(process):
        return []
    children: defaultdict[int, list[Stat]] = defaultdict(list)
    for stat in _list_processes():
        children[stat.parent].append(stat)
    found = list(children[process.pid])
    for stat in found:  # it grows meanwhile
        found += children[stat.pid]
    return [Process(stat.pid, stat.start_time) for stat in found]


async def _all_ended(processes: Sequence[Process]) -> None:
    for one in processes:
        async with _watch(one.pid) as gone:
            await gone.wait()


async def _group_ended(process: Process) -> None:
    while pids := await members(process):
        for pid in pids:
            async with _watch(pid) as gone:
                await gone.wait()


@asynccontextmanager
async def _watch(pid: int) -> AsyncIterator[asyncio.Event]:
    """An event that is set when the process has ended; at once when there is none."""
    gone = asyncio.Event()
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        gone.set()
        yield gone
        return
    loop = asyncio.get_running_loop()

    def notice() -> None:
        loop.remove_reader(descriptor)
        gone.set()

    loop.add_reader(descriptor, notice)
    try:
        yield gone
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
