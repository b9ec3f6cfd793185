"""Builds, configs and releases."""

from typing import Any

from pydantic import StrictBool, StrictInt

from drycc.api.schemas.base import Answer, Body


class Build(Answer):
    owner: str
    app: str
    image: str
    stack: str
    sha: str
    procfile: dict[str, str]
    dryccfile: dict[str, Any]
    dockerfile: str
    created: str
    updated: str
    uuid: str


class NoBuild(Answer):
    """The build of a release that has none."""

    app: None
    image: str
    stack: str
    sha: str
    procfile: None
    dryccfile: None
    dockerfile: str


class ConfigBody(Body):
    values: Any = None
    values_refs: Any = None
    limits: Any = None
    tags: Any = None
    registry: Any = None
    healthcheck: Any = None
    termination_grace_period: Any = None
    lifecycle: Any = None
    lifecycle_post_start: Any = None
    lifecycle_pre_stop: Any = None


class Config(Answer):
    uuid: str
    owner: str
    app: str
    values: list[dict[str, str]]
    values_refs: dict[str, list[str]]
    limits: dict[str, str]
    tags: dict[str, Any]
    registry: dict[str, Any]
    healthcheck: dict[str, Any]
    termination_grace_period: dict[str, Any]
    lifecycle: dict[str, Any]
    lifecycle_post_start: dict[str, Any]
    lifecycle_pre_stop: dict[str, Any]
    created: str
    updated: str


class Release(Answer):
    uuid: str
    owner: str
    app: str
    state: str
    version: int
    summary: str
    failed: bool
    exception: str | None
    conditions: list[dict[str, Any]]
    deployed_ptypes: list[str]
    config: str
    build: str | None
    created: str
    updated: str


class DeployBody(Body):
    ptypes: str | None = None
    force: StrictBool = False


class RollbackBody(Body):
    version: StrictInt | str | None = None
    ptypes: str | None = None


class NewVersion(Answer):
    version: int
