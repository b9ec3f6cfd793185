"""`dryccd check`: open everything that `serve` needs and say what was found."""

import asyncio
import os
import shutil
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import sqlalchemy as sa

from drycc import main
from drycc.backends.db import AsyncSession, Database, is_migrated, open_database
from drycc.check_disk import check_owner, check_wal, check_writable, describe_space
from drycc.data import check_run
from drycc.errors import DryccError, Invalid
from drycc.kit.sockets import bind_listener
from drycc.names import LINES, is_builder_known
from drycc.settings import Settings


async def check(settings: Settings) -> None:
    """Print one line a part; raises `Invalid` when something would keep `serve` from working."""
    broken = 0
    for name, look in PARTS.items():
        try:
            found = await look(settings)
        except (DryccError, OSError) as error:
            broken += 1
            found = f"FAILED: {error}"
        print(f"{name}: {found}", flush=True)
    if broken:
        raise Invalid(f"{broken} of {len(PARTS)} parts would keep the platform from working")


async def _data(settings: Settings) -> str:
    pid = main.running_pid(settings)
    check_run(settings)
    warning = check_owner(settings)
    return _join(settings.data, f"in use by pid {pid}" if pid else "free", warning)


async def _space(settings: Settings) -> str:
    return describe_space(settings)


async def _database(settings: Settings) -> str:
    async with open_database(settings.database_url) as db:
        where = db.url.render_as_string(hide_password=True)
        if _is_absent(db):
            return f"{where}, not there yet: `dryccd migrate` or `serve` makes it"
        revision = await db.revision()
        state = "up to date" if is_migrated(revision, main.migrations()) else "to be migrated"
        warning = _look_at_file(db.file()) if db.is_sqlite else ""
        await db.write(_nothing)
        return _join(where, f"schema {revision}, {state}", warning)


def _look_at_file(database: Path) -> str:
    for path in (database, Path(f"{database}-wal"), Path(f"{database}-shm")):
        if path.exists():
            check_writable(path)
    return check_wal(database)


async def _nothing(session: AsyncSession) -> None:
    """The first statement takes the lock that a write needs."""
    await session.execute(sa.select(sa.literal(1)))


def _join(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


async def _keyring(settings: Settings) -> str:
    async with open_database(settings.database_url) as db:
        is_new = _is_absent(db) or await db.revision() is None
        if is_new or (not Path(settings.keyring).exists() and await main.is_keyring_unused(db)):
            return f"{settings.keyring}, nothing is encrypted with it yet"
        async with main.open_keyring(settings, db):
            return f"{settings.keyring}, holds every key in use"


def _is_absent(db: Database) -> bool:
    return db.is_sqlite and not Path(str(db.url.database)).exists()


async def _addresses(settings: Settings) -> str:
    if main.running_pid(settings):
        return "served by the running dryccd"
    found = []
    for setting in ("http_listen", "ssh_listen", "edge_listen"):
        address = getattr(settings, setting)
        bind_listener(address, f"DRYCC_{setting.upper()}").close()
        found.append(f"{address} is free")
    return ", ".join(found)


async def _programs(settings: Settings) -> str:
    missing = [program for program in ("git", "ssh", "sh", "tar") if shutil.which(program) is None]
    if missing:
        raise Invalid(f"not found: {', '.join(missing)}; install {'them' if missing[1:] else 'it'}")
    process = await asyncio.create_subprocess_exec("git", "version", stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    return out.decode().strip()


async def _cluster(settings: Settings) -> str:
    who = "root" if os.geteuid() == 0 else f"uid {os.geteuid()}"
    python = settings.python or main.default_python()
    return (
        f"processes of this machine, all as {who}: apps are not kept apart from each other; Python {python}"
    )


async def _names(settings: Settings) -> str:
    if await is_builder_known():
        return "ssh finds the builder of a controller at localhost"
    return f"ssh does not find localhost-builder: run `dryccd setup-names`, or add\n{LINES}"


async def _edge(settings: Settings) -> str:
    host, _, port = settings.edge_listen.rpartition(":")
    with socket.socket() as probe:
        probe.settimeout(2)
        is_up = probe.connect_ex((host.strip("[]"), int(port))) == 0
    return f"{settings.edge_listen}, {'serving' if is_up else 'not running'}"


PARTS: dict[str, Callable[[Settings], Awaitable[str]]] = {
    "data": _data,
    "space": _space,
    "database": _database,
    "keyring": _keyring,
    "addresses": _addresses,
    "programs": _programs,
    "cluster": _cluster,
    "edge": _edge,
    "names": _names,
}
