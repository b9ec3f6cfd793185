"""Access lines: one JSON object a line, appended in batches to a file that a log reader follows.

A request never waits for this file: what a full disk does not take is dropped, and counted in a line
once there is space.
"""

import asyncio
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

FLUSH_AFTER = 0.05  # seconds
MISSING = "{} requests are missing here: there was no space to note them"
MAX_WAITING = 4 * 1024 * 1024  # bytes not written yet; lines above it are dropped

_PAIR = re.compile(r"(?<=[?&;#])([^=&;#]+)=([^&;#]+)")
_SECRET_WORDS = frozenset({
    "access", "auth", "code", "credential", "credentials", "jwt", "key", "pass", "pwd", "session",
    "sessionid", "jsessionid", "sid", "sig", "state", "ticket",
})  # fmt: skip
_SECRET_ENDS = ("token", "secret", "password", "passwd", "passphrase", "signature", "apikey", "accesskey")


def mask(target: str, depth: int = 3) -> str:
    """The request target with the values of parameters that look secret replaced by `***`.

    Also of parameters inside a value, as in `next=/login%3Ftoken%3Dabc`.
    """
    if "=" not in target:
        return target
    path, mark, query = target.partition("?")
    return "".join(_PAIR.sub(lambda pair: _mask_pair(pair, depth), part) for part in (path, mark + query))


def _mask_pair(pair: re.Match[str], depth: int) -> str:
    name, value = pair.groups()
    words = re.split(r"[^a-z0-9]+", unquote(name).lower())
    if any(word in _SECRET_WORDS or word.endswith(_SECRET_ENDS) for word in words):
        return f"{name}=***"
    plain = unquote(value)
    inner = mask(f"?{plain}", depth - 1)[1:] if depth else "***"
    if inner == plain or "=" not in plain:
        return pair[0]
    return f"{name}={inner if plain == value else '***'}"


def _record(app: str, text: str) -> str:
    at = datetime.now(UTC).isoformat(timespec="microseconds")
    return f'{{"app": "{app}", "at": "{at}", "text": {json.dumps(text)}}}\n'


class AccessLog:
    """Lines reach the file within 50 ms, in order, from a thread of their own."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="access")
        self._writing: Future[None] | None = None
        self._lines: list[str] = []
        self._size = 0
        self._refused: Counter[str] = Counter()  # lines that were too many, by app
        self._timer: asyncio.TimerHandle | None = None
        self._is_torn = False  # this and the next are the thread's
        self._missing: Counter[str] = Counter()  # lines that are not in the file, by app

    def add(self, app: str, text: str) -> None:
        if self._size > MAX_WAITING:
            self._refused[app] += 1
            return
        self._lines.append(_record(app, text))
        self._size += len(text)
        if self._timer is None:
            self._set_timer()

    def close(self) -> None:
        """Write what waits; blocks."""
        self._submit()
        self._thread.shutdown()
        os.close(self._file)

    def _set_timer(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(FLUSH_AFTER, self._flush)

    def _flush(self) -> None:
        self._timer = None
        if self._writing is not None and not self._writing.done():
            self._set_timer()
        else:
            self._submit()

    def _submit(self) -> None:
        lines, refused = self._lines, self._refused
        self._lines, self._size, self._refused = [], 0, Counter()
        self._writing = self._thread.submit(self._write, lines, refused)

    def _write(self, lines: Sequence[str], refused: Counter[str]) -> None:
        self._missing.update(refused)
        told = [_record(app, MISSING.format(count)) for app, count in self._missing.items()]
        whole = self._append([*told, *lines])
        if whole >= len(told):
            self._missing.clear()
        self._missing.update(json.loads(line)["app"] for line in lines[max(0, whole - len(told)) :])

    def _append(self, lines: Sequence[str]) -> int:
        """How many of the lines are in the file; what is torn is followed by a line of its own."""
        data = ("\n" * self._is_torn + "".join(lines)).encode()
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError:
            whole = data[: len(data) - len(view)].count(b"\n") - self._is_torn
            self._is_torn = True
            return max(0, whole)
        self._is_torn = False
        return len(lines)
