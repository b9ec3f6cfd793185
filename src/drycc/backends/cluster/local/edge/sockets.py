"""The two sockets of an edge: where clients come in, and where the platform speaks to it."""

import errno
import os
import socket
from pathlib import Path

from drycc.errors import Conflict, Invalid

BACKLOG = 1024


def bind_listener(listen: str) -> socket.socket:
    """Listen on host:port; raises `Conflict` when that is taken or not ours, `Invalid` when it is none."""
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, int(port)), family=family, backlog=BACKLOG)
    except (ValueError, OverflowError, socket.gaierror):
        raise Invalid(f"DRYCC_EDGE_LISTEN: {listen!r} is no host:port of this machine") from None
    except OSError as error:
        why = "is already in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise Conflict(
            f"the address of the edge, {listen}, {why}; set DRYCC_EDGE_LISTEN to another one"
        ) from error
    listener.setblocking(False)
    return listener


def bind_control(path: Path) -> socket.socket:
    """Listen on a unix socket that only our user may open; it replaces one that was left there."""
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        control.bind(str(part))
        os.chmod(part, 0o600)
        control.listen(BACKLOG)
        os.rename(part, path)
    except BaseException:
        control.close()
        raise
    control.setblocking(False)
    return control
