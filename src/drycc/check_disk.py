"""What `dryccd check` finds out about the disk: whether we may write, and whether there is space."""

import os
import pwd
import shutil
from pathlib import Path

from drycc.backends.db import WAL_BYTES
from drycc.errors import Invalid, NoSpace
from drycc.kit.disk import NO_SPACE, has_space
from drycc.settings import Settings

MIB = 1024**2
START_BYTES = MIB  # what a first start writes, and more
COPIES = 4  # of a tree, while it is pushed: the source, its copy for the build, the image, a pod's copy


def check_owner(settings: Settings) -> str:
    """Raises `Invalid` when we may not write to the data directory; a warning when it is somebody else's."""
    path = find_existing(Path(settings.data))
    if not path.is_dir():
        raise Invalid(f"{settings.data}: {path} is no directory")
    check_writable(path)
    owner = path.stat().st_uid
    if path == Path(settings.data) and owner != os.geteuid():
        return f"WARNING: it belongs to {_name_user(owner)}, who cannot read what we write: serve as they do"
    return ""


def check_writable(path: Path) -> None:
    """Raises `Invalid` with the reason why we may not write to this directory or file."""
    wanted = os.W_OK | (os.X_OK if path.is_dir() else 0)
    if os.access(path, wanted, effective_ids=True):
        return
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        raise Invalid(f"{path} is on a file system that is read-only: mount it anew, and look why it is")
    owner, us = _name_user(path.stat().st_uid), _name_user(os.geteuid())
    raise Invalid(f"{path} belongs to {owner} and may not be written by {us}: run as {owner}, or use chown")


def describe_space(settings: Settings) -> str:
    """Raises `NoSpace` when a start would fail; a warning when the settings allow more than is free."""
    data = find_existing(Path(settings.data))
    if not has_space(data, START_BYTES):
        raise NoSpace(NO_SPACE)
    free, needed = shutil.disk_usage(data).free, count_needed(settings)
    if free >= needed:
        return f"{free // MIB} MiB free, the settings may need {needed // MIB}"
    return (
        f"WARNING: {free // MIB} MiB are free and the settings may need {needed // MIB}: pushes and starts "
        "may be refused for want of space; make some, or lower DRYCC_PUSH_LIMIT, DRYCC_TREE_LIMIT, "
        "DRYCC_BUILDS or DRYCC_LOG_TOTAL"
    )


def count_needed(settings: Settings) -> int:
    """Bytes that pushes, builds, lines and the database's log may still take at once."""
    builds = settings.builds * (settings.push_limit + COPIES * settings.tree_limit)
    logs = Path(settings.data) / "logs"
    lines = sum(file.stat().st_size for file in logs.glob("*/*") if file.is_file())
    return builds + max(0, settings.log_total - lines) + WAL_BYTES


def check_wal(database: Path) -> str:
    """A warning when SQLite's log is larger than it may become by itself."""
    log = Path(f"{database}-wal")
    size = log.stat().st_size if log.exists() else 0
    if size <= WAL_BYTES:
        return ""
    return (
        f"WARNING: {log} has {size // MIB} MiB, its bound is {WAL_BYTES // MIB}: some process holds a read "
        "transaction open, such as an sqlite3 shell; end it, and the log shrinks"
    )


def find_existing(path: Path) -> Path:
    """The path, or the nearest one above it that is there."""
    return path if path.exists() or path == path.parent else find_existing(path.parent)


def _name_user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
