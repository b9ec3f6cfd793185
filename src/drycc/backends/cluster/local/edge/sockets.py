"""The socket on which the platform speaks to its edge."""

import os
import socket
from pathlib import Path

BACKLOG = 16


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
