"""What a push costs, beside OpenSSH's server.

Both servers run on one core and the clients on another; both sides use curve25519 and aes128-gcm.
Ours authenticates from the database, runs its hook and checks, archives, builds with a model
cluster and releases; OpenSSH's runs `git receive-pack` in a repository with the same settings.
"""

import asyncio
import getpass
import os
import shutil
import statistics
import subprocess
import sys
import time
from asyncio.events import Handle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.build.builder import WEB, Builder, open_builder
from tests.conftest import MIGRATIONS
from tests.postgres import free_port

from bench.tables import show
from drycc.backends.db import open_database

SMALL, LARGE = 60, 5
SIZE = 200 * 1024 * 1024
SETTINGS = ("receive.fsckObjects=true", "receive.unpackLimit=1", "core.bigFileThreshold=1m", "gc.auto=0")
CORES = sorted(os.sched_getaffinity(0))
OPTIONS = "-o KexAlgorithms=curve25519-sha256 -o Ciphers=aes128-gcm@openssh.com"


@dataclass(frozen=True)
class Server:
    """A server process, and what a client needs to reach it."""

    name: str
    pid: int
    url: str
    word: str  # the cheapest command

    def environment(self, home: Path) -> dict[str, str]:
        base = (
            f"ssh -F /dev/null -i {home}/ann -o IdentitiesOnly=yes -o BatchMode=yes -o LogLevel=ERROR"
            " -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
        )
        who = {f"GIT_{role}_{part}": "ann" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
        quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "HOME": str(home), "PATH": os.environ["PATH"]}
        return who | quiet | {"GIT_SSH_COMMAND": f"{base} {OPTIONS}"}


async def serve(home: Path, port: int) -> None:
    """Be our server until stdin ends; afterwards `home/hold` has the longest callback in milliseconds."""
    async with open_database(f"sqlite+aiosqlite:///{home}/drycc.db") as db:
        await db.migrate(MIGRATIONS)
        builder: Builder = await open_builder(db, home)
        builder.port, builder.push_limit = port, 2 * SIZE
        async with builder.working(), builder.serving():
            longest = _watch_callbacks()
            (home / "ready").touch()
            await asyncio.to_thread(sys.stdin.read)
        (home / "hold").write_text(f"{longest() * 1000:.1f}")


def _watch_callbacks() -> Callable[[], float]:
    """The longest time, by the thread's CPU clock, that one callback has held the loop from now on."""
    run, longest = Handle._run, 0.0

    def timed(self: Handle) -> None:
        nonlocal longest
        start = time.thread_time()
        run(self)
        longest = max(longest, time.thread_time() - start)

    Handle._run = timed  # type: ignore[method-assign]
    return lambda: longest


@contextmanager
def ours(home: Path) -> Iterator[Server]:
    port = free_port()
    argv = [*pinned(CORES[0]), sys.executable, "-m", "bench.push", str(home), str(port)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as child:
        while not (home / "ready").exists():
            time.sleep(0.05)
        yield Server("dryccd", child.pid, f"ssh://git@127.0.0.1:{port}/shop.git", "ping")
        child.communicate(timeout=30)


@contextmanager
def openssh(home: Path) -> Iterator[Server]:
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/bin")
    if sshd is None:
        raise SystemExit("the anchor is missing: apt-get install openssh-server")
    port, kept = free_port(), home / "sshd"
    kept.mkdir()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", kept / "key"], check=True)
    shutil.copy(home / "ann.pub", kept / "authorized")
    Path("/run/sshd").mkdir(exist_ok=True)
    lines = [
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {kept}/key",
        f"AuthorizedKeysFile {kept}/authorized",
        f"PidFile {kept}/pid",
        "StrictModes no",
        "PermitRootLogin yes",
        "MaxStartups 100",
    ]
    (kept / "config").write_text("\n".join(lines))
    subprocess.run(["git", "init", "-q", "--bare", kept / "shop.git"], check=True)
    for setting in SETTINGS:
        subprocess.run(["git", "-C", kept / "shop.git", "config", *setting.split("=")], check=True)
    argv = [*pinned(CORES[0]), sshd, "-D", "-e", "-f", str(kept / "config")]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as child:
        try:
            url = f"ssh://{getpass.getuser()}@127.0.0.1:{port}{kept}/shop.git"
            yield Server("sshd", child.pid, url, "true")
        finally:
            child.terminate()


def pinned(core: int) -> list[str]:
    return ["taskset", "-c", str(core)]


@dataclass(frozen=True)
class Work:
    """The client's repository."""

    home: Path

    @property
    def repository(self) -> Path:
        return self.home / "work"

    def commit(self, name: str, content: bytes, *how: str) -> None:
        (self.repository / name).write_bytes(content)
        environment = Server("", 0, "", "").environment(self.home)
        for argv in (("add", "-A"), ("commit", "-q", "-m", name, *how)):
            command = [*pinned(CORES[-1]), "git", "-c", "core.bigFileThreshold=1m", *argv]
            subprocess.run(command, cwd=self.repository, env=environment, check=True)

    def push(self, server: Server) -> float:
        """Seconds of wall time."""
        argv = [*pinned(CORES[-1]), "git", "push", "-q", server.url, "+HEAD:refs/heads/main"]
        environment = server.environment(self.home)
        start = time.perf_counter()
        subprocess.run(argv, cwd=self.repository, env=environment, check=True, stderr=subprocess.DEVNULL)
        return time.perf_counter() - start

    def greet(self, server: Server) -> float:
        """Seconds for the handshake, the login and the cheapest command."""
        ssh = server.environment(self.home)["GIT_SSH_COMMAND"].split()
        address, _, port = server.url.split("/")[2].rpartition(":")
        argv = [*pinned(CORES[-1]), *ssh, "-p", port, address, server.word]
        start = time.perf_counter()
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start

    def push_small(self, server: Server, number: int) -> float:
        self.commit("n", f"{server.name} {number}".encode())
        return self.push(server) * 1000

    def push_large(self, server: Server, number: int) -> float:
        """MB a second, of a blob that nobody has."""
        self.commit("blob", os.urandom(SIZE), *(("--amend",) if number or server.name == "sshd" else ()))
        return SIZE / 1e6 / self.push(server)


def take(count: int, servers: list[Server], once: Callable[[Server, int], float]) -> tuple[float, float]:
    """Medians of interleaved runs."""
    taken: dict[str, list[float]] = {server.name: [] for server in servers}
    for number in range(count):
        for server in servers:
            taken[server.name].append(once(server, number))
    ours, anchor = (statistics.median(times) for times in taken.values())
    return ours, anchor


def memory(pid: int, field: str) -> float:
    """MB, from the process's status."""
    text = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(field)) / 1024


async def measure() -> None:
    """Print the table; takes about three minutes."""
    await asyncio.to_thread(_measure)


def _measure() -> None:
    with TemporaryDirectory() as directory:
        home = Path(directory)
        work = Work(home)
        with ours(home) as dryccd, openssh(home) as sshd:
            servers = [dryccd, sshd]
            subprocess.run(["git", "init", "-q", "-b", "main", work.repository], check=True)
            for name, text in WEB.items():
                work.commit(name, text.encode())
            take(3, servers, work.push_small)
            small = take(SMALL, servers, work.push_small)
            greeted = take(SMALL, servers, lambda server, _: work.greet(server) * 1000)
            before = memory(dryccd.pid, "VmRSS")
            Path(f"/proc/{dryccd.pid}/clear_refs").write_text("5")
            large = take(LARGE, servers, work.push_large)
            grown = memory(dryccd.pid, "VmHWM") - before
        hold = (home / "hold").read_text()
    show(
        "Push (both sides curve25519 and aes128-gcm; medians of interleaved runs)",
        ("figure", "ours", "sshd", "ratio", "goal"),
        [
            ("small push, ms", *_beside(small), "<= 0.7"),
            ("handshake and a command, ms", *_beside(greeted), "<= 0.3"),
            ("push of 200 MB, MB/s", *_beside(large), ">= 1.0"),
            ("memory grown by it, MB", f"{grown:+.0f}", "-", "-", "<= +64"),
            ("longest hold of the loop, ms", hold, "-", "-", "<= 20"),
        ],
    )


def _beside(pair: tuple[float, float]) -> tuple[str, str, str]:
    return f"{pair[0]:.1f}", f"{pair[1]:.1f}", f"{pair[0] / pair[1]:.2f}"


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
