"""The pre-receive hook: what it asks, and the two pipes over which it is answered."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from io import FileIO
from pathlib import Path

from drycc.build.pipes import open_pipe, open_reader, open_writer
from drycc.build.refs import MOST_REFS, Update, parse_update
from drycc.build.repository import Incoming


@dataclass(frozen=True, slots=True)
class Question:
    """What git has received and wants to know whether to take."""

    updates: Sequence[Update]
    options: Sequence[str]
    incoming: Incoming


def install_hook(directory: Path) -> None:
    """Write the hook that asks us; git would silently accept a push if it weren't executable."""
    directory.mkdir(parents=True, exist_ok=True)
    hook = directory / "pre-receive"
    part = directory / "pre-receive.part"
    part.write_bytes(files("drycc.build").joinpath("hooks/pre-receive").read_bytes())
    part.chmod(0o700)
    part.replace(hook)


@dataclass(frozen=True, slots=True)
class Talk:
    """Two pipes to the hook: its question, our answer, and the ends that the hook gets."""

    question: asyncio.StreamReader
    answer: asyncio.StreamWriter
    theirs: tuple[FileIO, FileIO]


@asynccontextmanager
async def open_talk() -> AsyncIterator[Talk]:
    (asked, ask), (answered, answer) = open_pipe(), open_pipe()
    question, hearing = await open_reader(asked)
    writer = await open_writer(answer)
    try:
        yield Talk(question, writer, (ask, answered))
    finally:
        hearing.close()
        writer.close()
        ask.close()
        answered.close()


async def hear(talk: Talk, path: Path) -> Question | None:
    """What the hook asks; None when git ended without calling it."""
    pid = await talk.question.readline()
    if not pid:
        return None
    updates = await _read_updates(talk.question)
    options, incoming = await asyncio.to_thread(_look, int(pid), path)
    return Question(updates, options, incoming)


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
