"""Every setting of `dryccd`, in one table: environment over an optional TOML file over defaults."""

import hashlib
import os
import re
import shutil
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from drycc.errors import Invalid

LONGEST_RUN = 107 - len("/edge.sock")  # bytes: the kernel's limit of a socket's path, less the longest name


class Bound(NamedTuple):
    """Which values make sense, and the words for them: "… is not <wanted>"."""

    holds: Callable[[Any], object]
    wanted: str


LONGEST = 1e9  # seconds; some 30 years, which every clock and timer can add
LARGEST = 2**53
_name = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"


def _is_address(value: str) -> bool:
    found = re.fullmatch(r"\S*:(\d{1,5})", value)
    return found is not None and int(found[1]) < 2**16


ANY = Bound(lambda value: True, "")
SECONDS = Bound(lambda value: 0 < value <= LONGEST, f"a number above 0 and up to {LONGEST:g}")
PAUSE = Bound(lambda value: 0 <= value <= LONGEST, f"a number from 0 to {LONGEST:g}")
SOME = Bound(lambda value: 0 <= value <= LARGEST, "a number from 0 up")
COUNT = Bound(lambda value: 1 <= value <= LARGEST, "a number from 1 up")
ADDRESS = Bound(_is_address, "a host:port")
DOMAIN = Bound(
    lambda value: len(value) < 190 and re.fullmatch(rf"{_name}(\.{_name})*", value),
    "a domain name in lower case",
)
FORMAT = Bound(lambda value: value in ("text", "json"), "text or json")
PROGRAM = Bound(lambda value: not value or shutil.which(value), "a program that we may run")
DATABASE = Bound(
    lambda value: not value or value.startswith(("sqlite+aiosqlite:////", "postgresql+asyncpg://")),
    "sqlite+aiosqlite:////absolute/path or postgresql+asyncpg://…",
)
OBJECTS = Bound(
    lambda value: not value.startswith("file:") or value.startswith("file:///"), "file:///absolute/path"
)


def _setting(default: Any, unit: str, meaning: str, bound: Bound = ANY, *, secret: bool = False) -> Any:
    return field(
        default=default, metadata={"unit": unit, "meaning": meaning, "bound": bound, "secret": secret}
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """One attribute a setting; the environment's name is `DRYCC_` and the name in capitals."""

    data: str = _setting("", "path", "data directory; /var/lib/drycc as root, else $XDG_DATA_HOME/drycc")
    run: str = _setting("", "path", "directory for sockets; default <data>/run, or a short one below /tmp")
    roles: str = _setting("", "names", "roles of this process, comma separated; empty = all")
    http_listen: str = _setting("127.0.0.1:8000", "host:port", "address of the API", ADDRESS)
    ssh_listen: str = _setting(
        "127.0.0.1:2222", "host:port", "address of the builder (git over SSH)", ADDRESS
    )
    edge_listen: str = _setting("127.0.0.1:8080", "host:port", "address of the edge (the apps)", ADDRESS)
    domain: str = _setting("localhost", "name", "an app answers at <app>.<domain>", DOMAIN)
    database_url: str = _setting(
        "", "URL", "sqlite+aiosqlite:///… or postgresql+asyncpg://…", DATABASE, secret=True
    )
    cluster_url: str = _setting("local:", "URL", "where pods run")
    nudges_url: str = _setting("memory:", "URL", "how processes wake each other")
    objects_url: str = _setting(
        "", "URL", "where pushed sources are kept; default files under <data>", OBJECTS
    )
    logs_url: str = _setting("local:", "URL", "where app logs are kept")
    keyring: str = _setting("", "path", "keys that encrypt secrets at rest; default <data>-keyring")
    admin_password: str = _setting(
        "", "text", "the first superuser's password; empty = generated", secret=True
    )
    deploy_timeout: float = _setting(
        120.0, "seconds", "how long a roll-out may take to become ready", SECONDS
    )
    release_timeout: float = _setting(3600.0, "seconds", "how long a release step may run", SECONDS)
    build_timeout: float = _setting(1800.0, "seconds", "how long a build may run", SECONDS)
    builds: int = _setting(2, "count", "builds that run at once on this node", COUNT)
    build_env: str = _setting(
        "PIP_*,npm_config_*,GOPROXY,HTTP_PROXY,HTTPS_PROXY,NO_PROXY,http_proxy,https_proxy,no_proxy,"
        "SSL_CERT_FILE,SSL_CERT_DIR,REQUESTS_CA_BUNDLE",
        "patterns",
        "names of our environment that a build sees",
    )
    python: str = _setting(
        "", "path", "interpreter for Python apps; default: our own base interpreter", PROGRAM
    )
    grace: float = _setting(30.0, "seconds", "from SIGTERM to SIGKILL when a pod is stopped", PAUSE)
    backoff: float = _setting(
        1.0, "seconds", "first delay before a crashed pod starts again; doubles", SECONDS
    )
    backoff_cap: float = _setting(
        300.0, "seconds", "longest delay before a crashed pod starts again", SECONDS
    )
    lease: float = _setting(30.0, "seconds", "how long a job is kept by a worker that gives no sign", SECONDS)
    push_limit: int = _setting(512 * 1024 * 1024, "bytes", "largest pack that a push may send", COUNT)
    tree_limit: int = _setting(
        1024 * 1024 * 1024, "bytes", "largest sum of file sizes of a pushed commit", COUNT
    )
    log_bytes: int = _setting(64 * 1024 * 1024, "bytes", "log segments kept for one app", COUNT)
    log_total: int = _setting(4 * 1024**3, "bytes", "log segments kept for all apps", COUNT)
    log_age: float = _setting(30 * 86400.0, "seconds", "how long log lines are kept", SECONDS)
    backup_every: float = _setting(
        0.0, "seconds", "time between backups into the object store; 0 = none", PAUSE
    )
    backup_keep: int = _setting(7, "count", "backups in the object store that are kept; 0 = all", SOME)
    log_format: str = _setting("text", "text|json", "form of the platform's own log", FORMAT)
    idle_timeout: float = _setting(
        3600.0, "seconds", "the edge closes a connection silent for so long", SECONDS
    )
    reserved_names: str = _setting("", "names", "app names that nobody may take, comma separated")


# Variables that begin as ours do, and are set by us for our children or read by others.
OTHERS = (
    *("API_VERSION", "PLATFORM_VERSION", "APP", "WORKSPACE", "POD", "INSTANCE", "CLIENT", "PROFILE", "CRASH"),
    *("EDGE_ACCESS", "EDGE_CONTROL_FD", "EDGE_FD", "EDGE_SNAPSHOT", "EDGE_SOCKET", "ASK", "ANSWER"),
    *("SOURCE", "IMAGE_DIR", "VENVS_DIR", "RESULT"),
)


def load(environ: Mapping[str, str], config: Path | None = None) -> Settings:
    """Read the settings; raises `Invalid` for a file or a value that makes no sense."""
    known = {item.name: item for item in fields(Settings)}
    values = {}
    for name, value in (_read(config) if config else {}).items():
        if name not in known:
            raise Invalid(f"{config}: there is no setting {name!r}{_hint(name, str)}")
        values[name] = _check(known[name], value, f"{config}: {name}")
    for name, item in known.items():
        if (text := environ.get(_variable(name))) is not None:
            values[name] = _check(item, _parse(item, text), _variable(name))
    return _complete(Settings(**values), environ)


def find_strange(environ: Mapping[str, str]) -> list[str]:
    """A line of warning for each variable `DRYCC_…` that nobody reads."""
    ours = {_variable(name) for name in (*(item.name for item in fields(Settings)), *OTHERS)}
    strange = sorted(name for name in environ if name.startswith("DRYCC_") and name not in ours)
    return [f"there is no setting {name}{_hint(name.removeprefix('DRYCC_'), _variable)}" for name in strange]


def rows(settings: Settings) -> list[tuple[str, str, str, str, str, str]]:
    """Name, type, unit, default, meaning and present value of each setting; secrets only as set or unset."""
    table = []
    for item in fields(Settings):
        default = "" if item.default is MISSING else item.default
        value = getattr(settings, item.name)
        if item.metadata["secret"]:
            value = "set" if value else "unset"
        kind = item.type if isinstance(item.type, str) else item.type.__name__
        name = _variable(item.name)
        table.append((name, kind, item.metadata["unit"], str(default), item.metadata["meaning"], str(value)))
    return table


def _read(config: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(config.read_bytes().decode())
    except OSError as error:
        raise Invalid(f"{config} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise Invalid(f"{config} is no TOML: {error}") from error


def _variable(name: str) -> str:
    return f"DRYCC_{name.upper()}"


def _hint(name: str, show: Callable[[str], str]) -> str:
    near = get_close_matches(name.lower(), [item.name for item in fields(Settings)], 1)
    return f", the nearest is {show(near[0])}" if near else "; `dryccd settings` lists them"


def _parse(item: Field[Any], text: str) -> Any:
    """The number that the text means, if it means one."""
    kind: type[Any] = type(item.default)
    try:
        return kind(text)
    except ValueError:
        return text


def _check(item: Field[Any], value: Any, name: str) -> Any:
    """The value, of the setting's type and within its bound."""
    kind: type[Any] = type(item.default)
    if kind is float and type(value) is int and abs(value) < LARGEST:
        value = float(value)
    shown = "the value" if item.metadata["secret"] else repr(value)
    if type(value) is not kind:
        raise Invalid(f"{name}: {shown} is not {KINDS[kind]}")
    if kind is str and not _is_plain(value):
        raise Invalid(f"{name}: {shown} has a character in it that no setting may have")
    if not item.metadata["bound"].holds(value):
        raise Invalid(f"{name}: {shown} is not {item.metadata['bound'].wanted}")
    return value


KINDS = {str: "a text", int: "a whole number", float: "a number"}


def _is_plain(text: str) -> bool:
    """Neither control characters nor bytes that are no UTF-8."""
    return not re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", text)


def _complete(settings: Settings, environ: Mapping[str, str]) -> Settings:
    """Fill in the defaults that depend on the user and on the data directory."""
    data = Path(settings.data) if settings.data else _default_data(environ)
    data = data.absolute()
    filled = {
        "data": str(data),
        "run": str(Path(settings.run or _default_run(data)).absolute()),
        "database_url": settings.database_url or f"sqlite+aiosqlite:///{quote(f'{data}/drycc.db')}",
        "objects_url": settings.objects_url or f"file://{quote(f'{data}/objects')}",
        "keyring": str(Path(settings.keyring or f"{data}-keyring").absolute()),
    }
    values = {item.name: getattr(settings, item.name) for item in fields(Settings)}
    return Settings(**values | filled)


def _default_run(data: Path) -> str:
    """Below /tmp when the data directory's name is too long: the same for every process of the platform."""
    run = data / "run"
    mark = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
    return str(run) if len(os.fsencode(run)) <= LONGEST_RUN else f"/tmp/drycc-{mark}"  # noqa: S108


def _default_data(environ: Mapping[str, str]) -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/drycc")
    share = environ.get("XDG_DATA_HOME") or f"{environ.get('HOME', '.')}/.local/share"
    return Path(share) / "drycc"
