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
from io import FileIO
from pathlib import Path

from asyncssh import BreakReceived, DisconnectError, SignalReceived, SSHServerProcess, TerminalSizeChanged

from drycc.build import repository
from drycc.build.hook import Question, Talk, hear, open_talk
from drycc.build.pipes import open_pipe, open_writer, widen
from drycc.build.repository import LIVE
from drycc.build.terminal import describe, make_lines
from drycc.errors import DryccError, Unavailable
from drycc.kit.aio import cancel, within

STALLED = 300.0  # seconds for which a client may take nothing of what we say
OVER = (DisconnectError, BreakReceived, SignalReceived, TerminalSizeChanged)  # raised by reads of a channel
WINDOW = 2 * 1024 * 1024  # bytes that a client may send ahead; larger windows hold the loop longer
TRANSFER = 3600.0  # seconds for a pack, either way
COLLECTING = 600.0  # seconds for a garbage collection
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

    question: Question
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


@asynccontextmanager
async def receive_pack(process: SSHServerProcess[bytes], path: Path, hooks: Path) -> AsyncIterator[Push]:
    """Receive a push into its own repository `path`, which is gone afterwards.

    Leave the body normally and the references move; raise `PushRejected`, or anything else, and git says
    "remote rejected" after the error's lines. Raises `GitEnded` when nothing was asked.
    """
    try:
        async with open_talk() as talk, _serve_receive(process, path, hooks, talk) as child:
            async with _deadline():
                question = await hear(talk, path)
            if question is None:
                raise GitEnded(await _end_unasked(child, path))
            push = Push(question, talk.answer)
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
    env = environment(GIT_NAMESPACE=LIVE)
    async with _serve(process, ("upload-pack", str(path)), env) as child, _deadline():
        return await child.wait()


@asynccontextmanager
async def _deadline() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(TRANSFER):
            yield
    except TimeoutError:
        raise Unavailable(f"this took longer than {TRANSFER:.0f} s; try again over a faster line") from None


async def collect_garbage(path: Path) -> None:
    """Join the packs of many pushes into one when there are too many; what no reference needs goes later."""
    settings = ("gc.auto=6700", "gc.autoPackLimit=30", "gc.autoDetach=false")
    options = [word for setting in settings for word in ("-c", setting)]
    child = await asyncio.create_subprocess_exec(
        *("git", *options, "gc", "--auto", "--quiet"),
        cwd=path,
        env=environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        await within(COLLECTING, child.wait())
    finally:
        await _kill(child)


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


def _serve_receive(
    process: SSHServerProcess[bytes], path: Path, hooks: Path, talk: Talk
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
    (stdin, to_git), (from_git, stdout), (errors, stderr) = open_pipe(), open_pipe(), open_pipe()
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
    widen(to_git)
    writer = await open_writer(to_git)
    feeding = asyncio.create_task(_feed(process, writer))
    try:
        await process.redirect(stdout=from_git, stderr=errors, send_eof=False)
        yield child
    finally:
        await cancel(feeding)
        writer.close()
        await _kill(child)


async def _kill(child: Process) -> None:
    """End it with its whole group, unless it has ended by itself."""
    if child.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        await child.wait()


async def _feed(process: SSHServerProcess[bytes], git: asyncio.StreamWriter) -> None:
    """Hand git what the client sends, a window at a time: after a smaller read asyncssh grants the client
    a whole window nevertheless, and most of a pack ends up in memory.

    A redirection by asyncssh loses the end: asyncio closes a pipe whose protocol appends to its
    buffer, and then ends, while it is resumed.
    """
    with suppress(ConnectionError, *OVER):
        while data := await process.stdin.read(WINDOW):
            git.write(data)
            await git.drain()
    git.close()


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
