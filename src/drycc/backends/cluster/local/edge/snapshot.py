"""What the edge knows: which host leads to which app, and which pods serve it; kept as one JSON file."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from drycc.errors import Invalid
from drycc.kit.files import write_json


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A pod that serves, on 127.0.0.1."""

    pod: str
    port: int


@dataclass(frozen=True, slots=True)
class AppRoutes:
    """`replicas` is what was asked for and `pods` what serves now: 3 and none means "starting"."""

    ptype: str
    is_routable: bool
    replicas: int
    pods: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Hosts are lower case, without port and final dot."""

    generation: int
    hosts: dict[str, str]
    apps: dict[str, AppRoutes]


EMPTY = Snapshot(0, {}, {})


def dump(snapshot: Snapshot, path: Path) -> None:
    """Replace the file; it is durable when this returns and never half written."""
    write_json(path, asdict(snapshot))


def load(path: Path) -> Snapshot:
    """The snapshot that was written last, an empty one before the first; raises `Invalid`."""
    try:
        data = json.loads(path.read_bytes())
        apps = {name: _parse_app(app) for name, app in data["apps"].items()}
        return Snapshot(data["generation"], data["hosts"], apps)
    except FileNotFoundError:
        return EMPTY
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Invalid(f"{path} is no routing snapshot") from error


def _parse_app(data: Any) -> AppRoutes:
    pods = tuple(Endpoint(pod["pod"], pod["port"]) for pod in data["pods"])
    return AppRoutes(data["ptype"], data["is_routable"], data["replicas"], pods)
