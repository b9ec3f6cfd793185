"""The SSH server: who may connect, with which algorithms, and how fast it answers."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh

from drycc.backends.db import Database
from drycc.build.git import WINDOW
from drycc.build.session import Sessions
from drycc.core import keys
from drycc.errors import Unavailable
from drycc.kit.aio import within
from drycc.kit.files import write_whole
from drycc.kit.sockets import bind_listener

log = logging.getLogger("drycc.build")

MOST_CONNECTIONS = 100  # from one address
CLOSING = 5.0  # seconds for a connection to end
MOST_KEYS = 20  # that one connection may offer: agents hold many
UNKNOWN = "the key {} is not known here; add it with: drycc keys add <file>.pub\n"

# ssh-audit finds no fault in these. The client's order decides, and OpenSSH's begins with ChaCha20, which
# costs a third of the speed: so there is AES-GCM alone, which every client of the last ten years knows.
ALGORITHMS: dict[str, Any] = {
    "kex_algs": ["mlkem768x25519-sha256", "curve25519-sha256", "curve25519-sha256@libssh.org"],
    "encryption_algs": ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com"],
    "mac_algs": ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com"],
    "compression_algs": None,
}
CHANNELS: dict[str, Any] = {
    "encoding": None,  # packs are bytes
    "line_editor": False,
    "allow_pty": False,
    "allow_scp": False,
    "agent_forwarding": False,
    "x11_forwarding": False,
    "window": WINDOW,
    "max_pktsize": 256 * 1024,
}
Open = dict[asyncssh.SSHServerConnection, str]  # connections, with the client's address
TIMES: dict[str, Any] = {"login_timeout": 10, "keepalive_interval": 30, "keepalive_count_max": 3}


class Connection(asyncssh.SSHServer):
    """One client: public keys only, each looked up once."""

    def __init__(self, db: Database, open: Open) -> None:
        self._db = db
        self._open = open
        self._known: dict[str, bool] = {}

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._conn = conn
        address = str(conn.get_extra_info("peername", ("",))[0])
        self._open[conn] = address
        _acknowledge_at_once(conn)
        if list(self._open.values()).count(address) > MOST_CONNECTIONS:
            conn.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.pop(self._conn, None)

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Asked twice for each login: for the offer and for the signature."""
        fingerprint = key.get_fingerprint("sha256")
        if fingerprint not in self._known:
            self._known[fingerprint] = await self._look_up(fingerprint)
        if self._known[fingerprint]:
            self._conn.set_extra_info(fingerprint=fingerprint)
        return self._known[fingerprint]

    async def _look_up(self, fingerprint: str) -> bool:
        if len(self._known) >= MOST_KEYS:
            return False
        try:
            is_known = await keys.find_owner(self._db, fingerprint) is not None
        except Unavailable as error:
            raise asyncssh.DisconnectError(asyncssh.DISC_SERVICE_NOT_AVAILABLE, str(error)) from error
        if not is_known:
            self._conn.send_auth_banner(UNKNOWN.format(fingerprint))
        return is_known


@asynccontextmanager
async def listen(
    address: str, host_key: asyncssh.SSHKey, db: Database, sessions: Sessions
) -> AsyncIterator[int]:
    """Serve SSH on `host:port` while the body runs, then drain; gives the port. Raises `Conflict`."""
    open: Open = {}
    acceptor = await asyncssh.listen(
        sock=bind_listener(address, "DRYCC_SSH_LISTEN"),
        server_factory=lambda: Connection(db, open),
        process_factory=sessions.handle,
        server_host_keys=[host_key],
        server_version="drycc",
        **(ALGORITHMS | CHANNELS | TIMES),
    )
    log.info("SSH on %s", address)
    try:
        yield acceptor.get_port()
    finally:
        acceptor.close()
        await sessions.drain()
        for connection in list(open):
            connection.close()
        await within(CLOSING, asyncio.gather(*(connection.wait_closed() for connection in list(open))))
        await within(CLOSING, acceptor.wait_closed())


def load_host_key(directory: Path) -> asyncssh.SSHKey:
    """The server's own key, made by the first start and never again: clients remember it. Blocks."""
    file = directory / "ssh_host_ed25519_key"
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not file.exists():
        write_whole(file, asyncssh.generate_private_key("ssh-ed25519").export_private_key())
    return asyncssh.read_private_key(file)


def _acknowledge_at_once(conn: asyncssh.SSHServerConnection) -> None:
    """Spare each step of the handshake the 40 ms for which the kernel holds an acknowledgement back.

    OpenSSH's client leaves Nagle's algorithm on and sends its next packet only after it. The
    kernel forgets the option, so it is set anew before each read is handled.
    """
    sock = conn.get_extra_info("socket")
    receive = conn.data_received

    def data_received(data: bytes, datatype: int | None = None) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        receive(data, datatype)

    conn.data_received = data_received  # type: ignore[method-assign]
