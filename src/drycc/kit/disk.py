"""A disk that refuses, told from a fault of ours and said in a sentence."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from drycc.errors import NoSpace, Unavailable

NO_SPACE = "no space is left on the platform's disk; the same works again when there is some"
LEAST_BYTES = 256 * 1024  # with less, nothing worth while can be written
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_SENTENCES = {
    errno.EROFS: "the platform's disk has become read-only",
    errno.EIO: "the platform's disk does not answer",
}


def find_trouble(error: BaseException) -> Unavailable | None:
    """What to tell of an error for which the disk is to blame; None for every other."""
    if not isinstance(error, OSError):
        return None
    if error.errno in _FULL:
        return NoSpace(NO_SPACE)
    sentence = _SENTENCES.get(error.errno or 0)
    return Unavailable(sentence) if sentence else None


@contextmanager
def guarded() -> Iterator[None]:
    """Raise `NoSpace` or `Unavailable` for what the disk refuses in the body; other errors pass."""
    try:
        yield
    except OSError as error:
        if trouble := find_trouble(error):
            raise trouble from error
        raise


def has_space(path: Path, size: int = 0) -> bool:
    """Whether the file system that the path is on takes so many bytes, and a little more."""
    with suppress(OSError):
        return shutil.disk_usage(path).free >= size + LEAST_BYTES
    return True
