"""Starts the real `dryccd` for a test, on a fresh data directory and free loopback ports, and talks to it
as users do: HTTP with a connection a call, real git over ssh. Nothing here needs root."""

import asyncio
import http.client
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import Any, Self, TypeVar

from drycc.kit.files import delete_tree
from tests.postgres import free_port
from tests.smalldisk import Disk

T = TypeVar("T")

ADMIN = "admin"
PASSWORD = "correct horse battery"

WEB = """\
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY = {body!r}
NAMES = {names!r}


class Web(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        lines = [BODY, *(name + "=" + os.environ.get(name, "") for name in NAMES)]
        body = "".join(line + "\\n" for line in lines).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


server = ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), Web)
print("web is listening", flush=True)
server.serve_forever()
"""


@dataclass(frozen=True)
class Answer:
    """What one HTTP request got; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


def exchange(
    port: int,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes | None = None,
    seconds: float = 30,
) -> Answer:
    """One request on a connection of its own, with exactly these headers; blocks."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        content = response.read()
        lower = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, lower, content)
    finally:
        connection.close()


async def run(
    *argv: str | Path,
    cwd: Path,
    environment: Mapping[str, str],
    types: str = "",
    seconds: float = 60,
) -> Done:
    """Run a command to its end; it is killed when the time is over."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *argv, cwd=cwd, env=dict(environment), stdin=pipe, stdout=pipe, stderr=pipe
    )
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate(types.encode())
    except TimeoutError:
        process.kill()
        out, err = await process.communicate()
        said = (out + err).decode(errors="replace")
        raise AssertionError(f"{' '.join(map(str, argv))} did not end in {seconds:g} s:\n{said}") from None
    assert process.returncode is not None
    return Done(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))


async def until(question: Callable[[], Awaitable[T | None]], seconds: float, what: str) -> T:
    """Ask again and again until the answer is true; the only loop of the tests that looks at a clock."""
    latest: T | None = None
    try:
        async with asyncio.timeout(seconds):
            while not (latest := await question()):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            return latest
    except TimeoutError:
        raise AssertionError(f"{what}: not in {seconds:g} s; the latest answer was {latest!r}") from None


@dataclass
class Platform:
    """One `dryccd serve`, as a child. `async with Platform() as platform` starts it and takes it down."""

    database_url: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    home: Path = field(default_factory=lambda: Path(mkdtemp(prefix="dryccd-")))
    python: str = sys.executable  # of the virtual environment that `dryccd` is installed in
    disk: Disk | None = None  # where its data directory lies, instead of in `home`

    def __post_init__(self) -> None:
        self.http_port, self.ssh_port, self.edge_port = free_port(), free_port(), free_port()
        self.data = (self.disk.path if self.disk else self.home) / "data"
        self.seen_data = (self.disk.seen if self.disk else self.home) / "data"
        self.prefix = self.disk.prefix if self.disk else ()
        self.process: asyncio.subprocess.Process | None = None
        self.key: Path | None = None
        settings = {
            "DRYCC_DATA": str(self.data),
            "DRYCC_HTTP_LISTEN": f"127.0.0.1:{self.http_port}",
            "DRYCC_SSH_LISTEN": f"127.0.0.1:{self.ssh_port}",
            "DRYCC_EDGE_LISTEN": f"127.0.0.1:{self.edge_port}",
            "DRYCC_DOMAIN": "localhost",
            "DRYCC_ADMIN_PASSWORD": PASSWORD,
        }
        if self.database_url:
            settings["DRYCC_DATABASE_URL"] = self.database_url
        ours = {name: value for name, value in os.environ.items() if not name.startswith("DRYCC_")}
        self.settings = ours | settings | dict(self.environment)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            with suppress(AssertionError):
                await self.stop()
            await self._remove()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.stop()
        finally:
            await self._remove()

    async def _remove(self) -> None:
        await self.kill()
        with suppress(OSError):  # what a test has broken on purpose
            delete_tree(self.home)

    # the process

    async def start(self, seconds: float = 30) -> None:
        """Start `dryccd serve` and wait until it says that it is ready."""
        with (self.home / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(*self.prefix, self.python, "-m", "drycc", "serve"),
                cwd=self.home,
                env=self.settings,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        process = self.process

        async def ready_or_gone() -> bool:
            return process.returncode is not None or await self.is_ready()

        try:
            await until(ready_or_gone, seconds, "dryccd is ready")
        except AssertionError as late:
            raise AssertionError(f"{late}\n{self.log()[-4000:]}") from None
        assert process.returncode is None, f"dryccd ended with {process.returncode}\n{self.log()[-4000:]}"

    async def is_ready(self) -> bool:
        try:
            return (await self.api("GET", "/readiness")).status == 200
        except (OSError, http.client.HTTPException):
            return False

    async def kill(self) -> None:
        """SIGKILL for `dryccd` alone; pods and the edge are none of its business."""
        if self.process and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def stop(self, seconds: float = 60) -> None:
        """`dryccd stop`: the platform, its pods and its edge are gone afterwards."""
        done = await self.dryccd("stop", seconds=seconds)
        assert done.code == 0, f"dryccd stop: {done}\n{self.log()[-4000:]}"
        if self.process:
            async with asyncio.timeout(10):
                await self.process.wait()

    async def dryccd(self, *argv: str, types: str = "", seconds: float = 60) -> Done:
        """Another command of the program, with the settings of this platform."""
        command = (*self.prefix, self.python, "-m", "drycc", *argv)
        return await run(*command, cwd=self.home, environment=self.settings, types=types, seconds=seconds)

    def log(self) -> str:
        return (self.home / "log").read_text(errors="replace")

    # its API and its apps

    @property
    def controller(self) -> str:
        return f"http://localhost:{self.http_port}"

    async def api(self, method: str, path: str, body: Any = None, token: str | None = None) -> Answer:
        headers = {"Host": f"localhost:{self.http_port}", "Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"token {token}"
        sent = None if body is None else json.dumps(body).encode()
        return await asyncio.to_thread(exchange, self.http_port, method, path, headers, sent)

    async def login(self, user: str = ADMIN, password: str = PASSWORD) -> str:
        """A new token, got as the client gets it."""
        answer = await self.api("POST", "/v2/auth/login/", {"username": user, "password": password})
        assert answer.status == 200, answer
        key = answer.json()["key"]
        answer = await self.api("GET", f"/v2/auth/token/{key}/?alias=workflow-cli")
        assert answer.status == 200, answer
        return str(answer.json()["token"])

    async def app_get(self, app: str, path: str = "/", seconds: float = 30) -> Answer:
        headers = {"Host": f"{app}.localhost"}
        return await asyncio.to_thread(exchange, self.edge_port, "GET", path, headers, None, seconds)

    # its users, and their git

    async def add_user(self, name: str, password: str = PASSWORD, *options: str) -> None:
        done = await self.dryccd("user", "create", name, "--password-stdin", *options, types=f"{password}\n")
        assert done.code == 0, done

    async def make_key(self, name: str = "laptop") -> Path:
        """A new ed25519 key pair that git uses from now on; gives the path of the private half."""
        self.key = self.home / "keys" / name
        self.key.parent.mkdir(exist_ok=True)
        argv = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self.key))
        done = await run(*argv, cwd=self.home, environment=self.settings)
        assert done.code == 0, done
        return self.key

    async def add_key(self, token: str, name: str = "laptop") -> Path:
        """`make_key`, and give the public half to the platform."""
        key = await self.make_key(name)
        public = key.with_name(f"{name}.pub").read_text()
        answer = await self.api("POST", "/v2/keys/", {"id": name, "public": public}, token)
        assert answer.status == 201, answer
        return key

    def remote(self, app: str) -> str:
        return f"ssh://git@127.0.0.1:{self.ssh_port}/{app}.git"

    def git_environment(self, key: Path | None = None) -> dict[str, str]:
        """The user's own configuration of git and ssh stays out of it."""
        ssh = (
            f"ssh -F /dev/null -p {self.ssh_port} -i {key or self.key} -o StrictHostKeyChecking=no"
            " -o UserKnownHostsFile=/dev/null -o IdentitiesOnly=yes -o BatchMode=yes -o LogLevel=ERROR"
        )
        who = {f"GIT_{part}": "alice" for part in ("AUTHOR_NAME", "AUTHOR_EMAIL")}
        who |= {f"GIT_{part}": "alice" for part in ("COMMITTER_NAME", "COMMITTER_EMAIL")}
        quiet = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
        return self.settings | who | quiet | {"GIT_SSH_COMMAND": ssh, "LC_ALL": "C.UTF-8"}

    async def git(
        self,
        *argv: str | Path,
        cwd: Path,
        key: Path | None = None,
        code: int | None = 0,
        seconds: float = 120,
    ) -> Done:
        """Real git; the exit status is `code`, or any with None."""
        environment = self.git_environment(key)
        done = await run("git", *argv, cwd=cwd, environment=environment, seconds=seconds)
        if code is not None and done.code != code:
            command = f"git {' '.join(map(str, argv))}"
            said = f"{done.out}{done.err}\n{self.log()[-4000:]}"
            raise AssertionError(f"{command} ended with {done.code}, not {code}:\n{said}")
        return done

    async def push(self, app: str, repository: Path, code: int | None = 0, key: Path | None = None) -> Done:
        """Push the branch `main` to the app."""
        return await self.git("push", self.remote(app), "main", cwd=repository, key=key, code=code)

    async def make_app(self, name: str, version: str = "v1", *names: str) -> Path:
        """A new repository with a small web app in it: it answers its version and the named variables."""
        repository = self.home / "apps" / name
        repository.mkdir(parents=True)
        await self.git("init", "-q", "-b", "main", cwd=repository)
        await self.commit(repository, web_app(version, *names))
        return repository

    async def commit(self, repository: Path, files: Mapping[str, str], message: str = "a change") -> str:
        """Write the files, commit everything, give the commit's name."""
        for path, text in files.items():
            target = repository / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        await self.git("add", "-A", cwd=repository)
        await self.git("commit", "-q", "--allow-empty", "-m", message, cwd=repository)
        return (await self.git("rev-parse", "HEAD", cwd=repository)).out.strip()


def web_app(version: str, *names: str) -> dict[str, str]:
    """The files of an app whose `web` is a server from Python's standard library alone."""
    return {"Procfile": "web: python3 web.py\n", "web.py": WEB.format(body=version, names=names)}
