"""Builds on the whole platform: ended in each way, died over, and read while all around them breaks."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import QUICK
from tests.e2e import building
from tests.e2e.cutting import CuttingReader
from tests.e2e.developer import Developer
from tests.invariants import find_processes, settle
from tests.platform import Platform
from tests.waiting import until

pytestmark = pytest.mark.e2e


@pytest.fixture
async def ann(database_url: str | None) -> AsyncIterator[Developer]:
    async with Platform(database_url, QUICK | building.VERBOSE) as platform:
        yield await Developer.join(platform)


async def start_push(ann: Developer, repository: Path) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *("git", "push", ann.platform.remote("shop"), "main"),
        cwd=repository,
        env=ann.platform.git_environment(ann.key),
        stderr=pipe,
        start_new_session=True,
    )


def sleepers(ann: Developer) -> list[str]:
    return [command for command in find_processes(ann.platform) if command.startswith("sleep 86400")]


async def record(ann: Developer, id: int) -> dict[str, Any]:
    found: dict[str, Any] = await ann.call("GET", f"apps/shop/builds/{id}/", status=200)
    return found


async def ended(ann: Developer, id: int) -> dict[str, Any]:
    async def is_over() -> dict[str, Any] | None:
        found = await record(ann, id)
        return found if found["state"] not in ("queued", "building") else None

    found: dict[str, Any] = await until(is_over, within=30)
    return found


async def log(ann: Developer, id: int) -> list[str]:
    page = await ann.call("GET", f"apps/shop/builds/{id}/log", status=200)
    return [line["text"].strip() for line in page["results"]]


async def test_bd10_gp04_a_build_that_sleeps_is_ended_in_each_way_and_the_next_push_runs(
    ann: Developer,
) -> None:
    repository = await ann.create("shop")
    await ann.platform.commit(repository, building.running(building.SLEEPING))
    for id, reason in (
        (1, "the pusher went away"),
        (2, "cancelled by ann"),
        (3, "cancelled by the operator"),
    ):
        process = await start_push(ann, repository)
        await until(lambda: sleepers(ann), within=20)
        if id == 1:
            os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C does
        elif id == 2:
            await ann.call("POST", f"apps/shop/builds/{id}/cancel", status=204)
        else:
            assert (await ann.platform.dryccd("builds", "cancel", str(id))).code == 0
        await check_end(ann, process, id, "cancelled", reason)
        assert "going to sleep" in await log(ann, id)
    await ann.platform.kill()
    ann.platform.settings["DRYCC_BUILD_TIMEOUT"] = "4"
    await ann.platform.start()
    reason = "the build ran longer than 4 s and was ended"
    await check_end(ann, await start_push(ann, repository), 4, "failed", reason)
    del ann.platform.settings["DRYCC_BUILD_TIMEOUT"]
    await ann.platform.kill()
    await ann.platform.start()
    done = await ann.push("shop", repository, building.running("", "'awake'"))
    assert "-----> Build 5" in done.err
    assert (await ann.get("shop")).text == "awake"
    await settle(ann.platform)
    await check_commands(ann, reason)


async def check_end(
    ann: Developer, process: asyncio.subprocess.Process, id: int, state: str, reason: str
) -> None:
    """The push fails with the reason, the build is on record, and nothing of it runs."""
    _, said = await process.communicate()
    assert process.returncode != 0
    build = await ended(ann, id)
    assert (build["state"], build["reason"]) == (state, reason)
    assert id == 1 or f" !     {reason}" in said.decode()
    assert sleepers(ann) == []


async def check_commands(ann: Developer, reason: str) -> None:
    listed = await ann.platform.dryccd("builds", "list", "shop")
    assert [line.split("\t")[:2] for line in listed.out.splitlines()] == [
        ["5", "succeeded"],
        ["4", "failed"],
        *(["3", "cancelled"], ["2", "cancelled"], ["1", "cancelled"]),
    ]
    followed = await ann.platform.dryccd("builds", "follow", "5")
    assert (followed.code, followed.out.splitlines()[-1]) == (0, done_line(ann))
    followed = await ann.platform.dryccd("builds", "follow", "4")
    assert (followed.code, followed.err) == (1, f"dryccd: build 4: {reason}\n")
    for id in ("0", "6", "99999999999"):
        nobody = await ann.platform.dryccd("builds", "follow", id)
        assert (nobody.code, nobody.err) == (1, f"dryccd: there is no build {id}\n")
    late = await ann.platform.dryccd("builds", "cancel", "5")
    assert (late.code, "has become v2" in late.err) == (1, True)


def done_line(ann: Developer) -> str:
    return f"-----> shop v2 is live at http://shop.localhost:{ann.platform.edge_port}"


async def test_bd11_a_build_that_died_with_the_platform_is_abandoned_and_its_log_kept(ann: Developer) -> None:
    repository = await ann.create("shop")
    await ann.platform.commit(repository, building.running(building.SLEEPING))
    process = await start_push(ann, repository)
    await until(lambda: sleepers(ann), within=20)

    async def is_logged() -> bool:
        return "going to sleep" in await log(ann, 1)

    await until(is_logged)
    await ann.platform.kill()
    for pid in pids(ann.platform):
        os.kill(pid, signal.SIGKILL)
    await process.communicate()
    assert process.returncode != 0
    await ann.platform.start()
    build = await ended(ann, 1)
    assert (build["state"], build["release"]) == ("abandoned", None)
    assert "going to sleep" in await log(ann, 1)
    listed = (await ann.call("GET", "apps/shop/builds/", status=200))["results"]
    assert [(row["id"], row["state"]) for row in listed] == [(1, "abandoned")]
    await ann.push("shop", repository, building.running("", "'again'"))
    assert (await ann.get("shop")).text == "again"
    await settle(ann.platform)


def pids(platform: Platform) -> list[int]:
    """Processes of this platform's pods, its builds among them."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            environ = (directory / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"DRYCC_INSTANCE={platform.data}".encode() in environ and any(
            e.startswith(b"DRYCC_POD=") for e in environ
        ):
            found.append(int(directory.name))
    return found


async def test_bd11_a_reader_who_is_cut_gets_each_line_once_over_restarts(ann: Developer) -> None:
    await read_while_cutting(ann, lines=6_000, seconds=5, cuts=50)


async def terminate(platform: Platform) -> None:
    """SIGTERM: the platform ends in order, its builds go on."""
    assert platform.process
    platform.process.terminate()
    async with asyncio.timeout(30):
        await platform.process.wait()


async def read_while_cutting(ann: Developer, *, lines: int, seconds: float, cuts: int) -> CuttingReader:
    """A build numbers lines, a reader's socket is cut at random places, the platform restarts twice."""
    repository = await ann.create("shop")
    await ann.platform.commit(repository, building.running(building.numbering(lines, seconds)))
    push = await start_push(ann, repository)

    async def is_numbering() -> bool:
        answer = await ann.platform.api("GET", "/v2/apps/shop/builds/1/log?limit=1000", None, ann.token)
        return answer.status == 200 and 'line 9"' in answer.text

    await until(is_numbering, within=30)
    reader = CuttingReader(ann, "shop", 1, cuts)
    reading = asyncio.create_task(reader.run())
    for part in (1, 2):
        await until(lambda: len(reader.texts) > part * lines / 3, within=30 + seconds)  # noqa: B023
        await (ann.platform.kill() if part == 1 else terminate(ann.platform))
        await ann.platform.start()
    async with asyncio.timeout(60 + seconds):
        await reading
    await push.communicate()
    numbers = [text.split()[1] for text in reader.texts if text.strip().startswith("line ")]
    assert numbers == [str(number) for number in range(lines)]
    assert not [text for text in reader.texts if text.endswith("left out")]
    assert reader.texts[-1] == done_line(ann)
    assert reader.done == cuts
    assert (await ended(ann, 1))["state"] == "succeeded"
    return reader
