"""The edge's process: its sockets, its clock, and its end. `main` is `dryccd edge`."""

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
from collections.abc import Mapping
from pathlib import Path

from drycc.backends.cluster.local.edge.access import AccessLog
from drycc.backends.cluster.local.edge.client import Client
from drycc.backends.cluster.local.edge.commands import listen_control
from drycc.backends.cluster.local.edge.pods import Table
from drycc.backends.cluster.local.edge.snapshot import load
from drycc.errors import Invalid
from drycc.kit.aio import running, within
from drycc.kit.sockets import BACKLOG

log = logging.getLogger("drycc.edge")

DRAIN_WITHIN = 30.0  # seconds for requests in flight after SIGTERM
LAME_DUCK = 1.0  # seconds in which a client that was idle may still send, and learns that we close


class Server:
    """What all connections of the edge share."""

    def __init__(self, access: AccessLog, snapshot_file: Path, idle_timeout: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.table = Table()
        self.access = access
        self.idle_timeout = idle_timeout
        self.clients: set[Client] = set()
        self.is_draining = False
        self.closes_idle_at = float("inf")
        self._snapshot_file = snapshot_file
        self._emptied = asyncio.Event()
        self._prefix = os.urandom(10).hex().encode()
        self._requests = 0

    def new_request_id(self) -> bytes:
        """32 hexadecimal digits, unlike any that this or another edge has given."""
        self._requests += 1
        return b"%b%012x" % (self._prefix, self._requests)

    async def turn(self) -> int:
        """Route by the snapshot file from now on; gives its generation, raises `Invalid`."""
        self.table.turn(await asyncio.to_thread(load, self._snapshot_file))
        return self.table.generation

    async def sweep(self) -> None:
        """End, again and again, what was silent for too long."""
        pause = min(1.0, self.idle_timeout / 4)
        while True:
            await asyncio.sleep(pause)
            now = self.loop.time()
            self.table.sweep(now)
            for client in list(self.clients):
                client.sweep(now)

    def forget(self, client: Client) -> None:
        self.clients.discard(client)
        if not self.clients:
            self._emptied.set()

    async def drain(self) -> None:
        """Let requests in flight end, for a while; then cut what is left."""
        self.is_draining = True
        self.closes_idle_at = self.loop.time() + LAME_DUCK
        self._emptied.clear()
        if self.clients and not await within(DRAIN_WITHIN, self._emptied.wait()):
            log.warning("%d connections were cut off", len(self.clients))
        for client in list(self.clients):
            client.abort()


def main(environ: Mapping[str, str]) -> int:
    """Serve until SIGTERM; the exit status."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(serve(environ))
    return 0


async def serve(environ: Mapping[str, str]) -> None:
    listen = environ["DRYCC_EDGE_LISTEN"]
    listener, control = _inherit(environ["DRYCC_EDGE_FD"]), _inherit(environ["DRYCC_EDGE_CONTROL_FD"])
    access = AccessLog(Path(environ["DRYCC_EDGE_ACCESS"]))
    idle_timeout = float(environ["DRYCC_IDLE_TIMEOUT"])
    server = Server(access, Path(environ["DRYCC_EDGE_SNAPSHOT"]), idle_timeout)
    try:
        await server.turn()
    except Invalid as error:
        log.error("%s; every request gets 404 until the platform writes another", error)
    gc.freeze()
    stopped = asyncio.Event()
    server.loop.add_signal_handler(signal.SIGTERM, stopped.set)
    answering = await listen_control(control, server, listener, listen)
    accepting = await server.loop.create_server(lambda: Client(server), sock=listener.dup(), backlog=BACKLOG)
    log.info("the edge listens on %s, routes of generation %d", listen, server.table.generation)
    async with running(("sweep", server.sweep)):
        await stopped.wait()
        accepting.close()
        listener.close()
        await server.drain()
    answering.close()
    access.close()


def _inherit(number: str) -> socket.socket:
    """The listening socket that whoever started us passed under this number."""
    inherited = socket.socket(fileno=int(number))
    inherited.set_inheritable(False)
    inherited.setblocking(False)
    return inherited
