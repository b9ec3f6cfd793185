"""Nudges within one process."""

import asyncio

from drycc.backends.nudges import open_nudges


async def test_ids_arrive_once_in_order_for_each_subscriber() -> None:
    nudges = await open_nudges("memory:")
    await nudges.send("jobs", "before anybody listened")
    async with nudges.subscribe("jobs") as first, nudges.subscribe("jobs") as second:
        for id in ("1", "2", "1", "3"):
            await nudges.send("jobs", id)
        await nudges.send("builds", "4")
        assert [await anext(first) for _ in range(3)] == ["1", "2", "3"]
        assert [await anext(second) for _ in range(3)] == ["1", "2", "3"]


async def test_a_wait_that_was_cancelled_loses_nothing() -> None:
    nudges = await open_nudges("memory:")
    async with nudges.subscribe("jobs") as nudged:
        waiting = asyncio.ensure_future(anext(nudged))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await nudges.send("jobs", "1")
        async with asyncio.timeout(1):
            assert await anext(nudged) == "1"
