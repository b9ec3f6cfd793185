"""Listening sockets whose failure names the setting to change."""

import errno
import socket

from drycc.errors import Conflict, Invalid

BACKLOG = 1024


def bind_listener(address: str, setting: str) -> socket.socket:
    """Listen on host:port; raises `Conflict` when that is taken or not ours, `Invalid` when it is none."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        if int(port) not in range(65536):
            raise ValueError(port)
        listener = socket.create_server((host, int(port)), family=family, backlog=BACKLOG)
    except (ValueError, OverflowError, socket.gaierror):
        raise Invalid(f"{setting}: {address!r} is no host:port of this machine") from None
    except OSError as error:
        is_taken = error.errno == errno.EADDRINUSE
        why = "it is already in use" if is_taken else str(error.strerror).lower()
        raise Conflict(f"cannot listen on {address}, {why}; free it or set {setting} to another") from error
    listener.setblocking(False)
    return listener
