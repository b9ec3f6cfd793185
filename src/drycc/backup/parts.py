"""Parts: files and trees, compressed into one file each with a digest, and back. Everything here blocks."""

import hashlib
import os
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from threading import Event
from typing import IO, Any, BinaryIO

import zstandard

from drycc.backup.manifest import Part
from drycc.errors import Invalid

LEVEL = 1  # a tenth larger than the usual one, in half the time
CHUNK = 1024 * 1024  # bytes in memory


class Stopped(Exception):
    """Nobody waits for the part any more."""


class Sink:
    """Takes compressed bytes, and their digest; ends the work when `stop` is set."""

    def __init__(self, file: BinaryIO, stop: Event) -> None:
        self._file = file
        self._stop = stop
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes) -> int:
        if self._stop.is_set():
            raise Stopped
        self._digest.update(data)
        self._size += len(data)
        return self._file.write(data)

    def part(self) -> Part:
        return Part(self._size, self._digest.hexdigest())


@contextmanager
def _compressing(target: Path, stop: Event) -> Iterator[tuple[IO[bytes], Sink]]:
    """A new file, durable afterwards; none when the body fails."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with os.fdopen(_create(target, 0o600), "wb") as file:
            sink = Sink(file, stop)
            compressor = zstandard.ZstdCompressor(level=LEVEL)
            with compressor.stream_writer(sink, closefd=False) as compressed:  # type: ignore[arg-type]
                yield compressed, sink
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def pack_file(file: Path, target: Path, stop: Event) -> Part:
    with file.open("rb") as source, _compressing(target, stop) as (compressed, sink):
        shutil.copyfileobj(source, compressed, CHUNK)
    return sink.part()


def pack_tree(
    root: Path, names: Callable[[Path], Iterable[str]], target: Path, stop: Event, *, may_vanish: bool
) -> Part:
    """Files, directories and links below `root`, in the order in which `names` finds them.

    One that is gone when its turn comes is left out with `may_vanish`, else raises `FileNotFoundError`.
    """
    with (
        _compressing(target, stop) as (compressed, sink),
        tarfile.open(fileobj=compressed, mode="w|", format=tarfile.PAX_FORMAT, bufsize=CHUNK) as tar,
    ):
        for name in names(root):
            try:
                _add(tar, root / name, name)
            except FileNotFoundError:
                if not may_vanish:
                    raise
    return sink.part()


def list_tree(root: Path) -> Iterator[str]:
    """All of it, each directory before what is in it."""
    yield "."
    for parent, directories, files in os.walk(root, onerror=_raise):
        directories.sort()
        for name in sorted(directories + files):
            yield os.path.relpath(os.path.join(parent, name), root)


def unpack_file(part: Path, target: Path) -> None:
    """Into a new file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with _decompressing(part) as content, os.fdopen(_create(target, 0o600), "wb") as file:
        shutil.copyfileobj(content, file, CHUNK)


def unpack_tree(part: Path, root: Path) -> None:
    """Into a new directory, out of which nothing reaches: all is made below directories that we made."""
    modes: dict[PurePosixPath, tarfile.TarInfo] = {}
    root.mkdir(parents=True)
    try:
        with (
            _decompressing(part) as content,
            tarfile.open(fileobj=content, mode="r|") as tar,  # a larger buffer is copied for each header
        ):
            for member in tar:
                _extract(tar, member, root, modes)
    except (tarfile.TarError, FileExistsError) as error:
        raise Invalid(f"{part.name} cannot be unpacked: {error}") from error
    for path, member in reversed(modes.items()):
        (root / path).chmod(member.mode)
        os.utime(root / path, (member.mtime, member.mtime))


def read_chunks(part: Path) -> Iterator[bytes]:
    """The content of a packed file."""
    with _decompressing(part) as content:
        while chunk := content.read(CHUNK):
            yield chunk


def verify(file: Path, part: Part) -> bool:
    """Whether the file is what was stored, to the byte."""
    if file.stat().st_size != part.size:
        return False
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == part.sha256


@contextmanager
def _decompressing(part: Path) -> Iterator[Any]:
    with part.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as content:
        yield content


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    status = path.lstat()
    member = tarfile.TarInfo(name)
    member.mode, member.mtime = stat.S_IMODE(status.st_mode), status.st_mtime
    if stat.S_ISREG(status.st_mode):
        with path.open("rb") as content:
            member.size = os.fstat(content.fileno()).st_size
            tar.addfile(member, content)
    elif stat.S_ISDIR(status.st_mode):
        member.type = tarfile.DIRTYPE
        tar.addfile(member)
    elif stat.S_ISLNK(status.st_mode):
        member.type, member.linkname = tarfile.SYMTYPE, str(path.readlink())
        tar.addfile(member)


def _extract(
    tar: tarfile.TarFile, member: tarfile.TarInfo, root: Path, made: dict[PurePosixPath, tarfile.TarInfo]
) -> None:
    path = PurePosixPath(member.name)
    if path != PurePosixPath(".") and (".." in path.parts or path.parent not in made):
        raise tarfile.ExtractError(f"{member.name} has no directory")
    target = root / path
    if member.isdir():
        if path.parts:
            target.mkdir(mode=0o700)
        made[path] = member
    elif member.issym():
        target.symlink_to(member.linkname)
    elif member.isreg() and (content := tar.extractfile(member)):
        with os.fdopen(_create(target, member.mode), "wb") as file:
            shutil.copyfileobj(content, file, CHUNK)
            file.flush()  # or the last bytes would come after the time is set
            os.fchmod(file.fileno(), member.mode)
            os.utime(file.fileno(), (member.mtime, member.mtime))
    else:
        raise tarfile.ExtractError(f"{member.name} is neither a file nor a directory nor a link")


def _create(path: Path, mode: int) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)


def _raise(error: OSError) -> None:
    raise error
