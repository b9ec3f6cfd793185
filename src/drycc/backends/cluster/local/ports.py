"""TCP ports of pods: choosing them, trying them, and finding on which ones a process listens."""

import asyncio
import errno
import os
import random
import socket
from collections.abc import Iterable
from pathlib import Path

from drycc.errors import Unavailable

LOWEST, HIGHEST = 10240, 65535
LOOPBACKS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp


class PortPool:
    """Ports that no two pods have at once."""

    def __init__(self) -> None:
        self._taken: set[int] = set()
        # Where the kernel takes ports for outgoing connections: one of those may be gone at any instant,
        # and a connection attempt to a free one can even reach itself.
        self._ephemeral = _read_ephemeral()

    def keep(self, port: int) -> None:
        """The port of a pod that runs already."""
        self._taken.add(port)

    def take(self) -> int:
        """A port that is free on both loopback addresses; raises `Unavailable`."""
        for _ in range(1000):
            port = random.randrange(LOWEST, HIGHEST)  # noqa: S311
            if port in self._ephemeral or port in self._taken:
                continue
            if not any(_is_taken(family, host, port) for family, host in LOOPBACKS):
                self._taken.add(port)
                return port
        raise Unavailable("no free port was found on the loopback address")

    def give_back(self, port: int) -> None:
        self._taken.discard(port)


async def accepts(port: int) -> bool:
    """Whether a connection to the port succeeds on IPv4's loopback address or on IPv6's."""
    return await _connects(*LOOPBACKS[0], port) or await _connects(*LOOPBACKS[1], port)


def find_listening(pids: Iterable[int]) -> tuple[int, ...]:
    """The TCP ports on which any of these processes listens."""
    by_inode = _list_listening()
    sockets = {link for pid in pids for link in _list_sockets(pid)}
    return tuple(sorted({port for inode, port in by_inode if inode in sockets}))


async def _connects(family: socket.AddressFamily, host: str, port: int) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            async with asyncio.timeout(1):
                await asyncio.get_running_loop().sock_connect(probe, (host, port))
        except OSError:
            return False
        return bool(probe.getsockname() != probe.getpeername())


def _is_taken(family: socket.AddressFamily, host: str, port: int) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((host, port))
    except OSError as error:
        return error.errno == errno.EADDRINUSE  # anything else: this machine has no such address
    return False


def _read_ephemeral() -> range:
    low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    is_wide = int(low) <= LOWEST and int(high) >= HIGHEST - 1
    return range(0) if is_wide else range(int(low), int(high) + 1)


def _list_listening() -> list[tuple[str, int]]:
    """Inode and port of every listening TCP socket."""
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if not os.path.exists(table):
            continue
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING:
                found.append((fields[9], int(fields[1].rpartition(":")[2], 16)))
    return found


def _list_sockets(pid: int) -> list[str]:
    """Inodes of the sockets that a process holds; none when it has ended or is not ours."""
    try:
        links = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")]
    except OSError:
        return []
    return [link[8:-1] for link in links if link.startswith("socket:[")]
