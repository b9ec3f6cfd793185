"""The edge's access lines: one file of JSON records, each of which names its app."""

import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime

from drycc.backends.logstore.base import Line, LogStore, Reached
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
        reached = await logs.reached(app, pod)
        lines = [line for line, end in found if end > reached]
        if lines:
            await logs.append(app, lines, Reached(pod, found[-1][1]))


def _parse(text: str) -> tuple[str, Line] | None:
    """The app and the line of one record; None for what a killed writer left of one."""
    try:
        record = json.loads(text)
        app, at, said = record["app"], datetime.fromisoformat(record["at"]), record["text"]
    except (ValueError, KeyError, TypeError):
        log.warning("an access record of %d characters is malformed", len(text))
        return None
    return app, Line(at.astimezone(UTC), "access", said)
