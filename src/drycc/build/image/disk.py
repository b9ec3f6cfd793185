"""Images on disk: unpacked within bounds, digested, made durable, and read-only in the end."""

import hashlib
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from drycc.errors import BuildFailed
from drycc.kit.disk import find_trouble
from drycc.kit.files import read_json, write_json

COMPLETE = "complete"


def unpack(source: Path, tree: Path) -> None:
    """Extract files, directories and links; nothing reaches outside of `tree`, by name or by link.

    tarfile's own filters are not in every Python 3.11.
    """
    tree = tree.resolve()
    try:
        with tarfile.open(source, "r:") as tar:
            for member in tar:
                _extract(tar, member, tree)
    except (tarfile.TarError, OSError) as error:
        raise BuildFailed(f"the source cannot be unpacked: {find_trouble(error) or error}") from error
    for path in _walk(tree):
        if path.is_symlink() and not _is_inside(path, tree):
            raise BuildFailed(f"{path.relative_to(tree)}: this link leads out of the app")


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, tree: Path) -> None:
    target = tree / member.name
    if ".." in target.parts or not target.is_relative_to(tree) or not _is_inside(target.parent, tree):
        raise BuildFailed(f"{member.name}: this path leads out of the app")
    target.parent.mkdir(parents=True, exist_ok=True)
    if member.isdir():
        target.mkdir(exist_ok=True)
    elif member.issym():
        target.symlink_to(member.linkname)
    elif member.isreg() and (content := tar.extractfile(member)):
        with target.open("xb") as file:
            shutil.copyfileobj(content, file)
        target.chmod(0o755 if member.mode & 0o100 else 0o644)
    else:
        raise BuildFailed(f"{member.name}: neither a file nor a directory nor a link")


def _is_inside(path: Path, tree: Path) -> bool:
    return path.resolve().is_relative_to(tree)


def digest_tree(tree: Path, also: str) -> str:
    """The same for the same names, contents, links and executable bits."""
    whole = hashlib.sha256(also.encode())
    for path in _walk(tree):
        mode = path.lstat().st_mode
        name = os.fsencode(path.relative_to(tree))
        kind, content = _describe(path, mode)
        whole.update(b"%s %d %s\0%s\n" % (kind, len(name), name, content))
    return f"sha256:{whole.hexdigest()}"


def measure_tree(tree: Path) -> int:
    """Bytes that it takes on the disk, and a copy of it."""
    return sum(path.lstat().st_blocks * 512 for path in _walk(tree))


def seal(directory: Path, complete: Mapping[str, Any]) -> None:
    """Make all of it durable, then say so in `complete`, then take the right to write away."""
    os.sync()
    write_json(directory / COMPLETE, complete)
    for path in _walk(directory):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222)


def read_complete(directory: Path) -> dict[str, Any] | None:
    """What `seal` wrote; None for a directory that is absent or was never finished."""
    return read_json(directory / COMPLETE)


def _walk(directory: Path) -> Iterator[Path]:
    """Everything below, in an order that depends on names alone; links are not followed."""
    for path in sorted(directory.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)


def _describe(path: Path, mode: int) -> tuple[bytes, bytes]:
    if stat.S_ISLNK(mode):
        return b"link", os.fsencode(path.readlink())
    if stat.S_ISDIR(mode):
        return b"directory", b""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    return b"program" if mode & 0o100 else b"file", digest
