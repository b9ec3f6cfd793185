"""Text of others, and our errors, made fit for somebody's terminal."""

import logging
import re
from uuid import uuid4

from drycc.errors import DryccError
from drycc.kit.disk import find_trouble

log = logging.getLogger("drycc.build")

LONGEST_LINE = 1000  # bytes; git sends a line as one packet

_escape = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?")
_control = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


def make_lines(text: str) -> list[str]:
    """The line without what would drive a terminal, cut into pieces of at most `LONGEST_LINE` bytes."""
    shown = _control.sub("", _escape.sub("", text)).encode(errors="replace").decode()
    if len(shown.encode()) <= LONGEST_LINE:
        return [shown]
    step = LONGEST_LINE // 4  # characters, of at most four bytes each
    return [shown[start : start + step] for start in range(0, len(shown), step)]


def describe(error: Exception) -> str:
    """An expected error's own sentence; for a bug, which goes to our log, the number to find it there by."""
    if isinstance(error, DryccError):
        return str(error)
    if trouble := find_trouble(error):
        return str(trouble)
    incident = uuid4().hex[:12]
    log.error("incident %s", incident, exc_info=error)
    return f"internal error, incident {incident}"
