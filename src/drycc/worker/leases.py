"""Heartbeats: a thread with a loop and a connection of its own holds the jobs of this process.

A handler that blocks our loop keeps its job, and a process that stands still as a whole loses it.
"""

import asyncio
import logging
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import monotonic

from drycc.backends.db import Database
from drycc.core import jobs
from drycc.core.jobs import Claim
from drycc.errors import Unavailable

log = logging.getLogger("drycc.worker")

BEATS = 3  # in the time of a lease


@dataclass(slots=True)
class _Held:
    """A job, the task that works on it, and until when it is ours while the database is silent."""

    claim: Claim
    task: "asyncio.Task[None]"
    until: float


class Leases:
    """`run` beats for all jobs that are held."""

    def __init__(self, db: Database, lease: float) -> None:
        self._url = db.url.render_as_string(hide_password=False)
        self._lease = lease
        self._held: dict[int, _Held] = {}

    @contextmanager
    def hold(self, claim: Claim) -> Iterator[None]:
        """Hold the job while the current task is in the body; losing the job cancels that task."""
        task = asyncio.current_task()
        assert task is not None
        self._held[id(claim)] = _Held(claim, task, monotonic() + self._lease)
        try:
            yield
        finally:
            self._held.pop(id(claim), None)

    async def run(self) -> None:
        """Beat for ever; raises what ends the thread."""
        stopping = threading.Event()
        with ThreadPoolExecutor(1, "leases") as thread:
            beating = asyncio.get_running_loop().run_in_executor(thread, self._beat, stopping)
            try:
                await asyncio.shield(beating)
            finally:
                stopping.set()
                await asyncio.wait([beating])

    def _beat(self, stopping: threading.Event) -> None:
        db = Database(self._url)
        with asyncio.Runner() as runner:
            try:
                while not stopping.wait(self._lease / BEATS):
                    runner.run(self._renew(db, list(self._held.values())))
                    runner.run(_free_rows(db))
            finally:
                runner.run(db.close())

    async def _renew(self, db: Database, held: Collection[_Held]) -> None:
        began = monotonic()
        if not held:
            return
        try:
            async with asyncio.timeout(self._lease / BEATS):
                ours = await jobs.renew(db, [one.claim for one in held], self._lease)
        except (Unavailable, TimeoutError) as error:
            log.warning("no heartbeat: %s", str(error) or "the database takes too long")
            ours = [one.claim for one in held if one.until > monotonic()]
            began -= self._lease
        for one in held:
            if one.claim not in ours:
                self._lose(one)
            one.until = max(one.until, began + self._lease)

    def _lose(self, one: _Held) -> None:
        """End the handler, from this thread."""
        if self._held.pop(id(one.claim), None):
            log.warning("job %s %s is no longer ours", one.claim.id, one.claim.kind)
            one.task.get_loop().call_soon_threadsafe(one.task.cancel)


async def _free_rows(db: Database) -> None:
    """Of processes that stand still, so that their jobs can be taken over."""
    with suppress(Unavailable):
        await db.end_silent()
