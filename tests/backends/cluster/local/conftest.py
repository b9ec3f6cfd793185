"""A local cluster with real processes, behind an edge that only notes what it is told."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import pytest

from drycc.backends.cluster.base import AppSpec, Observed, ObservedWorkload, RouteTable, WorkloadSpec
from drycc.backends.cluster.local.cluster import LocalCluster, open_behind
from drycc.backends.cluster.local.edge.snapshot import EMPTY, Snapshot
from drycc.backends.cluster.local.environment import INSTANCE
from drycc.backends.cluster.local.site import Site
from drycc.errors import Unavailable
from drycc.kit import process

WEB = """
import http.server, os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ.get(self.path[1:], "").encode())
    def log_message(self, *args):
        pass
http.server.HTTPServer((os.environ.get("BIND", "127.0.0.1"), int(os.environ["PORT"])), Answer).serve_forever()
"""


@dataclass
class Notebook:
    """Stands where the edge does; `journal` says what it was asked, in order."""

    access_file: Path
    snapshot: Snapshot = EMPTY
    journal: list[str] = field(default_factory=list)
    is_away: bool = False
    is_new: bool = True

    async def start(self) -> None: ...

    async def leave(self) -> None: ...

    async def stop(self) -> None:
        self.journal.append("stop")

    async def apply(self, snapshot: Snapshot) -> None:
        assert snapshot.generation > self.snapshot.generation
        if self.is_away:
            raise Unavailable("the edge did not answer")
        self.snapshot = snapshot
        pods = sorted(endpoint.pod for app in snapshot.apps.values() for endpoint in app.pods)
        self.journal.append(f"apply {' '.join(pods)}")

    async def drained(self, pod: str, within: float) -> None:
        self.journal.append(f"drained {pod}")

    def serving(self, app: str = "blog") -> dict[str, int]:
        routes = self.snapshot.apps.get(app)
        return {endpoint.pod: endpoint.port for endpoint in routes.pods} if routes else {}


@dataclass
class Bench:
    """One data directory, whose cluster may be opened again and again."""

    data: Path
    instance: str = field(default_factory=lambda: uuid4().hex)
    grace: float = 5
    backoff: float = 0.05
    backoff_cap: float = 0.4

    def __post_init__(self) -> None:
        self.edge = Notebook(self.data / "access")
        self.site = Site(
            data=self.data,
            instance=self.instance,
            python="/usr/bin/python3",
            build_env={"PIP_INDEX_URL": "http://index.example"},
            grace=self.grace,
            backoff=self.backoff,
            backoff_cap=self.backoff_cap,
        )

    def open(self) -> AbstractAsyncContextManager[LocalCluster]:
        return open_behind(self.edge, self.site)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[LocalCluster]:
        """Open it; nothing runs afterwards."""
        async with self.open() as cluster:
            try:
                yield cluster
            finally:
                async with asyncio.timeout(20):
                    await cluster.stop(lambda line: None)
        assert await self.processes() == []

    def add_image(self, build: int, files: dict[str, str], app: str = "blog", venv: str | None = None) -> str:
        image = self.data / "images" / app / str(build)
        for name, text in ({".keep": ""} | files).items():
            target = image / "tree" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        (image / "complete").write_text(json.dumps({"digest": "sha256:00", "venv": venv}))
        an_hour_ago = time.time() - 3600
        os.utime(image / "complete", (an_hour_ago, an_hour_ago))
        return f"{app}:{build}"

    async def processes(self) -> list[int]:
        return [one.pid for one in await process.find(INSTANCE, self.instance)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
async def cluster(bench: Bench) -> AsyncIterator[LocalCluster]:
    async with bench.running() as cluster:
        yield cluster


def web(
    release: int,
    image: str = "blog:1",
    command: str = "python3 web.py",
    replicas: int = 1,
    *,
    ptype: str = "web",
    env: dict[str, str] | None = None,
    restarted_at: datetime | None = None,
    ready_after: float | None = None,
    grace: float = 5,
    is_held: bool = False,
) -> WorkloadSpec:
    return WorkloadSpec(
        ptype, release, image, command, env or {}, replicas, restarted_at, ready_after, grace, is_held
    )


def spec(generation: int, *workloads: WorkloadSpec, app: str = "blog") -> AppSpec:
    return AppSpec(app, generation, workloads)


async def route(cluster: LocalCluster, app: str = "blog") -> None:
    await cluster.routes.apply(RouteTable(app, (f"{app}.localhost",)))


async def observed(
    cluster: LocalCluster,
    question: Callable[[ObservedWorkload], bool],
    *,
    app: str = "blog",
    ptype: str = "web",
    seconds: float = 20,
) -> ObservedWorkload:
    """What the cluster observes of the process type once the answer is true; looks only when told to."""
    news = cluster.workloads.changes()
    seen: Observed | None = None
    try:
        async with asyncio.timeout(seconds):
            while True:
                seen = await cluster.workloads.observe(app)
                if ptype in seen.workloads and question(seen.workloads[ptype]):
                    return seen.workloads[ptype]
                while await anext(news) != app:
                    pass
    except TimeoutError:
        raise AssertionError(f"not within {seconds} s: {seen}") from None


async def rolled_out(
    cluster: LocalCluster, release: int, replicas: int = 1, *, app: str = "blog", ptype: str = "web"
) -> ObservedWorkload:
    """The state that a roll-out waits for."""

    def is_done(seen: ObservedWorkload) -> bool:
        pods = [pod for pod in seen.pods if pod.state == "up"]
        return (
            (seen.release, seen.replicas, seen.serving, seen.updated, seen.old)
            == (release, replicas, replicas, replicas, 0)
            and len(pods) == len(seen.pods) == replicas
        )  # fmt: skip

    return await observed(cluster, is_done, app=app, ptype=ptype)


async def ask(port: int, name: str, host: str = "127.0.0.1") -> str:
    """The value of a variable, as the web app answers it."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(f"GET /{name} HTTP/1.0\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    return answer.partition(b"\r\n\r\n")[2].decode()


def pod_directory(bench: Bench, pod: str) -> Path:
    for file in (bench.data / "pods").glob("*/spec.json"):
        if json.loads(file.read_text())["name"] == pod:
            return file.parent
    raise AssertionError(f"no directory of {pod}")


async def kill_program(directory: Path) -> None:
    """SIGKILL for the program of a pod, not for its leader."""
    record = json.loads((directory / "spec.json").read_text())
    for pid in await process.members(process.Process(record["pid"], record["start_time"])):
        if pid != record["pid"]:
            os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = process.read_stat(pid)
    return stat is not None and stat.is_alive
