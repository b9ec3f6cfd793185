"""A worker in a process of its own: the role alone, with the model cluster behind a socket.

`python -m tests.worker.driver` has imported everything and forks one for each line that it reads, so
that a worker that was killed is there again at once.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drycc.backends.cluster.base import AppSpec
from drycc.backends.db import open_database
from drycc.backends.nudges import open_nudges
from drycc.backends.objects import open_objects
from drycc.core.secrets import Keyring
from drycc.settings import Settings
from drycc.worker.role import Needs, lifespan
from tests.cluster_server import Link, RemoteCluster, serve
from tests.core.story import ListLog
from tests.waiting import until

POISON = "poison"  # the app whose start kills the process
FORM = "%(asctime)s %(levelname)s %(name)s %(message)s"


@dataclass(frozen=True)
class Given:
    """What a worker is started with."""

    database_url: str
    data: str  # names the worker
    lease: float


def main() -> None:
    """Fork for each line: a worker, or when it is a number the cluster with that delay. Tells the pid."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _run(Path(sys.argv[1]), json.loads(line))
            os._exit(0)
        print(pid, flush=True)


def _run(shared: Path, given: Any) -> None:
    if isinstance(given, float):
        return asyncio.run(serve(shared / "cluster", given))
    data = Path(given["data"])
    data.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=data / "log", level=logging.INFO, format=FORM)
    return asyncio.run(_work(shared, Given(**given)))


async def _work(shared: Path, given: Given) -> None:
    """Take jobs until the process is killed."""
    cluster = RemoteCluster(_Trapped(shared))
    async with open_database(given.database_url) as db:
        needs = Needs(
            settings=Settings(data=given.data, lease=given.lease, deploy_timeout=60.0),
            db=db,
            keyring=Keyring.load(shared / "keyring"),
            cluster=cluster,
            objects=await open_objects(f"file://{shared}/objects"),
            nudges=await open_nudges("memory:"),
            logs=ListLog(),
        )
        async with lifespan(needs):
            await asyncio.Event().wait()


class _Trapped(Link):
    """A cluster's socket that ends the process, or waits, right before something is asked of it."""

    def __init__(self, shared: Path) -> None:
        super().__init__(shared / "cluster")
        self._trap = shared / "wait-before"
        self._waiting = shared / f"waits-{os.getpid()}"

    async def ask(self, name: str, *arguments: Any) -> Any:
        if name == "workloads.apply" and _is_deadly(*arguments):
            os._exit(1)
        if self._trap.exists() and self._trap.read_text() == name:
            self._trap.rename(self._waiting)
            await until(lambda: not self._waiting.exists(), within=60)
        return await super().ask(name, *arguments)


def _is_deadly(spec: AppSpec) -> bool:
    return spec.app == POISON and any(not workload.is_held for workload in spec.workloads)


if __name__ == "__main__":
    main()
