"""A file system of its own, of a few MiB, that a test fills to the last byte and frees again.

Root mounts it. An ordinary user mounts it in a name space of its own, in which the platform then
runs: `prefix` stands in front of its commands, and `root` is where its files are seen from here.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PAGE = 4096
CHUNK = 1024 * 1024


@dataclass(frozen=True)
class Disk:
    """Every method blocks."""

    path: Path  # where its processes find it
    root: Path = Path("/")
    prefix: tuple[str, ...] = ()

    @property
    def seen(self) -> Path:
        """The same place for us."""
        return self.root / self.path.relative_to("/")

    def fill(self, leave: int = 0) -> None:
        """Take all space but so many bytes."""
        self.free()
        with (self.seen / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
            while (left := self.left() - leave) > 0:
                ballast.write(bytes(min(CHUNK, left)))
        assert self.left() in range(max(leave, 1) + PAGE), self.left()

    def free(self) -> None:
        (self.seen / "ballast").unlink(missing_ok=True)

    def make_read_only(self) -> None:
        remount = ("mount", "-o", "remount,ro", str(self.path))
        subprocess.run((*self.prefix, *remount), check=True)

    def left(self) -> int:
        state = os.statvfs(self.seen)
        return state.f_bavail * state.f_frsize


@contextmanager
def small_disk(path: Path, mib: int) -> Iterator[Disk]:
    """An empty one at this new directory; it is gone afterwards."""
    path.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=700", "none", str(path))
    if os.geteuid() == 0:
        subprocess.run(mount, check=True)
        try:
            yield Disk(path)
        finally:
            subprocess.run(("umount", "--lazy", str(path)), check=True)
        return
    holder = subprocess.Popen(
        ("unshare", "-rm", "sh", "-c", '"$@" && echo ready && read end', "mount", *mount),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"ready\n"
        enter = ("nsenter", "--target", str(holder.pid), "--user", "--mount", "--preserve-credentials")
        yield Disk(path, Path(f"/proc/{holder.pid}/root"), enter)
