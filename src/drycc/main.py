"""The composition: the only place that knows every part of the platform and every adapter."""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import uvicorn
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from drycc import roles
from drycc.admin import create_admin
from drycc.api.role import make_role
from drycc.backends.cluster.local.cluster import LocalCluster, open_local
from drycc.backends.db import Database, open_database
from drycc.backends.logstore.base import LogStore
from drycc.backends.logstore.retention import Bounds
from drycc.backends.logstore.ring import LocalLogStore
from drycc.backends.nudges import open_nudges
from drycc.backends.nudges.base import Nudges
from drycc.backends.objects import open_objects
from drycc.backends.objects.base import ObjectStore
from drycc.backup.restore import check_whole
from drycc.build.role import ROLE as BUILDER
from drycc.core.models import App, Token
from drycc.core.secrets import Keyring
from drycc.data import check_run, close_path, lock_data, make_run, migrations, running_pid
from drycc.errors import Conflict, Invalid, Unavailable
from drycc.kit.aio import task_group
from drycc.kit.http import wrap_routes
from drycc.kit.sockets import bind_listener
from drycc.logs.role import ROLE as LOGGER
from drycc.logs.routers import lines
from drycc.names import is_builder_known
from drycc.settings import Settings
from drycc.worker.role import ROLE as WORKER

log = logging.getLogger("drycc.main")

API = make_role(lines.router)
ROLES: dict[str, roles.Role[Any]] = {role.name: role for role in (LOGGER, WORKER, BUILDER, API)}
DRAIN = 30  # seconds for HTTP requests under way when we stop


BACKENDS = {"cluster_url": "local:", "nudges_url": "memory:", "logs_url": "local:", "objects_url": "file://"}


def check_backends(settings: Settings) -> None:
    """Raises `Invalid` for a URL that no adapter opens."""
    for name, scheme in BACKENDS.items():
        url = getattr(settings, name)
        if not url.startswith(scheme):
            raise Invalid(f"DRYCC_{name.upper()}: {url!r} is not supported yet, only {scheme}")


def choose_roles(names: str) -> list[roles.Role[Any]]:
    """The roles that are named, all with an empty text; raises `Invalid`."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = sorted(set(wanted) - set(ROLES))
    if unknown:
        raise Invalid(f"there is no role {', '.join(unknown)}; choose from {', '.join(ROLES)}")
    return [role for name, role in ROLES.items() if not wanted or name in wanted]


async def serve(settings: Settings) -> None:
    """Be the platform until a signal: SIGTERM leaves pods and edge running, SIGINT stops them too."""
    check_backends(settings)
    check_run(settings)
    chosen = choose_roles(settings.roles)
    with lock_data(settings), bind_listener(settings.http_listen, "DRYCC_HTTP_LISTEN") as listener:
        check_whole(Path(settings.data))
        if BUILDER in chosen:  # tried now, for it is opened when much else runs already
            bind_listener(settings.ssh_listen, "DRYCC_SSH_LISTEN").close()
        make_run(settings)
        stopping = _watch_signals()
        async with AsyncExitStack() as stack:
            ports = await stack.enter_async_context(_open_ports(settings, roles.find_names(chosen)))
            try:
                await create_admin(settings, ports["db"])
                await stack.enter_async_context(
                    roles.run(chosen, ports, lambda routes: _listen(listener, routes))
                )
            except Exception:
                if "cluster" in ports:
                    await ports["cluster"].undo()
                raise
            await _greet(settings)
            if await stopping == signal.SIGINT and "cluster" in ports:
                await ports["cluster"].stop(say)


async def stop(settings: Settings) -> None:
    """End a running `serve` together with its pods and its edge, or what an ended one left running.

    It starts nothing and makes no data directory.
    """
    pid = running_pid(settings)
    if pid is not None:
        os.kill(pid, signal.SIGINT)
        await _wait_for_end(pid)
        return
    is_there = await asyncio.to_thread(Path(settings.data).is_dir)
    with lock_data(settings) if is_there else nullcontext():
        async with open_cluster(settings, is_ending=True) as cluster:
            await cluster.stop(say)


async def _wait_for_end(pid: int) -> None:
    fd = os.pidfd_open(pid)
    ended = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_reader(fd, _settle, ended, None)
    try:
        await asyncio.wait_for(ended, 120)
    finally:
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)


async def migrate(settings: Settings) -> None:
    """Bring the schema to this program's revision."""
    with lock_data(settings):
        async with open_database(settings.database_url) as db:
            await db.migrate(migrations())


def say(line: str) -> None:
    print(line, flush=True)


# ---- ports


def _open_ports(settings: Settings, names: frozenset[str]) -> Any:
    openers = roles.Openers(
        db=open_migrated,
        keyring=partial(open_keyring, may_create=True),
        cluster=open_cluster,
        objects=_open_objects,
        nudges=_open_nudges,
        logs=open_logs,
    )
    return roles.open_ports(settings, names, openers)


@asynccontextmanager
async def open_migrated(settings: Settings) -> AsyncIterator[Database]:
    async with open_database(settings.database_url) as db:
        await db.migrate(migrations())
        yield db


@asynccontextmanager
async def open_keyring(
    settings: Settings, db: Database, *, may_create: bool = False
) -> AsyncIterator[Keyring]:
    """Load the keyring, or make one while there is nothing that a lost one had encrypted or signed."""
    path = Path(settings.keyring)
    if not await asyncio.to_thread(path.exists):
        if not await is_keyring_unused(db):
            raise Conflict(f"the keyring {path} is missing, and apps or tokens need it: put it back")
        if not may_create:
            raise Conflict(f"there is no keyring yet at {path}: `dryccd serve` makes it")
        with suppress(FileExistsError):  # another first start was quicker
            await asyncio.to_thread(Keyring.create, path)
    rows = await db.read(sa.select(sa.func.substr(App.data_key, 1, 8)).distinct())
    yield await asyncio.to_thread(_load_keyring, path, [bytes(row[0]) for row in rows])


async def is_keyring_unused(db: Database) -> bool:
    """Whether no row was encrypted or signed with it."""
    uses = (sa.select(App.uuid).limit(1), sa.select(Token.uuid).limit(1))
    return not any([await db.read_one(use) for use in uses])


def _load_keyring(path: Path, wrapped: list[bytes]) -> Keyring:
    keyring = Keyring.load(path)
    close_path(path)
    if not all(keyring.has(id) for id in wrapped):
        raise Conflict(f"the keyring {path} lacks a key that apps are encrypted with: put it back")
    return keyring


@asynccontextmanager
async def open_cluster(settings: Settings, *, is_ending: bool = False) -> AsyncIterator[LocalCluster]:
    async with open_local(
        Path(settings.data),
        Path(settings.run),
        instance=settings.data,
        edge_listen=settings.edge_listen,
        python=settings.python or default_python(),
        build_env=build_environment(settings.build_env),
        grace=settings.grace,
        backoff=settings.backoff,
        backoff_cap=settings.backoff_cap,
        idle_timeout=settings.idle_timeout,
        is_ending=is_ending,
    ) as cluster:
        yield cluster


def default_python() -> str:
    """The interpreter that apps are built with: the base of our own."""
    return str(Path(sys.base_prefix) / "bin" / "python3")


def build_environment(patterns: str) -> dict[str, str]:
    """The part of our environment that a build sees."""
    wanted = patterns.split(",")
    return {name: value for name, value in os.environ.items() if any(fnmatchcase(name, p) for p in wanted)}


@asynccontextmanager
async def _open_objects(settings: Settings) -> AsyncIterator[ObjectStore]:
    yield await open_objects(settings.objects_url)


@asynccontextmanager
async def _open_nudges(settings: Settings) -> AsyncIterator[Nudges]:
    yield await open_nudges(settings.nudges_url)


@asynccontextmanager
async def open_logs(settings: Settings) -> AsyncIterator[LogStore]:
    bounds = Bounds(settings.log_bytes, settings.log_total, settings.log_age)
    async with LocalLogStore(Path(settings.data) / "logs", bounds) as store:
        yield store


# ---- signals and HTTP


def _watch_signals() -> "asyncio.Future[int]":
    loop = asyncio.get_running_loop()
    came: asyncio.Future[int] = loop.create_future()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _settle, came, number)
    return came


def _settle(future: "asyncio.Future[Any]", result: object) -> None:
    if not future.done():
        future.set_result(result)


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers, that says when it has started."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    def capture_signals(self) -> Any:
        return nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()


@asynccontextmanager
async def _listen(listener: socket.socket, routes: list[BaseRoute]) -> AsyncIterator[None]:
    """Serve the routes of all roles on the one HTTP address."""
    config = uvicorn.Config(
        wrap_routes(Starlette(routes=routes)),
        http="httptools",
        ws="websockets-sansio",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # any client could name another address as its own
        server_header=False,
        timeout_graceful_shutdown=DRAIN,
        ws_max_size=1024 * 1024,
    )
    server = _Server(config)
    async with task_group() as group:
        group.create_task(server.serve([listener]), name="http")
        await server.is_up.wait()
        try:
            yield
        finally:
            server.should_exit = True


async def _greet(settings: Settings) -> None:
    say(
        f"dryccd is ready: API http://{_named(settings.http_listen)}, apps http://<app>.{settings.domain}:"
        f"{settings.edge_listen.rpartition(':')[2]}"
    )
    say("SIGTERM ends this process alone, apps go on serving; Ctrl-C and `dryccd stop` stop the apps too.")
    if not await is_builder_known():
        say("ssh does not find localhost-builder, which the client pushes to: run `dryccd setup-names`.")
    say("Next:")
    say(f"  drycc login http://{_named(settings.http_listen)} -u admin -p <password>")
    say("  drycc keys add ~/.ssh/id_ed25519.pub")
    say("  drycc create && git push drycc main")


def _named(address: str) -> str:
    """The address as a client names it."""
    host, _, port = address.rpartition(":")
    return f"localhost:{port}" if host in ("127.0.0.1", "0.0.0.0", "::", "[::]") else address


__all__ = ["Unavailable", "lock_data", "migrate", "migrations", "running_pid", "serve", "stop"]
