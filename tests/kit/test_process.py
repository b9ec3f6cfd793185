"""Processes that outlive us."""

import asyncio
import os
import signal
import socket
from pathlib import Path

from drycc.kit import process
from drycc.kit.aio import within

SH = "/bin/sh"
CLEAN = {"PATH": "/usr/bin:/bin"}


async def _wait_text(path: Path, text: str, seconds: float = 10) -> str:
    """The file's content once `text` is in it."""
    async with asyncio.timeout(seconds):
        while not path.exists() or text not in path.read_text():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return path.read_text()


async def test_a_child_leads_its_own_session_and_writes_to_a_file(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.write_text("from a former run\n")
    argv = (SH, "-c", 'read line; echo "got <$line> $COLOR"; echo wrong >&2; exit 7')
    child = await process.spawn(argv, CLEAN | {"COLOR": "blue"}, output=output)

    stat = process.read_stat(child.pid)
    assert stat is not None
    assert (stat.group, stat.session) == (child.pid, child.pid)
    async with asyncio.timeout(10):
        status = await process.ended(child)
    assert status is not None
    assert os.waitstatus_to_exitcode(status) == 7
    assert output.read_text() == "from a former run\ngot <> blue\nwrong\n"
    assert not process.is_alive(child)
    assert not Path(f"/proc/{child.pid}").exists(), "the child was not reaped"
    assert await process.ended(child) is None


async def test_a_child_gets_the_named_descriptors_and_nothing_else_of_ours(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, (tmp_path / "open").open("w") as other:
        os.set_inheritable(server.fileno(), False)
        argv = (SH, "-c", "ls -l /proc/$$/fd; grep ^SigIgn /proc/$$/status")
        child = await process.spawn(argv, CLEAN, output=tmp_path / "out", inherit={server.fileno(): 9})
        assert await process.ended(child) == 0
        listed = (tmp_path / "out").read_text()
    assert "9 -> socket:" in listed
    assert other.name not in listed
    ignored = int(listed.split()[-1], 16)
    assert not ignored & 1 << (signal.SIGPIPE - 1), "Python ignores SIGPIPE; a child must not"


async def test_find_sees_only_the_exact_token(tmp_path: Path) -> None:
    argv = (SH, "-c", "echo up; kill -STOP $$")
    output = tmp_path / "out"
    one = await process.spawn(argv, CLEAN | {"TOKEN": f"{tmp_path}"}, output=output)
    two = await process.spawn(argv, CLEAN | {"TOKEN": f"{tmp_path}2"}, output=output)
    three = await process.spawn(argv, CLEAN | {"MY_TOKEN": f"{tmp_path}"}, output=output)
    await _wait_text(output, "up\nup\nup\n")
    try:
        assert await process.find("TOKEN", str(tmp_path)) == [one]
        assert process.read_variable(one, "TOKEN") == str(tmp_path)
        assert process.read_variable(three, "TOKEN") is None
        process.signal_one(one, signal.SIGKILL)
        status = await process.ended(one)
        assert status is not None
        assert os.WTERMSIG(status) == signal.SIGKILL
        assert process.read_variable(one, "TOKEN") is None
    finally:
        for child in (one, two, three):
            await process.stop(child, 0)
            await process.ended(child)
    assert await process.find("TOKEN", str(tmp_path)) == []


async def test_sv01_stop_leaves_nothing_of_the_group(tmp_path: Path) -> None:
    deaf = "trap '' TERM; echo deaf; while :; do sleep 60; done"
    argv = (SH, "-c", f"({deaf}) & ({deaf}) & wait")
    child = await process.spawn(argv, CLEAN, output=tmp_path / "out")
    await _wait_text(tmp_path / "out", "deaf\ndeaf\n")
    group = await process.members(child)
    assert len(group) >= 3

    async with asyncio.timeout(10):
        await process.stop(child, 0.2)
    assert await process.members(child) == []
    status = await process.ended(child)
    assert status is not None
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM, "the shell itself heard SIGTERM"


async def test_stop_waits_no_longer_than_the_group_needs(tmp_path: Path) -> None:
    argv = (SH, "-c", "trap 'echo bye; exit 0' TERM; echo up; while :; do :; done")
    child = await process.spawn(argv, CLEAN, output=tmp_path / "out")
    await _wait_text(tmp_path / "out", "up")
    async with asyncio.timeout(10):
        await process.stop(child, 600)
        assert await process.ended(child) == 0
    assert (tmp_path / "out").read_text() == "up\nbye\n"


async def test_a_reused_pid_is_never_signalled() -> None:
    child = await process.spawn((SH, "-c", "exec sleep 60"), CLEAN, output=None)
    former = process.Process(child.pid, child.start_time - 1)
    try:
        assert not process.is_alive(former)
        assert await process.ended(former) is None
        process.signal_group(former, signal.SIGKILL)
        await process.stop(former, 0)
        assert not await within(0.1, process.ended(child))
        assert process.is_alive(child)
    finally:
        await process.stop(child, 5)
        await process.ended(child)
