"""Files that are whole after a power cut, and trees that are gone at once."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from drycc.kit.disk import guarded, sync_directory


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace the file, readable by us alone; durable when it returns.

    Raises `NoSpace` on a full disk, on which the former file stays and nothing else.
    """
    part = path.with_name(f".{path.name}.{uuid4().hex}")
    with guarded():
        try:
            _write(part, json.dumps(value))
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def read_json(path: Path) -> dict[str, Any] | None:
    """None for a file that is absent or was never written whole."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def remove_tree(path: Path) -> None:
    """Take the directory out of sight, then delete it; read-only parts and an absent one are fine."""
    aside = path.with_name(f".removed-{uuid4().hex}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    delete_tree(aside)


def delete_tree(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except PermissionError:
        _unlock(path)
        shutil.rmtree(path)


def remove_leftovers(parent: Path) -> None:
    """Delete what `remove_tree` had set aside when we died."""
    for path in parent.glob(".removed-*"):
        delete_tree(path)


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)


def _unlock(path: Path) -> None:
    """Make every directory below `path` ours to change."""
    path.chmod(0o700)
    for parent, names, _ in os.walk(path):
        for name in names:
            if not os.path.islink(os.path.join(parent, name)):
                os.chmod(os.path.join(parent, name), 0o700)
