"""One file of output: read in turns of bounded size, split into lines, its disk space given back behind."""

import ctypes
import errno
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final

from drycc.backends.logstore.base import CUT, LINE_BYTES

TURN_BYTES: Final = 256 * 1024
TURN_LINES: Final = 1000
BEHIND_BYTES: Final = 64 * 1024 * 1024  # what is further behind the end of its file is skipped
KEPT_BYTES: Final = 64 * 1024  # not given back, for who looks at the file's last lines
PUNCH_BYTES: Final = 1024 * 1024  # given back at a time
KEEP_SIZE_AND_PUNCH: Final = 0x01 | 0x02

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


@dataclass(frozen=True, slots=True)
class Piece:
    """A line, or a part of one that is too long; `end` is the offset behind it."""

    text: str
    end: int


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn found."""

    pieces: list[Piece]
    skipped: int  # bytes before them that were left out
    end: int
    has_more: bool  # another turn finds something at once


class Output:
    """A file of output that grows; `offset` is how far its lines are kept. Every method blocks."""

    def __init__(self, path: Path, offset: int, line_bytes: int = LINE_BYTES) -> None:
        self.seen = 0  # its size at the last turn
        self._path = path
        self._line_bytes = line_bytes
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._lock = Lock()  # a turn that nobody waits for any more ends before the file is closed
        self._punched = 0
        self.offset = max(offset, self._first_data())

    def close(self) -> None:
        with self._lock:
            os.close(self._descriptor)

    def grew(self) -> bool:
        """Whether it is larger than at the last turn."""
        try:
            return self._path.stat().st_size != self.seen
        except FileNotFoundError:
            return False

    def read(self, is_over: bool) -> Turn:
        """The next lines; with `is_over` also what stands without a newline at the end."""
        with self._lock:
            self._punch()
            return self._read(is_over)

    def _read(self, is_over: bool) -> Turn:
        self.seen = os.fstat(self._descriptor).st_size
        start = self._start()
        data = os.pread(self._descriptor, TURN_BYTES, start)
        is_end = start + len(data) >= self.seen
        pieces = split(data, start, is_over and is_end, self._line_bytes)
        end = pieces[-1].end if pieces else start
        has_more = not is_end or len(pieces) == TURN_LINES
        return Turn(pieces, start - self.offset, end, has_more)

    def _punch(self) -> None:
        """Give the space behind `offset` back where the file system can; offsets stay what they are."""
        size = self.offset - KEPT_BYTES - self._punched
        if size < PUNCH_BYTES:
            return
        done = _libc.fallocate(self._descriptor, KEEP_SIZE_AND_PUNCH, self._punched, size)
        if done != 0 and ctypes.get_errno() not in (errno.EOPNOTSUPP, errno.EINTR):
            raise OSError(ctypes.get_errno(), "cannot punch a hole", str(self._path))
        self._punched += size

    def _start(self) -> int:
        """Where to read on: behind what outran us."""
        if self.seen - self.offset <= BEHIND_BYTES:
            return self.offset
        start = self.seen - BEHIND_BYTES // 2
        return start + os.pread(self._descriptor, LINE_BYTES, start).find(b"\n") + 1

    def _first_data(self) -> int:
        """Where the bytes begin that nobody has given back."""
        with suppress(OSError):  # ENXIO: there are none
            return os.lseek(self._descriptor, 0, os.SEEK_DATA)
        return 0


def split(data: bytes, start: int, is_end: bool, line_bytes: int = LINE_BYTES) -> list[Piece]:
    """The whole lines at the beginning of `data`, which stands at offset `start`, at most `TURN_LINES`."""
    pieces: list[Piece] = []
    position = 0
    while position < len(data) and len(pieces) < TURN_LINES:
        newline = data.find(b"\n", position, position + line_bytes + 1)
        if newline >= 0:
            text, position = _text(data[position:newline].removesuffix(b"\r")), newline + 1
        elif len(data) - position > line_bytes:
            cut = _cut(data, position + line_bytes - len(CUT))
            text, position = _text(data[position:cut]) + CUT, cut
        elif is_end:
            text, position = _text(data[position:].removesuffix(b"\r")), len(data)
        else:
            break
        pieces.append(Piece(text, start + position))
    return pieces


def _cut(data: bytes, position: int) -> int:
    """The nearest place before `position` that is within no UTF-8 character."""
    for back in range(4):
        if data[position - back] & 0xC0 != 0x80:
            return position - back
    return position


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
