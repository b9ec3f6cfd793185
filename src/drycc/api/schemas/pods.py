"""Pods and process types."""

from pydantic import RootModel

from drycc.api.schemas.base import Answer, Body


class Pod(Answer):
    name: str
    state: str
    release: str
    type: str
    started: str
    ready: str
    restarts: int


class ProcessType(Answer):
    name: str
    release: str
    ready: str
    garbage: bool
    up_to_date: int
    available_replicas: int
    started: str


class ScaleBody(RootModel[dict[str, object]]):
    """Process type → pods."""


class RestartBody(Body):
    ptypes: str | None = None
