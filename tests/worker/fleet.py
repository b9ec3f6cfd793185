"""Several worker processes on one database and one model cluster, killed, stopped and started again."""

import asyncio
import contextlib
import json
import os
import select
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Self

from drycc.backends.db import Database, open_database
from drycc.backends.nudges import open_nudges
from drycc.backends.objects import open_objects
from drycc.core.secrets import Keyring
from tests.cluster_server import Link, RemoteCluster
from tests.waiting import until

ROOT = Path(__file__).parents[2]


class Process:
    """A process that the fork server has made: not ours to reap, so its pidfd alone names it for sure."""

    def __init__(self, pid: int, data: Path) -> None:
        self.pid = pid
        self.data = data
        self._fd = os.pidfd_open(pid)

    def stop(self) -> None:
        signal.pidfd_send_signal(self._fd, signal.SIGSTOP)

    def go_on(self) -> None:
        signal.pidfd_send_signal(self._fd, signal.SIGCONT)

    async def kill(self) -> None:
        """Returns when it is gone; one that has gone by itself is fine."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._fd, signal.SIGKILL)
        await until(lambda: not self.is_alive)
        os.close(self._fd)

    @property
    def is_alive(self) -> bool:
        return not select.select([self._fd], [], [], 0)[0]

    def log(self) -> str:
        file = self.data / "log"
        return file.read_text() if file.exists() else ""


class Fleet:
    """`workers` are started by `start`; what they share is below `directory`."""

    def __init__(self, db: Database, directory: Path, lease: float, delay: float) -> None:
        self.db = db
        self.directory = directory
        self.lease = lease
        self.delay = delay
        self.look = 1.0  # seconds between two looks of a worker
        self.workers: list[Process] = []
        self.others: list[Process] = []
        self.numbers = count()
        self.cluster = RemoteCluster(Link(directory / "cluster"))

    async def __aenter__(self) -> Self:
        self.keyring = Keyring.create(self.directory / "keyring")
        self.objects = await open_objects(f"file://{self.directory}/objects")
        self.nudges = await open_nudges("memory:")  # reaches nobody: workers look by themselves
        self.forker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.worker.driver", str(self.directory)),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self.others.append(Process(await self._fork(self.delay), self.directory))
        await until((self.directory / "cluster").exists)
        return self

    async def __aexit__(self, *error: object) -> None:
        os.killpg(self.forker.pid, signal.SIGKILL)  # with all that it has forked, also what we do not know of
        await self.forker.wait()
        for process in [*self.workers, *self.others]:
            await process.kill()

    async def start(self, data: Path | None = None) -> Process:
        """One more worker, with a data directory of its own or that of an earlier one."""
        data = data or self.directory / f"worker{next(self.numbers)}"
        url = self.db.url.render_as_string(hide_password=False)
        pid = await self._fork(
            {"database_url": url, "data": str(data), "lease": self.lease, "look": self.look}
        )
        self.workers.append(process := Process(pid, data))
        return process

    async def kill(self, process: Process) -> None:
        self.workers.remove(process)
        await process.kill()

    @property
    def is_standing(self) -> bool:
        """Whether a worker stands still."""
        return len(self.others) > 1

    async def stop(self, process: Process) -> None:
        """SIGSTOP; nobody else may touch it until it goes on.

        On SQLite not in the midst of a write: a process that stands still there holds the whole file.
        """
        self.workers.remove(process)
        self.others.append(process)
        process.stop()
        while self.db.is_sqlite and not await asyncio.to_thread(_can_write, str(self.db.url.database)):
            process.go_on()
            await asyncio.sleep(0.01)
            process.stop()

    def go_on(self, process: Process) -> None:
        process.go_on()
        self.others.remove(process)
        self.workers.append(process)

    async def _fork(self, wanted: object) -> int:
        assert self.forker.stdin
        assert self.forker.stdout
        self.forker.stdin.write(json.dumps(wanted).encode() + b"\n")
        async with asyncio.timeout(30):
            return int(await self.forker.stdout.readline())


def _can_write(file: str) -> bool:
    with contextlib.closing(sqlite3.connect(file, timeout=0.3)) as connection:
        try:
            connection.execute("begin immediate")
        except sqlite3.OperationalError:
            return False
    return True


@asynccontextmanager
async def open_fleet(
    url: str, directory: Path, migrations: Path, *, lease: float = 3.0, delay: float = 0.02
) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        db = await stack.enter_async_context(open_database(url))
        await db.migrate(migrations)
        yield await stack.enter_async_context(Fleet(db, directory, lease, delay))
