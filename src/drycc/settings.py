"""Every setting of `dryccd`, in one table: environment over an optional TOML file over defaults."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from drycc.errors import Invalid


def _setting(default: Any, unit: str, meaning: str, *, secret: bool = False) -> Any:
    return field(default=default, metadata={"unit": unit, "meaning": meaning, "secret": secret})


@dataclass(frozen=True, slots=True)
class Settings:
    """One attribute a setting; the environment's name is `DRYCC_` and the name in capitals."""

    data: str = _setting("", "path", "data directory; /var/lib/drycc as root, else $XDG_DATA_HOME/drycc")
    run: str = _setting("", "path", "short directory for unix sockets; default <data>/run")
    roles: str = _setting("", "names", "roles of this process, comma separated; empty = all")
    http_listen: str = _setting("127.0.0.1:8000", "host:port", "address of the API")
    ssh_listen: str = _setting("127.0.0.1:2222", "host:port", "address of the builder (git over SSH)")
    edge_listen: str = _setting("127.0.0.1:8080", "host:port", "address of the edge (the apps)")
    domain: str = _setting("localhost", "name", "an app answers at <app>.<domain>")
    database_url: str = _setting("", "URL", "sqlite+aiosqlite:///… or postgresql+asyncpg://…", secret=True)
    cluster_url: str = _setting("local:", "URL", "where pods run")
    nudges_url: str = _setting("memory:", "URL", "how processes wake each other")
    objects_url: str = _setting("", "URL", "where pushed sources are kept; default files under <data>")
    logs_url: str = _setting("local:", "URL", "where app logs are kept")
    keyring: str = _setting("", "path", "keys that encrypt secrets at rest; default <data>-keyring")
    admin_password: str = _setting(
        "", "text", "the first superuser's password; empty = generated", secret=True
    )
    deploy_timeout: float = _setting(120.0, "seconds", "how long a roll-out may take to become ready")
    release_timeout: float = _setting(3600.0, "seconds", "how long a release step may run")
    build_timeout: float = _setting(1800.0, "seconds", "how long a build may run")
    builds: int = _setting(2, "count", "builds that run at once on this node")
    build_env: str = _setting(
        "PIP_*,npm_config_*,GOPROXY,HTTP_PROXY,HTTPS_PROXY,NO_PROXY,http_proxy,https_proxy,no_proxy,"
        "SSL_CERT_FILE,SSL_CERT_DIR,REQUESTS_CA_BUNDLE",
        "patterns",
        "names of our environment that a build sees",
    )
    python: str = _setting("", "path", "interpreter for Python apps; default: our own base interpreter")
    grace: float = _setting(30.0, "seconds", "from SIGTERM to SIGKILL when a pod is stopped")
    backoff: float = _setting(1.0, "seconds", "first delay before a crashed pod starts again; doubles")
    backoff_cap: float = _setting(300.0, "seconds", "longest delay before a crashed pod starts again")
    lease: float = _setting(30.0, "seconds", "how long a job is kept by a worker that gives no sign")
    push_limit: int = _setting(512 * 1024 * 1024, "bytes", "largest pack that a push may send")
    tree_limit: int = _setting(1024 * 1024 * 1024, "bytes", "largest sum of file sizes of a pushed commit")
    log_bytes: int = _setting(64 * 1024 * 1024, "bytes", "log segments kept for one app")
    log_total: int = _setting(4 * 1024**3, "bytes", "log segments kept for all apps")
    log_age: float = _setting(30 * 86400.0, "seconds", "how long log lines are kept")
    backup_every: float = _setting(0.0, "seconds", "time between backups into the object store; 0 = none")
    backup_keep: int = _setting(7, "count", "backups in the object store that are kept; 0 = all")
    log_format: str = _setting("text", "text|json", "form of the platform's own log")
    idle_timeout: float = _setting(3600.0, "seconds", "the edge closes a connection silent for so long")
    reserved_names: str = _setting("", "names", "app names that nobody may take, comma separated")


def load(environ: Mapping[str, str], config: Path | None = None) -> Settings:
    """Read the settings; raises `Invalid` for an unknown name in the file or a value of a wrong type."""
    file = tomllib.loads(config.read_text()) if config else {}
    known = {item.name: item for item in fields(Settings)}
    for name in file:
        if name not in known:
            raise Invalid(f"{config}: there is no setting {name!r}; `dryccd settings` lists them")
    values = {
        name: _parse(item, environ.get(f"DRYCC_{name.upper()}", file.get(name)))
        for name, item in known.items()
        if f"DRYCC_{name.upper()}" in environ or name in file
    }
    return _complete(Settings(**values), environ)


def rows(settings: Settings) -> list[tuple[str, str, str, str, str, str]]:
    """Name, type, unit, default, meaning and present value of each setting; secrets only as set or unset."""
    table = []
    for item in fields(Settings):
        default = "" if item.default is MISSING else item.default
        value = getattr(settings, item.name)
        if item.metadata["secret"]:
            value = "set" if value else "unset"
        kind = item.type if isinstance(item.type, str) else item.type.__name__
        name = f"DRYCC_{item.name.upper()}"
        table.append((name, kind, item.metadata["unit"], str(default), item.metadata["meaning"], str(value)))
    return table


def _parse(item: Field[Any], value: Any) -> Any:
    kind: type[Any] = type(item.default)
    try:
        return kind(value)
    except (TypeError, ValueError):
        raise Invalid(f"DRYCC_{item.name.upper()}: {value!r} is no {kind.__name__}") from None


def _complete(settings: Settings, environ: Mapping[str, str]) -> Settings:
    """Fill in the defaults that depend on the user and on the data directory."""
    data = Path(settings.data) if settings.data else _default_data(environ)
    data = data.absolute()
    filled = {
        "data": str(data),
        "run": settings.run or str(data / "run"),
        "database_url": settings.database_url or f"sqlite+aiosqlite:///{data}/drycc.db",
        "objects_url": settings.objects_url or f"file://{data}/objects",
        "keyring": settings.keyring or f"{data}-keyring",
    }
    values = {item.name: getattr(settings, item.name) for item in fields(Settings)}
    return Settings(**values | filled)


def _default_data(environ: Mapping[str, str]) -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/drycc")
    share = environ.get("XDG_DATA_HOME") or f"{environ.get('HOME', '.')}/.local/share"
    return Path(share) / "drycc"
