"""The platform's grip on the edge: start or adopt it, hand it snapshots, wait for drained pods.

`dryccd` keeps a duplicate of the edge's listening socket. When the edge dies its successor inherits
that socket, and connections that came in between wait in the kernel instead of being refused. When
`dryccd` dies the next one fetches the duplicate back from the edge.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from time import monotonic

from drycc import __version__
from drycc.backends.cluster.local.edge.snapshot import Snapshot, dump
from drycc.backends.cluster.local.edge.sockets import bind_control
from drycc.errors import Unavailable
from drycc.kit import process
from drycc.kit.aio import cancel, supervise, within
from drycc.kit.files import remove_leftovers
from drycc.kit.sockets import bind_listener

log = logging.getLogger("drycc.edge")

ANSWER_WITHIN = 5.0  # seconds
STOP_WITHIN = 35.0  # the edge drains for at most 30
LONGEST_DELAY = 5.0  # seconds between two starts of an edge that dies again and again
STEADY_AFTER = 60.0  # the successor of an edge that ran this long is started at once
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "VIRTUAL_ENV")


class Edge:
    """The one edge of the platform `instance`, listening on `listen` (host:port)."""

    def __init__(self, directory: Path, run: Path, listen: str, instance: str, idle_timeout: float) -> None:
        self.access_file = directory / "access"
        self.is_new = False  # there was none when we started
        self._snapshot_file = directory / "snapshot.json"
        self._output = directory / "out"
        self._socket_file = run / "edge.sock"
        self._listen = listen
        self._instance = instance
        self._idle_timeout = idle_timeout
        self._listener: socket.socket | None = None
        self._process: process.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._applying = asyncio.Lock()
        self._reborn = asyncio.Condition()

    async def start(self) -> None:
        """Adopt the edge that runs, or start one, and keep one running from now on.

        Raises `Conflict` when the address is taken and `Invalid` when it is none.
        """
        for folder in (self.access_file.parent, self._socket_file.parent):
            folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self._snapshot_file.parent)
        for old in await self._find():
            await self._take_over(old)
        if self._process is None:
            self.is_new = self._listener is None
            self._listener = self._listener or bind_listener(self._listen, "DRYCC_EDGE_LISTEN")
            await self._spawn()
        self._watcher = asyncio.create_task(supervise("edge", self._watch), name="edge")

    async def apply(self, snapshot: Snapshot) -> None:
        """Returns when new requests go where `snapshot` says; raises `Unavailable` after 5 s."""
        async with self._applying:
            await asyncio.to_thread(dump, snapshot, self._snapshot_file)
            await self._turn(snapshot.generation)

    async def drained(self, pod: str, within: float) -> None:
        """Returns when no request to the pod is in flight, or after so many seconds."""
        with suppress(OSError):  # requests in flight die with their edge
            await self._ask(f"drained {pod} {within}", within + ANSWER_WITHIN)

    async def stop(self) -> None:
        """Drain and end the edge, also one that we never adopted, and free its address."""
        await self.leave()
        edges = {*await self._find(), *filter(None, [self._process])}
        reaping = [process.ended(edge) for edge in edges]
        await asyncio.gather(*(process.stop(edge, STOP_WITHIN) for edge in edges), *reaping)
        self._process = None

    async def leave(self) -> None:
        """Let the edge run on without us; the next `start` adopts it."""
        if self._watcher is not None:
            await cancel(self._watcher)
            self._watcher = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    # the process

    async def _find(self) -> list[process.Process]:
        ours = await process.find("DRYCC_INSTANCE", self._instance)
        edges = await process.find("DRYCC_POD", "edge")
        return [one for one in edges if one in ours]

    async def _take_over(self, old: process.Process) -> None:
        """Adopt an edge as we would start it; let one of another version drain beside its successor."""
        try:
            pid, listen, version = (await self._ask("hello")).split()
        except (OSError, ValueError):
            await process.stop(old, 1.0)  # it hangs
            return
        if pid != str(old.pid):
            process.signal_group(old, signal.SIGTERM)  # a predecessor that drains already
        elif listen != self._listen:
            await process.stop(old, STOP_WITHIN)
        else:
            self._listener = await asyncio.to_thread(_fetch_listener, self._socket_file)
            if version == __version__:
                self._process = old
            else:
                process.signal_group(old, signal.SIGTERM)

    async def _spawn(self) -> None:
        """Start an edge on our listening socket; calls to its control socket wait from now on."""
        assert self._listener is not None
        with bind_control(self._socket_file) as control:
            descriptors = (self._listener.fileno(), control.fileno())
            born = await process.spawn(
                [sys.executable, "-m", "drycc", "edge"],
                self._environment(*descriptors),
                output=self._output,
                inherit={descriptor: descriptor for descriptor in descriptors},
            )
        async with self._reborn:
            self._process = born
            self._reborn.notify_all()

    def _environment(self, listener: int, control: int) -> dict[str, str]:
        return {name: os.environ[name] for name in PASSED_ON if name in os.environ} | {
            "DRYCC_POD": "edge",
            "DRYCC_INSTANCE": self._instance,
            "DRYCC_EDGE_LISTEN": self._listen,
            "DRYCC_EDGE_FD": str(listener),
            "DRYCC_EDGE_CONTROL_FD": str(control),
            "DRYCC_EDGE_SNAPSHOT": str(self._snapshot_file),
            "DRYCC_EDGE_ACCESS": str(self.access_file),
            "DRYCC_IDLE_TIMEOUT": str(self._idle_timeout),
        }

    async def _watch(self) -> None:
        """Start a successor whenever the edge has died, at once unless it dies again and again."""
        delay = 0.0
        while self._process is not None:
            started = monotonic()
            await process.ended(self._process)
            if monotonic() - started > STEADY_AFTER:
                delay = 0.0
            log.warning("the edge has died; another starts in %.1f s", delay)
            await asyncio.sleep(delay)
            await self._spawn()
            delay = min(LONGEST_DELAY, delay * 2 or 0.1)

    async def _successor(self, edge: process.Process | None) -> None:
        """Wait until another edge than this one runs."""
        async with self._reborn:
            await self._reborn.wait_for(lambda: self._process is not edge)

    # its control socket

    async def _turn(self, generation: int) -> None:
        """An edge that dies before it has answered has a successor, which is asked again."""
        deadline = monotonic() + ANSWER_WITHIN
        while (left := deadline - monotonic()) > 0:
            asked = self._process
            try:
                answer = await self._ask(f"apply {generation}", left)
            except OSError:
                await within(deadline - monotonic(), self._successor(asked))
                continue
            if answer != f"applied {generation}":
                raise Unavailable(f"the edge did not take its snapshot: {answer}")
            return
        raise Unavailable(f"the edge did not answer within {ANSWER_WITHIN:g} s")

    async def _ask(self, command: str, seconds: float = ANSWER_WITHIN) -> str:
        """One command, one line back; raises OSError when nobody is there or answers in time."""
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_unix_connection(str(self._socket_file))
            try:
                writer.write(f"{command}\n".encode())
                line = await reader.readline()
            finally:
                writer.close()
        if not line.endswith(b"\n"):
            raise ConnectionResetError("the edge closed its control socket")
        return line.decode().rstrip("\n")


class EndingEdge(Edge):
    """An edge that is only to be stopped, if there is one."""

    async def start(self) -> None: ...

    async def apply(self, snapshot: Snapshot) -> None:
        """Where requests go matters no more."""


def _fetch_listener(path: Path) -> socket.socket:
    """A duplicate of the edge's listening socket; blocks."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_WITHIN)
        connection.connect(str(path))
        connection.sendall(b"socket\n")
        _, descriptors, _, _ = socket.recv_fds(connection, 16, 1)
    return socket.socket(fileno=descriptors[0])
