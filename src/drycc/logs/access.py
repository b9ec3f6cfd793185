"""The edge's access lines: one file of JSON records, each of which names its app."""

import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime

from drycc.backends.logstore.base import Line, LogStore, Reached
from drycc.errors import Invalid
from drycc.logs.output import Piece

log = logging.getLogger("drycc.logs")


async def append_access(logs: LogStore, pod: str, pieces: Sequence[Piece]) -> None:
    """Keep each record with its app, unless an earlier process of ours did so before it died."""
    records: defaultdict[str, list[tuple[Line, int]]] = defaultdict(list)
    for piece in pieces:
        if record := _parse(piece.text):
            app, line = record
            records[app].append((line, piece.end))
    for app, found in records.items():
        try:
            await _append(logs, app, pod, found)
        except Invalid as error:
            log.warning("an access record is left out: %s", error)


async def _append(logs: LogStore, app: str, pod: str, records: Sequence[tuple[Line, int]]) -> None:
    reached = await logs.reached(app, pod)
    lines = [line for line, end in records if end > reached]
    if lines:
        await logs.append(app, lines, Reached(pod, records[-1][1]))


def _parse(text: str) -> tuple[str, Line] | None:
    """The app and the line of one record; None for what a killed writer left of one."""
    try:
        record = json.loads(text)
        app, at, said = record["app"], datetime.fromisoformat(record["at"]), record["text"]
        line = Line(at.astimezone(UTC), "access", str(said))
    except (ValueError, KeyError, TypeError):
        log.warning("an access record of %d characters is malformed", len(text))
        return None
    return (str(app), line) if app else None
