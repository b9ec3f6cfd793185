"""A PostgreSQL server of the tests' own, on loopback, from Debian's package."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """One server: it may be stopped, started, frozen and killed. Every method blocks."""

    home: Path
    port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"postgresql+asyncpg://drycc@127.0.0.1:{self.port}/postgres"

    def create(self) -> None:
        self._run("initdb", "-D", self.data, "-A", "trust", "-U", "drycc", "--no-sync")

    def start(self) -> None:
        options = (
            f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories={self.home} "
            "-c fsync=off"
        )
        self._control("-l", self.home / "log", "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """`fast` rolls back what runs and tells the clients; `immediate` dies as in a power cut."""
        self._control("-m", mode, "stop")

    def kill_backend(self, pid: int) -> None:
        """SIGKILL for the process of one connection; the server then cuts all others and recovers."""
        os.kill(pid, signal.SIGKILL)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Neither the server nor any of its connections says anything while the body runs."""
        pids = [self._pid(), *self._children()]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    @property
    def data(self) -> Path:
        return self.home / "data"

    def _pid(self) -> int:
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def _children(self) -> list[int]:
        task = Path(f"/proc/{self._pid()}/task/{self._pid()}/children")
        return [int(pid) for pid in task.read_text().split()]

    def _control(self, *argv: str | Path) -> None:
        self._run("pg_ctl", "-D", self.data, "-w", *argv)

    def _run(self, program: str, *argv: str | Path) -> None:
        programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
        command: Sequence[str | Path] = (programs / program, *argv)
        user: dict[str, Any] = {}
        if os.geteuid() == 0:  # the server refuses to run as root
            user = {"user": "postgres", "group": "postgres", "extra_groups": []}
        subprocess.run(command, check=True, timeout=60, cwd=self.home, stdout=subprocess.DEVNULL, **user)


@contextmanager
def run_server() -> Iterator[Server]:
    """An empty server; it is gone, with its data, afterwards."""
    home = Path(mkdtemp(prefix="pg"))
    if os.geteuid() == 0:
        account = pwd.getpwnam("postgres")
        os.chown(home, account.pw_uid, account.pw_gid)
    server = Server(home)
    server.create()
    server.start()
    try:
        yield server
    finally:
        if (server.data / "postmaster.pid").exists():
            server.stop("immediate")
        shutil.rmtree(home)


@contextmanager
def postgres() -> Iterator[str]:
    """Gives the URL of an empty server."""
    with run_server() as server:
        yield server.url
