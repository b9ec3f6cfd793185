"""Builds as records, and their logs."""

from drycc.api.schemas.base import Answer


class BuildRecord(Answer):
    id: int
    uuid: str
    app: str
    owner: str
    state: str
    reason: str
    sha: str
    stack: str
    image: str
    release: int | None
    app_ahead: int
    node_ahead: int
    started: str | None
    ended: str | None
    duration: float | None
    created: str
    updated: str


class LogLine(Answer):
    seq: int
    at: str
    text: str


class LogPage(Answer):
    results: list[LogLine]
    cursor: str
    is_over: bool
