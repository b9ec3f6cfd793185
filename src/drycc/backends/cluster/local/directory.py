"""A pod's directory: the truth about the pod, also after our death.

`spec.json` what it is (never its environment), `out` all that it printed, `status` how its program
ended, `root/` its own copy of the image, `home/`, `tmp/`; for a build also `source.tar` and
`image.json`.
"""

import logging
import os
import signal
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from drycc.backends.cluster.base import Exit
from drycc.errors import Unavailable
from drycc.kit.disk import guarded
from drycc.kit.files import read_json, remove_tree, write_json

log = logging.getLogger("drycc.pods")

Kind = Literal["workload", "build", "release"]
LOOK_BACK = 64 * 1024  # bytes at the end of `out` in which the last lines are looked for
LONGEST_SIGNAL = 64
STATUS_BYTES = 4  # and a newline; the file has its space from the start, so that a full disk takes an end


@dataclass(slots=True)
class PodRecord:
    """`spec.json`: written before the process is started, again when one of the lower part changes."""

    id: str  # names the directory
    name: str
    app: str
    kind: Kind
    ptype: str
    release: int
    template: str
    image: str
    generation: int
    grace: float
    created: float  # seconds since 1970, as the deadline
    one_off: str = ""  # the id that a one-off was given
    deadline: float | None = None
    ready_after: float | None = None

    port: int = 0
    pid: int = 0  # 0 = never started, or we died before we could note it
    start_time: int = 0
    started: float = 0
    is_ready: bool = False
    is_over: bool = False  # it will not be started again
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class PodDirectory:
    path: Path

    @property
    def out(self) -> Path:
        return self.path / "out"

    @property
    def root(self) -> Path:
        return self.path / "root"

    @property
    def source(self) -> Path:
        return self.path / "source.tar"

    @property
    def result(self) -> Path:
        return self.path / "image.json"

    @property
    def was_spawned(self) -> bool:
        """The kernel creates `out` for the new process, so this is known even if we died then."""
        return self.out.exists()

    def save(self, record: PodRecord) -> None:
        write_json(self.path / "spec.json", asdict(record))

    def note(self, record: PodRecord) -> None:
        """Save what the next of us can find out by itself, if the disk takes it."""
        try:
            with guarded():
                self.path.mkdir(exist_ok=True)
            self.save(record)
        except Unavailable as error:
            log.warning("pod %s: its record is out of date: %s", record.name, error)

    def load(self) -> PodRecord | None:
        """None when we died before the record was whole, or it is not one of ours."""
        values = read_json(self.path / "spec.json")
        if values is None or set(values) != {field.name for field in fields(PodRecord)}:
            return None
        return PodRecord(**values)

    def make(self) -> None:
        """Everything that a new run needs, nothing of a former one but its output."""
        self.path.mkdir(exist_ok=True)
        self.clear()
        for name in ("root", "home", "tmp"):
            (self.path / name).mkdir()
        (self.path / "status").write_text(f"{'':{STATUS_BYTES}}\n")

    def clear(self) -> None:
        """Remove the pod's copy of the image and what it kept on disk."""
        for name in ("root", "home", "tmp"):
            remove_tree(self.path / name)

    def write_status(self, code: int) -> None:
        """Note an end that the leader could not; a signal n is 128 + n, as in the shell."""
        descriptor = os.open(self.path / "status", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, f"{code:<{STATUS_BYTES}}\n".encode())
        finally:
            os.close(descriptor)

    def read_exit(self) -> Exit | None:
        """None while the program runs, or when nobody could note how it ended."""
        status = self.path / "status"
        try:
            code, at = int(status.read_text()), status.stat().st_mtime
        except (FileNotFoundError, ValueError):
            return None
        moment = datetime.fromtimestamp(at, UTC)
        if 128 < code <= 128 + LONGEST_SIGNAL:
            with suppress(ValueError):
                return Exit(None, signal.Signals(code - 128).name, moment)
        return Exit(code, None, moment)

    def append(self, text: str) -> None:
        """A line of ours at the end of the output."""
        descriptor = os.open(self.out, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with open(descriptor, "r+b", buffering=0) as out:
            size = os.fstat(descriptor).st_size
            is_open = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            out.write(f"{chr(10) if is_open else ''}{text}\n".encode())

    def tail(self, lines: int) -> list[str]:
        """The last lines of the output, at most what 64 KiB hold."""
        try:
            with self.out.open("rb") as out:
                size = os.fstat(out.fileno()).st_size
                out.seek(max(0, size - LOOK_BACK))
                text = out.read(LOOK_BACK)
        except FileNotFoundError:
            return []
        if size > LOOK_BACK:
            text = text.partition(b"\n")[2]
        found = text.decode("utf-8", "replace").removesuffix("\n").split("\n") if text else []
        return [line.removesuffix("\r") for line in found[-lines:]] if lines > 0 else []
