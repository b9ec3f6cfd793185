"""The first message of a log websocket: what the client asks for."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from drycc.errors import Invalid

MOST_LINES: Final = 3000
MOST_SECONDS: Final = 300
MESSAGE_CHARACTERS: Final = 4096
ALL_LINES: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class AppAsk:
    lines: int
    follow: bool
    timeout: int  # seconds to follow at most
    cursor: str | None = None  # where to go on; its messages are JSON and bring the next cursor


@dataclass(frozen=True, slots=True)
class PodAsk:
    lines: int
    follow: bool
    container: str
    previous: bool


def read_app_ask(message: str | bytes) -> AppAsk:
    """What is missing has its default; what is no number, negative or too large is the most.

    The released client knows no `cursor`; with an empty one the last lines come first.
    """
    ask = _load(message)
    lines = _number(ask.get("lines", 100))
    timeout = _number(ask.get("timeout", MOST_SECONDS))
    return AppAsk(
        lines=lines if lines is not None and 0 <= lines <= MOST_LINES else MOST_LINES,
        follow=_flag(ask.get("follow")),
        timeout=timeout if timeout is not None and 0 < timeout <= MOST_SECONDS else MOST_SECONDS,
        cursor=str(ask["cursor"] or "") if "cursor" in ask else None,
    )


def read_pod_ask(message: str | bytes) -> PodAsk:
    """Lines that are 0 or less, or no number, are all."""
    ask = _load(message)
    lines = _number(ask.get("lines", 300))
    return PodAsk(
        lines=lines if lines is not None and 0 < lines <= ALL_LINES else ALL_LINES,
        follow=_flag(ask.get("follow")),
        container=str(ask.get("container") or ""),
        previous=_flag(ask.get("previous")),
    )


def _load(message: str | bytes) -> Mapping[str, Any]:
    try:
        ask = json.loads(message) if len(message) <= MESSAGE_CHARACTERS else None
    except (ValueError, RecursionError):
        ask = None
    if not isinstance(ask, dict):
        raise Invalid("the first message is a JSON object such as {}")
    return ask


def _number(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _flag(value: Any) -> bool:
    return str(value).lower() in ("1", "t", "true")
