"""`dryccd demo`: a platform of its own, a user, a key, a real `git push`, and a URL that answers 200."""

import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from drycc.errors import DryccError, Invalid
from drycc.kit.files import delete_tree
from drycc.kit.ids import app_name
from drycc.settings import Settings

START = 30  # seconds until the platform must be ready
PUSH = 300  # seconds for a push, with its build and its roll-out
ANSWER = 30  # seconds for a request
STOP = 120  # seconds for the platform, its pods and its edge to end
READY = b"dryccd is ready"
OWN = ("run", "roles", "database_url", "objects_url", "keyring")  # where the demo takes the defaults


class DemoFailed(DryccError):
    """A step of the demo that did not work."""

    code = "demo_failed"


def run_demo(settings: Settings, source: Path, *, keep: bool) -> None:
    """Push the app in `source`; leaves nothing behind, or with `keep` the whole platform running.

    Runs in the main thread: a signal ends it between any two lines, and it cleans up all the same.
    """
    if not (source / "Procfile").is_file():
        raise Invalid(f"{source} has no Procfile: name the directory of an app with --app")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    began, is_kept = time.monotonic(), False
    home = Path(tempfile.mkdtemp(prefix="drycc-demo-"))
    password = secrets.token_urlsafe(12)
    environment = _make_environment(settings, home, password)
    try:
        _start(environment, home / "log")
        app = _deploy(settings, home, source, password)
        _look(settings, app)
        print(f"From nothing to 200 in {time.monotonic() - began:.1f} s.", flush=True)
        is_kept = keep
    finally:
        if not is_kept:
            _clean_up(environment, home)
    if keep:
        print(f"It goes on running; end it with: dryccd --data {home}/data stop")


def _make_environment(settings: Settings, home: Path, password: str) -> dict[str, str]:
    """The chosen settings, wherever they come from, with a place of its own for everything."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DRYCC_")}
    chosen = {item.name: str(getattr(settings, item.name)) for item in fields(settings)}
    chosen |= {"data": f"{home}/data", "admin_password": password}
    for name in OWN:
        del chosen[name]
    return ours | {f"DRYCC_{name.upper()}": value for name, value in chosen.items()}


def _start(environment: Mapping[str, str], log: Path) -> None:
    """Start the platform, and know by its own word that it is ready and not another on its address."""
    _tell("start the platform")
    with log.open("wb") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "drycc", "serve"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    end = time.monotonic() + START
    while time.monotonic() < end:
        with suppress(subprocess.TimeoutExpired):
            child.wait(0.05)
            raise DemoFailed(f"the platform did not start: {_last_line(log)}")
        if READY in log.read_bytes():
            return
    raise DemoFailed(f"the platform was not ready within {START} s: {_last_line(log)}")


def _clean_up(environment: Mapping[str, str], home: Path) -> None:
    """Stop what runs and delete what was written; takes no more notice of signals."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    stopped = subprocess.run(
        [sys.executable, "-m", "drycc", "stop"],
        env=environment,
        stdout=subprocess.DEVNULL,
        check=False,
        timeout=STOP,
        start_new_session=True,
    )
    if stopped.returncode:
        raise DemoFailed(f"the platform could not be stopped; its data is in {home}")
    delete_tree(home)
    print("Stopped; nothing was left running.")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _deploy(settings: Settings, home: Path, source: Path, password: str) -> str:
    """Log in, add a key, create an app and push the source; gives the app's name."""
    _tell("log in, add a key, create an app")
    key = _call(settings, "POST", "/v2/auth/login/", {"username": "admin", "password": password})["key"]
    token = _call(settings, "GET", f"/v2/auth/token/{key}/?alias=demo")["token"]
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "demo", "-f", f"{home}/key")
    public = (home / "key.pub").read_text()
    _call(settings, "POST", "/v2/keys/", {"id": "demo", "public": public}, token)
    app = str(_call(settings, "POST", "/v2/apps/", {"id": app_name()}, token)["id"])
    _tell("git push")
    shutil.copytree(source, home / "source")
    git = ("git", "-C", f"{home}/source", "-c", "user.name=demo", "-c", "user.email=demo@localhost")
    _run(*git, "init", "-q", "-b", "main")
    _run(*git, "add", ".")
    _run(*git, "commit", "-q", "-m", "demo")
    host, _, port = settings.ssh_listen.rpartition(":")
    ssh = ["ssh", "-i", f"{home}/key"]
    for option in ("IdentitiesOnly=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"):
        ssh += ["-o", option]
    command = shlex.join([*ssh, "-o", "LogLevel=ERROR"])
    _run(*git, "push", f"ssh://git@{host}:{port}/{app}.git", "main", GIT_SSH_COMMAND=command)
    return app


def _look(settings: Settings, app: str) -> None:
    """Ask the app through the edge, by its host's name even where that does not resolve."""
    host = f"{app}.{settings.domain}"
    status, body = _ask(Request(f"http://{settings.edge_listen}/", headers={"Host": host}))
    port = settings.edge_listen.rpartition(":")[2]
    print(f"http://{host}:{port}/ answers {status}: {body.decode(errors='replace').strip()}")


def _call(settings: Settings, method: str, path: str, body: Any = None, token: str = "") -> Any:
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"token {token}"
    data = json.dumps(body).encode() if body is not None else None
    request = Request(f"http://{settings.http_listen}{path}", data, headers, method=method)
    return json.loads(_ask(request)[1])


def _ask(request: Request) -> tuple[int, bytes]:
    """Status and body; raises `DemoFailed` for any answer that is no success."""
    asked = f"{request.get_method()} {request.full_url.partition('?')[0]}"
    try:
        with urlopen(request, timeout=ANSWER) as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        text = error.read().decode(errors="replace").strip()
        raise DemoFailed(f"{asked} was answered {error.code}: {text[:200]}") from error
    except (OSError, HTTPException) as error:
        raise DemoFailed(f"{asked} was not answered: {error}") from error


def _run(*argv: str, **env: str) -> None:
    shown = f"`{' '.join(argv[:4])} …`"
    try:
        done = subprocess.run(argv, env=os.environ | env, timeout=PUSH, check=False)
    except FileNotFoundError:
        raise DemoFailed(f"{argv[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise DemoFailed(f"{shown} took more than {PUSH} s") from None
    if done.returncode:
        raise DemoFailed(f"{shown} ended with exit code {done.returncode}")


def _tell(step: str) -> None:
    print(f"==> {step}", flush=True)
