"""Lines as the client prints them, and as JSON."""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC
from typing import Any, Final

from drycc.backends.logstore.base import Line, Page

CHUNK_CHARACTERS: Final = 64 * 1024

_LEVEL = re.compile(r"(INFO|WARN|DEBUG|ERROR)\b")


def show_line(app: str, line: Line) -> str:
    """Time, origin and text, with a newline. The origin is `app[type.version.pod suffix]` for what an
    app prints, `app[edge]` for requests, `drycc[controller]` for the platform's own words."""
    at = line.at.astimezone(UTC).isoformat(timespec="seconds")
    if line.source == "platform":
        level = "" if _LEVEL.match(line.text) else "INFO "
        return f"{at} drycc[controller]: {level}{line.text}\n"
    origin = "edge" if line.source == "access" else _origin(line)
    return f"{at} {app}[{origin}]: {line.text}\n"


def show_page(page: Page) -> dict[str, Any]:
    """The page as an object: its lines, and the cursor that stands after them."""
    return {"results": [_show_fields(line) for line in page.lines], "cursor": page.cursor}


def join_chunks(texts: Iterable[str]) -> Iterator[str]:
    """Join whole lines into messages of bounded size."""
    chunk: list[str] = []
    size = 0
    for text in texts:
        chunk.append(text)
        size += len(text)
        if size >= CHUNK_CHARACTERS:
            yield "".join(chunk)
            chunk, size = [], 0
    if chunk:
        yield "".join(chunk)


def _show_fields(line: Line) -> dict[str, str]:
    at = line.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    stream = "stdout" if line.source == "app" else ""  # a pod's two streams go into one file
    return {
        "at": at,
        "source": line.source,
        "ptype": line.ptype,
        "pod": line.pod,
        "stream": stream,
        "text": line.text,
    }


def _origin(line: Line) -> str:
    suffix = _suffix(line.pod)
    return f"{line.ptype}.v{line.release}.{suffix}" if suffix else f"{line.ptype}.v{line.release}"


def _suffix(pod: str) -> str:
    """The last part of a pod's name, if it has four parts or more."""
    parts = pod.split("-")
    return parts[-1] if len(parts) >= 4 and all(re.match(r"\w", part) for part in parts) else ""
