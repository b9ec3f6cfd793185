"""git as a server: receive-pack and upload-pack between an SSH client and a repository on disk.

git calls a hook and waits for its answer; `receive_pack` turns that inside out once, so that a push
reads from top to bottom.
"""

import asyncio
import os
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files
from io import FileIO
from pathlib import Path
from uuid import UUID

from asyncssh import BreakReceived, SignalReceived, SSHServerProcess, TerminalSizeChanged

from drycc.build import repository
from drycc.build.refs import MOST_REFS, Update, parse_update
from drycc.build.repository import LIVE, Incoming, Repositories
from drycc.build.terminal import describe, make_lines
from drycc.errors import DryccError
from drycc.kit.aio import cancel

STALLED = 300.0  # seconds for which a client may take nothing of what we say
SIGNALS = (BreakReceived, SignalReceived, TerminalSizeChanged)  # raised by reads of a channel
CHUNK = 256 * 1024
ENDING = 30.0  # seconds for git to end once it has its answer


class GitEnded(DryccError):
    """git ended without asking us, having told the client why itself: nothing new, or a refused pack."""

    code = "git_ended"

    def __init__(self, status: int) -> None:
        super().__init__(f"git ended with {status}")
        self.status = status


@dataclass(slots=True)
class Push:
    """A push whose objects are in quarantine; what it says is read by the pusher as `remote: …`."""

    updates: Sequence[Update]
    options: Sequence[str]
    incoming: Incoming
    answer: asyncio.StreamWriter
    status: int = 1  # git's own, once it has ended

    async def say(self, line: str) -> None:
        """Show the pusher one line, when the client has room for it; `ConnectionError` when it is gone."""
        for piece in make_lines(line):
            self.answer.write(f"> {piece}\n".encode())
        try:
            async with asyncio.timeout(STALLED):
                await self.answer.drain()
        except TimeoutError:
            raise ConnectionResetError("the client takes nothing any more") from None


def install_hook(directory: Path) -> None:
    """Write the hook that asks us; git would silently accept a push if it weren't executable."""
    directory.mkdir(parents=True, exist_ok=True)
    hook = directory / "pre-receive"
    part = directory / "pre-receive.part"
    part.write_bytes(files("drycc.build").joinpath("hooks/pre-receive").read_bytes())
    part.chmod(0o755)
    part.replace(hook)


@asynccontextmanager
async def receive_pack(
    process: SSHServerProcess[bytes], repositories: Repositories, app: UUID, hooks: Path
) -> AsyncIterator[Push]:
    """Receive a push. Leave the body normally and the references move; raise `PushRejected`, or anything
    else, and git says "remote rejected" after the error's lines. Raises `GitEnded` when nothing was asked.
    """
    path = await asyncio.to_thread(repositories.open_push, app)
    try:
        async with _talk() as talk, _serve_receive(process, path, hooks, talk) as child:
            push = await _hear(talk, path)
            if push is None:
                raise GitEnded(await _end_unasked(child, path))
            verdict = "reject"
            try:
                yield push
                verdict = "accept"
            except ConnectionError:
                raise
            except Exception as refusal:  # noqa: BLE001 - the pusher is told, and a bug is logged
                await _explain(push, refusal)
            talk.answer.write(f"{verdict}\n".encode())
            push.status = await _end(child)
    finally:
        await asyncio.to_thread(repository.close_push, path)


async def upload_pack(process: SSHServerProcess[bytes], path: Path) -> int:
    """Serve a clone or fetch of what is published; gives git's status."""
    async with _serve(process, ("upload-pack", str(path)), environment(GIT_NAMESPACE=LIVE)) as child:
        return await child.wait()


def environment(**more: str) -> dict[str, str]:
    """What a git of ours sees: nothing of ours, and no configuration but the repository's."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
    } | more


@dataclass(frozen=True, slots=True)
class _Talk:
    """Two pipes to the hook: its question, our answer, and the ends that the hook gets."""

    question: asyncio.StreamReader
    answer: asyncio.StreamWriter
    theirs: tuple[FileIO, FileIO]


@asynccontextmanager
async def _talk() -> AsyncIterator[_Talk]:
    loop = asyncio.get_running_loop()
    (asked, ask), (answered, answer) = _pipe(), _pipe()
    question = asyncio.StreamReader(loop=loop)
    hearing, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(question), asked)
    writer = await _open_writer(answer)
    try:
        yield _Talk(question, writer, (ask, answered))
    finally:
        hearing.close()
        writer.close()
        ask.close()
        answered.close()


async def _open_writer(pipe: FileIO) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    transport, flow = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), pipe
    )
    return asyncio.StreamWriter(transport, flow, None, loop)


def _pipe() -> tuple[FileIO, FileIO]:
    """The reading and the writing end; unlike bare numbers, a file may be closed twice."""
    reading, writing = os.pipe()
    return FileIO(reading, "rb"), FileIO(writing, "wb")


def _serve_receive(
    process: SSHServerProcess[bytes], path: Path, hooks: Path, talk: _Talk
) -> AbstractAsyncContextManager[Process]:
    argv = ("-c", f"core.hooksPath={hooks}", "receive-pack", str(path))
    ask, answered = talk.theirs
    env = environment(DRYCC_ASK=str(ask.fileno()), DRYCC_ANSWER=str(answered.fileno()))
    return _serve(process, argv, env, talk.theirs)


@asynccontextmanager
async def _serve(
    process: SSHServerProcess[bytes],
    argv: Sequence[str],
    env: Mapping[str, str],
    pass_on: Sequence[FileIO] = (),
) -> AsyncIterator[Process]:
    """Run git with the channel as its standard streams; afterwards nothing of its group is left."""
    (stdin, to_git), (from_git, stdout), (errors, stderr) = _pipe(), _pipe(), _pipe()
    child = await asyncio.create_subprocess_exec(
        *("git", *argv),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=env,
        pass_fds=[file.fileno() for file in pass_on],
        start_new_session=True,
    )
    for file in (stdin, stdout, stderr, *pass_on):
        file.close()
    writer = await _open_writer(to_git)
    feeding = asyncio.create_task(_feed(process, writer))
    try:
        await process.redirect(stdout=from_git, stderr=errors, send_eof=False)
        yield child
    finally:
        await cancel(feeding)
        writer.close()
        if child.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()


async def _feed(process: SSHServerProcess[bytes], git: asyncio.StreamWriter) -> None:
    """Hand git what the client sends. A redirection by asyncssh loses the end: asyncio closes a pipe whose
    protocol appends to its buffer, and then ends, while it is resumed.
    """
    with suppress(ConnectionError, *SIGNALS):  # git has ended, and told the client why; or ends now
        while data := await process.stdin.read(CHUNK):
            git.write(data)
            await git.drain()
    git.close()


async def _hear(talk: _Talk, path: Path) -> Push | None:
    """What the hook asks; None when git ended without calling it."""
    pid = await talk.question.readline()
    if not pid:
        return None
    updates = await _read_updates(talk.question)
    options, incoming = await asyncio.to_thread(_look, int(pid), path)
    return Push(updates, options, incoming, talk.answer)


async def _read_updates(question: asyncio.StreamReader) -> Sequence[Update]:
    """All of them, or the first that are more than anybody may name."""
    updates: list[Update] = []
    while (line := await question.readline()) != b".\n":
        if not line:
            raise ConnectionResetError("git ended while it asked")
        if len(updates) <= MOST_REFS:
            updates.append(parse_update(line))
    return updates


def _look(pid: int, path: Path) -> tuple[Sequence[str], Incoming]:
    """Push options and objects, from the waiting hook's environment: exact, whatever bytes an option has."""
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    environ = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    count = int(environ.get("GIT_PUSH_OPTION_COUNT", "0"))
    options = [environ[f"GIT_PUSH_OPTION_{number}"] for number in range(count)]
    boundary = environ.get("GIT_SHALLOW_FILE", "")
    shallow = (path / boundary).read_text().split() if boundary else ()
    return options, Incoming(path, path / environ["GIT_QUARANTINE_PATH"], shallow)


async def _explain(push: Push, refusal: Exception) -> None:
    with suppress(ConnectionError):
        for line in describe(refusal).split("\n"):
            await push.say(f" !     {line}")


async def _end(child: Process) -> int:
    async with asyncio.timeout(ENDING):
        return await child.wait()


async def _end_unasked(child: Process, path: Path) -> int:
    """git's status, unless references moved without our being asked: that is a fault of ours."""
    status = await _end(child)
    if await asyncio.to_thread(repository.has_refs, path):
        raise RuntimeError("git accepted a push without calling the hook")
    return status
