"""Apps, their settings and domains."""

from typing import Any

from drycc.api.schemas.base import Answer, Body, Text


class AppBody(Body):
    id: Text | None = None
    workspace: Text | None = None


class App(Answer):
    uuid: str
    id: str
    uid: int
    owner: str
    workspace: str
    structure: dict[str, int]
    created: str
    updated: str


class AppSettings(Answer):
    uuid: str
    owner: str
    app: str
    routable: bool
    autodeploy: bool
    autorollback: bool
    autoscale: dict[str, Any]
    label: dict[str, Any]
    created: str
    updated: str


class Domain(Answer):
    owner: str
    created: str
    updated: str
    app: str
    domain: str
    ptype: str
