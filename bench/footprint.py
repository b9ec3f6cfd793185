"""Memory and CPU of the whole platform, beside an empty program with the same packages and routes."""

import asyncio
import os
import statistics
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from tests.platform import Platform

from bench.tables import show
from drycc.backends.db import open_database
from drycc.core.models import App

TICKS = os.sysconf("SC_CLK_TCK")
STARTS = 7
IDLE = 60.0  # seconds

ANCHOR = """\
import asyncio, sys
import aiosqlite, argon2, asyncinotify, asyncssh, cryptography, fastapi, httptools, pydantic, pygit2
import sqlalchemy.ext.asyncio, sqlalchemy.orm, starlette.applications, uvicorn, websockets, zstandard

app = fastapi.FastAPI()
for number in range(int(sys.argv[2])):
    app.add_api_route(f"/{number}/{{id}}", lambda id: id, methods=["GET"])

async def main():
    server = uvicorn.Server(uvicorn.Config(app, port=int(sys.argv[1]), http="httptools", log_level="error"))
    await server.serve()

asyncio.run(main())
"""


def pss(pid: int) -> float:
    """Proportional set size in MB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise LookupError(pid)


def cpu(pid: int) -> float:
    """Seconds of CPU that the process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def edge_pid(platform: Platform) -> int:
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            command = (directory / "cmdline").read_bytes()
            environment = (directory / "environ").read_bytes()
        except OSError:
            continue
        if command.endswith(b"\0edge\0") and f"DRYCC_INSTANCE={platform.data}\0".encode() in environment:
            return int(directory.name)
    raise LookupError("the edge")


async def measure() -> None:
    """Print the table; takes about two minutes."""
    async with Platform() as platform:
        routes = len((await platform.api("GET", "/openapi.json")).json()["paths"])
        token = await platform.login()
        for _ in range(1000):
            await platform.api("GET", "/v2/apps/", None, token)
        await platform.kill()
        await platform.start()  # migrated already: what every start but the first one is like
        for _ in range(1000):
            await platform.api("GET", "/v2/apps/", None, token)
        assert platform.process
        pid = platform.process.pid
        whole, edge = pss(pid), pss(edge_pid(platform))
        idle = await _idle_share(pid)
        starts = [await _start_cpu(platform) for _ in range(STARTS)]
        anchors = [await _anchor(routes) for _ in range(STARTS)]
        registered = await _registered(platform, token)
    anchor_pss = statistics.median(memory for memory, _ in anchors)
    anchor_cpu = statistics.median(seconds for _, seconds in anchors)
    start = statistics.median(starts)
    show(
        f"Footprint ({routes} paths; the anchor imports the same packages and has as many routes)",
        ("figure", "ours", "anchor", "ratio", "goal"),
        [
            ("PSS after 1,000 requests, MB", *_beside(whole, anchor_pss, "{:.0f}"), "<= 150, <= 1.25"),
            ("PSS of the edge, MB", f"{edge:.0f}", "-", "-", "<= 35"),
            ("CPU of a start, s", *_beside(start, anchor_cpu, "{:.2f}"), "<= 1.3"),
            (f"idle CPU over {IDLE:.0f} s, %", f"{idle:.2f}", "-", "-", "<= 0.5"),
            ("10,000 apps registered, MB", f"{registered:+.0f}", "-", "-", "<= +100"),
        ],
    )


def _beside(ours: float, anchor: float, form: str) -> tuple[str, str, str]:
    return form.format(ours), form.format(anchor), f"{ours / anchor:.2f}"


async def _idle_share(pid: int) -> float:
    before = cpu(pid)
    await asyncio.sleep(IDLE)
    return (cpu(pid) - before) / IDLE * 100


async def _start_cpu(platform: Platform) -> float:
    await platform.kill()
    await platform.start()
    assert platform.process
    return cpu(platform.process.pid)


async def _anchor(routes: int) -> tuple[float, float]:
    """PSS in MB after 1,000 requests, and CPU seconds of its start."""
    with TemporaryDirectory() as directory:
        port = str(Platform(home=Path(directory)).http_port)
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", ANCHOR, port, str(routes))
        try:
            started = await _ask(int(port), 1, process.pid)
            await _ask(int(port), 1000, process.pid)
            return pss(process.pid), started
        finally:
            process.kill()
            await process.wait()


async def _ask(port: int, count: int, pid: int) -> float:
    """So many requests; gives the CPU seconds that the process has used by then."""
    end = monotonic() + 30
    while count:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            assert monotonic() < end
            await asyncio.sleep(0.01)
            continue
        writer.write(b"GET /0/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        await reader.read()
        writer.close()
        count -= 1
    return cpu(pid)


async def _registered(platform: Platform, token: str) -> float:
    """MB that the platform grows by when it starts with 10,000 apps."""
    assert platform.process
    await platform.api("POST", "/v2/apps/", {"id": "one-of-many"}, token)
    before = pss(platform.process.pid)
    async with open_database(f"sqlite+aiosqlite:///{platform.data}/drycc.db") as db:

        async def fill(session: AsyncSession) -> None:
            one = (await session.scalars(sa.select(App))).one()
            columns = {column.name: getattr(one, column.key) for column in App.__table__.columns}
            many = [
                columns | {"uuid": uuid4(), "id": f"app-{n}", "uid": one.uid + n} for n in range(1, 10_000)
            ]
            await session.execute(sa.insert(App), many)

        await db.write(fill)
    await platform.kill()
    await platform.start(120)
    for _ in range(100):
        await platform.api("GET", "/v2/apps/", None, token)
    return pss(platform.process.pid) - before
