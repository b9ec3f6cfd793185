"""Files that are whole after a power cut, modes for us alone, and trees that are gone at once."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from drycc.kit.crash import point
from drycc.kit.disk import guarded

_PART = ".part-"  # how a file begins that is not whole


def write_whole(path: Path, data: bytes) -> None:
    """Replace the file, readable by us alone; durable when it returns. Raises `NoSpace`, and then the
    former file stays and nothing else."""
    with guarded():
        part = _write_part(path, data)
        point("file.written")
        try:
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def create_whole(path: Path, data: bytes) -> None:
    """As `write_whole`, but raises `FileExistsError` for a file that is there already."""
    with guarded():
        part = _write_part(path, data)
        try:
            os.link(part, path)
        finally:
            part.unlink()
        sync_directory(path.parent)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """`write_whole` for a JSON object."""
    write_whole(path, json.dumps(value).encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """None for a file that is absent or was never written whole."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def sync_directory(path: Path) -> None:
    """Make the names in it durable."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def close_to_others(path: Path) -> bool:
    """Take every right of group and others away; says whether they had one."""
    mode = path.stat().st_mode & 0o7777
    if not mode & 0o077:
        return False
    path.chmod(mode & ~0o077)
    return True


def remove_tree(path: Path) -> None:
    """Take the directory out of sight, then delete it; read-only parts and an absent one are fine."""
    aside = path.with_name(f".removed-{uuid4().hex}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    delete_tree(aside)


def delete_tree(path: Path) -> None:
    """Delete the directory where it is; read-only parts and an absent one are fine."""
    if not path.exists():
        return
    try:
        shutil.rmtree(path)
    except PermissionError:
        _unlock(path)
        shutil.rmtree(path)


def remove_leftovers(parent: Path) -> None:
    """Delete what `remove_tree` had set aside, and the files not yet whole, when we died."""
    for path in parent.glob(".removed-*"):
        delete_tree(path)
    for path in parent.glob(f"{_PART}*"):
        path.unlink()


def _write_part(path: Path, data: bytes) -> Path:
    part = path.with_name(f"{_PART}{uuid4().hex}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except OSError:
        part.unlink()
        raise
    return part


def _unlock(path: Path) -> None:
    """Make every directory below `path` ours to change."""
    path.chmod(0o700)
    for parent, names, _ in os.walk(path):
        for name in names:
            if not os.path.islink(os.path.join(parent, name)):
                os.chmod(os.path.join(parent, name), 0o700)
