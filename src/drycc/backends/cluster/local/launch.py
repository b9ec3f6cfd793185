"""Starts the leader of a pod where perl cannot: launch.py <directory> <program> [argument ...]

It becomes the program there, which gets the orphans among its descendants and our environment as it is.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def launch(directory: str, *argv: str) -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
        signal.signal(number, signal.SIG_DFL)
    # Not `os.environ`: in a C locale Python adds to that.
    lines = Path("/proc/self/environ").read_bytes().split(b"\0")
    env = dict(line.split(b"=", 1) for line in lines if b"=" in line)
    os.chdir(directory)
    os.execve(argv[0], argv, env)  # noqa: S606


if __name__ == "__main__":
    launch(*sys.argv[1:])
