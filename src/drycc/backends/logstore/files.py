"""Files of blocks, written so that they survive the machine's death. Everything here blocks."""

import os
from collections.abc import Iterable
from pathlib import Path

from drycc.backends.logstore.blocks import Block, encode
from drycc.kit import crash
from drycc.kit.files import sync_directory


def write_whole(path: Path, blocks: Iterable[Block]) -> int:
    """A durable file of these blocks, or the one that was there before; gives its size."""
    data = b"".join(encode(block) for block in blocks)
    part = path.with_name("part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
    sync_directory(path.parent)
    return len(data)


def append_data(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        crash.point("lines.appending")
        file.write(data)
        file.flush()
        os.fdatasync(file.fileno())
    crash.point("lines.appended")
