"""`dryccd demo`: a platform of its own, a user, a key, a real `git push`, and a URL that answers 200."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from drycc.errors import DryccError, Invalid
from drycc.kit.ids import app_name
from drycc.settings import Settings

START = 30  # seconds until the platform must be ready
PUSH = 300  # seconds for a push, with its build and its roll-out


class DemoFailed(DryccError):
    """A step of the demo that did not work."""

    code = "demo_failed"


def run_demo(settings: Settings, source: Path, *, keep: bool) -> None:
    """Push the app in `source`; leaves nothing behind, or with `keep` the whole platform running."""
    if not (source / "Procfile").is_file():
        raise Invalid(f"{source} has no Procfile: name the directory of an app with --app")
    home = Path(tempfile.mkdtemp(prefix="drycc-demo-"))
    began = time.monotonic()
    try:
        with _platform(settings, home, keep=keep) as password:
            app = _deploy(settings, home, source, password)
            _look(settings, app)
            print(f"From nothing to 200 in {time.monotonic() - began:.1f} s.", flush=True)
            if keep:
                print(f"It goes on running; end it with: dryccd --data {home}/data stop")
    finally:
        if not keep:
            shutil.rmtree(home)
            print("Stopped; nothing was left running.")


@contextmanager
def _platform(settings: Settings, home: Path, *, keep: bool) -> Iterator[str]:
    """A platform with its data below `home`; gives the superuser's password."""
    password = secrets.token_urlsafe(12)
    own = {"DRYCC_DATA": f"{home}/data", "DRYCC_ADMIN_PASSWORD": password}
    log = home / "log"
    _tell("start the platform")
    with log.open("wb") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "drycc", "serve"],
            env=os.environ | own,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_ready(settings, child, log)
        yield password
    except BaseException:
        keep = False
        raise
    finally:
        if not keep:
            subprocess.run(
                [sys.executable, "-m", "drycc", "stop"],
                env=os.environ | own,
                stdout=subprocess.DEVNULL,
                check=False,
                timeout=120,
            )
            child.wait(60)


def _wait_until_ready(settings: Settings, child: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + START
    while time.monotonic() < end:
        try:
            child.wait(0.05)
        except subprocess.TimeoutExpired:
            try:
                with urlopen(f"http://{settings.http_listen}/readiness", timeout=5):
                    return
            except URLError:
                continue
        raise DemoFailed(f"the platform did not start: {_last_line(log)}")
    raise DemoFailed(f"the platform was not ready within {START} s: {_last_line(log)}")


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
    ssh = (
        f"ssh -i {home}/key -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    )
    _run(
        *git, "push", f"ssh://git@{host}:{port}/{app}.git", "main", GIT_SSH_COMMAND=f"{ssh} -o LogLevel=ERROR"
    )
    return app


def _look(settings: Settings, app: str) -> None:
    """Ask the app through the edge, by its host's name even where that does not resolve."""
    host = f"{app}.{settings.domain}"
    with urlopen(Request(f"http://{settings.edge_listen}/", headers={"Host": host}), timeout=10) as answer:
        text = answer.read().decode(errors="replace").strip()
        port = settings.edge_listen.rpartition(":")[2]
        print(f"http://{host}:{port}/ answers {answer.status}: {text}")


def _call(settings: Settings, method: str, path: str, body: Any = None, token: str = "") -> Any:
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"token {token}"
    data = json.dumps(body).encode() if body is not None else None
    request = Request(f"http://{settings.http_listen}{path}", data, headers, method=method)
    with urlopen(request, timeout=30) as answer:
        return json.load(answer)


def _run(*argv: str, **env: str) -> None:
    done = subprocess.run(argv, env=os.environ | env, timeout=PUSH, check=False)
    if done.returncode:
        raise DemoFailed(f"`{' '.join(argv[:4])} …` ended with exit code {done.returncode}")


def _tell(step: str) -> None:
    print(f"==> {step}", flush=True)
