"""What a request costs on its way through the edge, beside nginx and Caddy from Debian.

All listen on loopback, write access lines, pass to the same pod (an nginx that answers 220 bytes) and
are asked by the same wrk, in turn; nginx and Caddy run on one thread each. Needs the packages
nginx-light, caddy, wrk and curl.
"""

import asyncio
import os
import re
import shutil
import statistics
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.postgres import free_port

from bench.footprint import cpu
from bench.tables import show
from drycc.backends.cluster.local.edge.control import Edge
from drycc.backends.cluster.local.edge.snapshot import AppRoutes, Endpoint, Snapshot
from drycc.kit import process

ROUNDS = 7
SECONDS = 2
CLIENTS = 32
BODY = 220  # bytes
BIG = 1_000_000_000  # bytes

NGINX = """\
daemon off; worker_processes 1; pid {home}/{name}.pid; error_log {home}/{name}.err;
events {{ worker_connections 4096; }}
http {{
  access_log {log}; keepalive_requests 100000000; client_max_body_size 0;
  client_body_temp_path {home}/{name}.body; proxy_temp_path {home}/{name}.proxy;
  fastcgi_temp_path {home}/{name}.f; uwsgi_temp_path {home}/{name}.u; scgi_temp_path {home}/{name}.s;
  {rest}
}}
"""
POD = """\
server {{ listen 127.0.0.1:{port} backlog=4096;
  location / {{ return 200 '{body}'; }}
  location /big {{ root {home}; }}
}}
"""
PROXY = """\
upstream pod {{ server 127.0.0.1:{pod}; keepalive 64; keepalive_requests 100000000; }}
server {{ listen 127.0.0.1:{port} backlog=4096; location / {{
  proxy_pass http://pod; proxy_http_version 1.1; proxy_buffering off; proxy_request_buffering off;
  proxy_set_header Connection ""; proxy_set_header Host $http_host; proxy_set_header X-Request-Id $request_id;
  proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;
}} }}
"""
CADDY = """\
{{
  admin off
  auto_https off
}}
http://127.0.0.1:{port} {{
  log {{
    output file {home}/caddy.access
  }}
  reverse_proxy 127.0.0.1:{pod} {{
    flush_interval -1
  }}
}}
"""


@dataclass
class Proxy:
    """One of those compared; costs are CPU microseconds a request, or CPU seconds a GB."""

    name: str
    port: int
    pid: int
    costs: dict[str, list[float]] = field(default_factory=dict)

    async def ask(self, label: str, *options: str | Path) -> None:
        """Load it for a while; every answer has to be a good one."""
        before = cpu(self.pid)
        argv = ("wrk", "-t1", f"-c{CLIENTS}", f"-d{SECONDS}", *options, f"http://127.0.0.1:{self.port}/")
        said = await run(*argv)
        requests = re.search(r"(\d+) requests in", said)
        assert requests, said
        assert "Non-2xx" not in said, said
        assert "Socket errors" not in said, said
        self._note(label, (cpu(self.pid) - before) / int(requests[1]) * 1e6)

    async def stream(self, label: str) -> None:
        before = cpu(self.pid)
        await run("curl", "-sSf", "-o", os.devnull, f"http://127.0.0.1:{self.port}/big")
        self._note(label, (cpu(self.pid) - before) / (BIG / 1e9))

    def median(self, label: str) -> float:
        return statistics.median(self.costs[label])

    def memory(self) -> float:
        """Resident set in MB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def _note(self, label: str, cost: float) -> None:
        self.costs.setdefault(label, []).append(cost)


async def run(*argv: str | Path) -> str:
    child = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await child.communicate()
    assert child.returncode == 0, said.decode()
    return said.decode()


async def measure() -> None:
    """Print the table; takes about two minutes."""
    missing = [name for name in ("nginx", "caddy", "wrk", "curl") if not shutil.which(name)]
    if missing:
        print(
            f"\nThe edge is not measured; missing: {', '.join(missing)} (Debian: nginx-light caddy wrk curl)"
        )
        return
    with TemporaryDirectory(prefix="edge-") as directory:
        home = Path(directory)
        home.chmod(0o755)  # nginx's worker is another user when we are root
        (home / "post.lua").write_text('wrk.method = "POST"\nwrk.body = "x=1"\n')
        with (home / "big").open("wb") as big:
            big.truncate(BIG)
        async with open_pod(home) as pod, AsyncExitStack() as stack:
            openers = (open_edge, open_nginx, open_caddy)
            proxies = [await stack.enter_async_context(opener(home, pod)) for opener in openers]
            for _ in range(ROUNDS):
                for proxy in proxies:
                    await proxy.ask("GET")
                    await proxy.ask("POST", "-s", home / "post.lua")
                    await proxy.stream("stream")
            print_table(*proxies)


def print_table(edge: Proxy, nginx: Proxy, caddy: Proxy) -> None:
    rows = [
        (f"CPU of a GET, {BODY} bytes, us", "GET", "<= 2 x Caddy"),
        ("CPU of a POST, us", "POST", "-"),
        ("CPU of 1 GB streamed, s", "stream", "-"),
    ]
    table = []
    for title, label, goal in rows:
        costs = [proxy.median(label) for proxy in (edge, nginx, caddy)]
        ratios = [f"{costs[0] / other:.2f}" for other in costs[1:]]
        table.append((title, *(f"{cost:.2f}" for cost in costs), *ratios, goal))
    memory = (f"{proxy.memory():.1f}" for proxy in (edge, nginx, caddy))
    table.append(("memory afterwards, MB", *memory, "-", "-", "<= 35"))
    header = ("figure", "ours", "nginx", "Caddy", "/ nginx", "/ Caddy", "goal")
    show(f"Edge (medians of {ROUNDS} rounds in turn, {CLIENTS} connections)", header, table)


@asynccontextmanager
async def open_pod(home: Path) -> AsyncIterator[int]:
    port = free_port()
    rest = POD.format(port=port, body="x" * BODY, home=home)
    async with running_nginx(home, "pod", rest, log="off", port=port):
        yield port


@asynccontextmanager
async def open_edge(home: Path, pod: int) -> AsyncIterator[Proxy]:
    port = free_port()
    edge = Edge(home / "edge", home / "run", f"127.0.0.1:{port}", str(home), 3600)
    await edge.start()
    try:
        routes = {"bench": AppRoutes("web", True, 1, (Endpoint("bench-web-1", pod),))}
        await edge.apply(Snapshot(1, {"127.0.0.1": "bench"}, routes))
        (found,) = await process.find("DRYCC_INSTANCE", str(home))
        yield Proxy("edge", port, found.pid)
    finally:
        await edge.stop()


@asynccontextmanager
async def open_nginx(home: Path, pod: int) -> AsyncIterator[Proxy]:
    port = free_port()
    rest = PROXY.format(port=port, pod=pod)
    async with running_nginx(home, "proxy", rest, log=f"{home}/proxy.access", port=port) as worker:
        yield Proxy("nginx", port, worker)


@asynccontextmanager
async def open_caddy(home: Path, pod: int) -> AsyncIterator[Proxy]:
    port = free_port()
    (home / "Caddyfile").write_text(CADDY.format(port=port, pod=pod, home=home))
    argv = ("caddy", "run", "--config", str(home / "Caddyfile"), "--adapter", "caddyfile")
    async with running(argv, {"GOMAXPROCS": "1", "HOME": str(home)}, port) as pid:
        yield Proxy("Caddy", port, pid)


@asynccontextmanager
async def running_nginx(home: Path, name: str, rest: str, *, log: str, port: int) -> AsyncIterator[int]:
    """Gives the pid of its one worker."""
    configuration = home / f"{name}.conf"
    configuration.write_text(NGINX.format(home=home, name=name, log=log, rest=rest))
    async with running(("nginx", "-c", str(configuration)), {}, port) as master:
        yield int(Path(f"/proc/{master}/task/{master}/children").read_text().split()[0])


@asynccontextmanager
async def running(argv: Sequence[str], environment: Mapping[str, str], port: int) -> AsyncIterator[int]:
    """A program until the end of the body, from the moment on that its port answers."""
    quiet = asyncio.subprocess.DEVNULL
    child = await asyncio.create_subprocess_exec(
        *argv, env={**os.environ, **environment}, stdout=quiet, stderr=quiet
    )
    try:
        async with asyncio.timeout(10):
            while not await answers(port):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        yield child.pid
    finally:
        child.terminate()
        await child.wait()


async def answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True
