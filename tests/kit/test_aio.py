"""Supervision: what does not answer is waited for, a bug is not."""

import asyncio
import errno

import pytest

from drycc.errors import NoSpace, Unavailable
from drycc.kit import aio
from drycc.kit.aio import insist, supervise


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aio, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(aio, "LONGEST_DELAY", 0.002)


TROUBLES = [
    Unavailable("the database does not answer"),
    NoSpace("no space is left"),
    OSError(errno.ENOSPC, "No space left on device"),
    ExceptionGroup("tasks", [Unavailable("away"), OSError(errno.EDQUOT, "Disk quota exceeded")]),
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda error: type(error).__name__)
async def test_a_task_outlives_any_number_of_outages(trouble: Exception) -> None:
    calls = 0

    async def body() -> None:
        nonlocal calls
        calls += 1
        if calls <= 20:
            raise trouble

    await supervise("body", body)
    assert calls == 21


BUGS = [
    ZeroDivisionError(),
    OSError(errno.ENOENT, "No such file or directory"),
    ExceptionGroup("tasks", [Unavailable("away"), ZeroDivisionError()]),
]


@pytest.mark.parametrize("bug", BUGS, ids=lambda error: type(error).__name__)
async def test_the_sixth_bug_within_a_minute_is_raised(bug: Exception) -> None:
    calls = 0

    async def body() -> None:
        nonlocal calls
        calls += 1
        raise bug

    with pytest.raises(type(bug)):
        await supervise("body", body)
    assert calls == 6


async def test_a_cancelled_task_ends_at_once_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aio, "FIRST_DELAY", 3600)
    began = asyncio.Event()

    async def body() -> None:
        began.set()
        raise Unavailable("away")

    task = asyncio.create_task(supervise("body", body))
    await began.wait()
    await asyncio.sleep(0)
    async with asyncio.timeout(1):
        await aio.cancel(task)


async def test_a_step_is_insisted_on_for_a_bounded_time() -> None:
    calls = 0

    async def step() -> int:
        nonlocal calls
        calls += 1
        if calls < 5:
            raise Unavailable("away")
        return calls

    assert await insist(step, within=10, every=0.001) == 5
    calls = -1_000_000
    with pytest.raises(Unavailable):
        await insist(step, within=0.02, every=0.001)
