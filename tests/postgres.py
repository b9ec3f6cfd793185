"""A PostgreSQL server of the tests' own, on loopback, from Debian's package."""

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def postgres() -> Iterator[str]:
    """Gives the URL of an empty server; it is gone, with its data, afterwards."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
    home = Path(mkdtemp(prefix="pg"))
    port = free_port()
    user: dict[str, object] = {}
    if os.geteuid() == 0:  # the server refuses to run as root
        account = pwd.getpwnam("postgres")
        os.chown(home, account.pw_uid, account.pw_gid)
        user = {"user": "postgres", "group": "postgres", "extra_groups": []}

    def run(*argv: str | Path) -> None:
        subprocess.run(argv, check=True, timeout=60, cwd=home, stdout=subprocess.DEVNULL, **user)  # type: ignore[call-overload]

    data = home / "data"
    run(programs / "initdb", "-D", data, "-A", "trust", "-U", "drycc", "--no-sync")
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={home} -c fsync=off"
    run(programs / "pg_ctl", "-D", data, "-l", home / "log", "-w", "-o", options, "start")
    try:
        yield f"postgresql+asyncpg://drycc@127.0.0.1:{port}/postgres"
    finally:
        run(programs / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
        shutil.rmtree(home)
