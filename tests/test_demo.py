"""`dryccd demo` where something comes between: it says what, and leaves nothing behind."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar
from urllib.request import Request

import pytest

from drycc.demo import DemoFailed, _ask
from tests.ordinary import ORDINARY
from tests.postgres import free_port
from tests.waiting import until

ROOT = Path(__file__).parent.parent
DEMO = (*ORDINARY, sys.executable, "-m", "drycc", "demo")


class Stranger(BaseHTTPRequestHandler):
    """A platform of somebody else: it says that it is ready, and refuses the rest."""

    asked: ClassVar[list[str]]

    def answer(self) -> None:
        self.asked.append(self.path)
        is_ready = self.path == "/readiness"
        self.send_response(200 if is_ready else 400)
        self.end_headers()
        self.wfile.write(b"" if is_ready else b'{"non_field_errors":["Unable to log in."]}')

    do_GET = do_POST = answer

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def stranger() -> Iterator[tuple[int, list[str]]]:
    """Its port, and the paths that it is asked for."""

    class Handler(Stranger):
        asked: ClassVar[list[str]] = []  # by this one alone

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port, Handler.asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def make_environment(tmp_path: Path, **more: str) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DRYCC_")}
    ports = {f"DRYCC_{name}_LISTEN": f"127.0.0.1:{free_port()}" for name in ("HTTP", "SSH", "EDGE")}
    return ours | ports | {"TMPDIR": str(tmp_path)} | more


def find_processes(tmp_path: Path) -> list[str]:
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"={tmp_path}/" in environ.read_bytes().decode(errors="replace"):
                found.append(environ.parent.name)
        except OSError:
            continue
    return found


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["HTTP", "SSH", "EDGE"])
def test_a_strangers_address_is_not_taken_for_ours(tmp_path: Path, name: str) -> None:
    with stranger() as (port, asked):
        environment = make_environment(tmp_path, **{f"DRYCC_{name}_LISTEN": f"127.0.0.1:{port}"})
        done = subprocess.run(DEMO, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100)
    assert (done.returncode, asked) == (1, []), done
    assert done.stderr.startswith("dryccd: the platform did not start: "), done.stderr
    assert f"127.0.0.1:{port}" in done.stderr
    assert (list(tmp_path.iterdir()), find_processes(tmp_path)) == ([], [])


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("line", "sent"),
    [("==> start", signal.SIGINT), ("==> git push", signal.SIGINT), ("==> log", signal.SIGTERM)],
)
async def test_a_signal_ends_the_demo_and_all_that_it_started(
    tmp_path: Path, line: str, sent: signal.Signals
) -> None:
    pipe = asyncio.subprocess.PIPE
    demo = await asyncio.create_subprocess_exec(
        *DEMO, cwd=ROOT, env=make_environment(tmp_path), stdout=pipe, stderr=pipe, start_new_session=True
    )
    assert demo.stdout
    said = ""
    async with asyncio.timeout(60):
        while not said.startswith(line):
            said = (await demo.stdout.readline()).decode()
            assert said, (await demo.communicate())[1]
        os.killpg(demo.pid, sent)
        out, err = await demo.communicate()
    assert (demo.returncode, b"Traceback" in err) == (130, False), err.decode()
    assert out.decode().rstrip().endswith("Stopped; nothing was left running.")
    assert list(tmp_path.iterdir()) == []

    async def is_quiet() -> bool:
        return find_processes(tmp_path) == []

    await until(is_quiet)


def test_what_is_no_success_is_a_sentence() -> None:
    with stranger() as (port, _):
        url = f"http://127.0.0.1:{port}/v2/auth/login/?key=secret"
        with pytest.raises(DemoFailed, match=r"POST http\S+/login/ was answered 400: .*Unable to log in"):
            _ask(Request(url, b"{}"))
    with pytest.raises(DemoFailed, match=r"GET http\S+/login/ was not answered: .*refused"):
        _ask(Request(url))
