"""Bytes that a one-off prints, made into lines to be kept: whole, of bounded length, without secrets."""

from collections.abc import Iterable, Iterator

from drycc.backends.logstore.base import CUT, LINE_BYTES
from drycc.core.build_log import Printed
from drycc.core.secrets import mask

BESIDE = 1024  # bytes behind the end of a line that is cut, so that a URL's password there is seen whole


class Lines:
    """Cuts output that begins at `offset` into lines; holds at most the beginning of one."""

    def __init__(self, offset: int, secrets: Iterable[str] = ()) -> None:
        # A value of several lines is printed a line at a time, and one may be the beginning of another.
        parts = {line for value in secrets for line in value.splitlines()}
        self._secrets = sorted(parts, key=len, reverse=True)
        longest = max((len(part.encode()) for part in parts), default=0)
        self._beside = max(BESIDE, longest)
        self._held = b""  # of the line that has no end yet
        self._size = 0  # of all of that line
        self._end = offset

    def feed(self, data: bytes) -> Iterator[Printed]:
        """The lines that end in these bytes."""
        *whole, rest = data.split(b"\n")
        for part in whole:
            self._hold(part)
            self._end += 1
            yield self._close()
        self._hold(rest)

    def flush(self) -> Iterator[Printed]:
        """What stands without a newline at the end."""
        if self._size:
            yield self._close()

    def _hold(self, part: bytes) -> None:
        self._held += part[: LINE_BYTES + self._beside - len(self._held)]
        self._size += len(part)
        self._end += len(part)

    def _close(self) -> Printed:
        """PostgreSQL keeps no NUL in a text."""
        text = self._held.removesuffix(b"\r").decode("utf-8", "replace").replace("\0", "\ufffd")
        text = mask(text, self._secrets)
        if self._size > LINE_BYTES:
            # Behind a cut may stand the first half of a secret; what is beside goes, however it was masked.
            shown = text[: -self._beside] if self._size > len(self._held) else text
            text = f"{shown[:LINE_BYTES]}{CUT} (a line of {self._size:,} bytes)"
        self._held, self._size = b"", 0
        return Printed(text, self._end)


def show_lines(texts: Iterable[str], secrets: Iterable[str]) -> list[str]:
    """Whole lines of a pod, made fit for a build's log."""
    lines = Lines(0, secrets)
    return [line.text for text in texts for line in lines.feed(f"{text}\n".encode())]
