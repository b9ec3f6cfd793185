"""Builds as records: how each ends, what a queued one waits for, and what waits for no build."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from drycc.backends.cluster.base import Exit
from drycc.backends.db import Database
from drycc.core import builds, jobs, pipeline
from drycc.core.models import Build
from drycc.errors import Conflict, NotFound, Unavailable
from drycc.kit.aio import cancel
from drycc.kit.ids import now
from tests.cluster import Finished
from tests.core.story import Story
from tests.waiting import until


@pytest.fixture
async def story(db: Database, tmp_path: Path) -> Story:
    return await Story.begin(db, tmp_path)


@asynccontextmanager
async def building(story: Story) -> AsyncIterator[int]:
    """A build of `shop` that runs until the body has ended."""
    story.cluster.hanging = True
    id = await story.push(web="./serve")
    claim = await jobs.claim(story.db, "story", 30, ("build",))
    assert claim
    task = asyncio.create_task(pipeline.run(story.ports, claim))
    one_off = f"build-{(await story.build(id)).uuid}"
    try:
        await until(lambda: one_off in story.cluster.ended)
        yield id
        story.cluster.hanging = False
        story.cluster.ended[one_off].set()
        await task
    finally:
        await cancel(task)


async def shown(story: Story, id: int, slots: int = 2) -> Any:
    rows = await story.db.read(builds.SHOWN.where(Build.id == id), slots=slots)
    return rows[0]


async def states(story: Story) -> list[str]:
    return [build.state for build in await story.rows(Build, Build.id)]


async def test_a_build_keeps_who_when_how_long_and_what_became_of_it(story: Story) -> None:
    async with building(story) as id:
        row = await shown(story, id)
        assert (row.owner, row.state, row.release, row.ended) == ("ann", "building", None, None)
        first = builds.find_duration(row.started, row.ended)
        assert first is not None
        assert first >= 0
    await story.work()
    row = await shown(story, id)
    assert (row.state, row.reason, row.release, row.image) == ("succeeded", "", 2, f"shop:{id}")
    duration = builds.find_duration(row.started, row.ended)
    assert duration is not None
    assert first <= duration <= (now() - row.created).total_seconds()
    assert builds.find_duration(None, None) is None


async def test_a_config_and_its_release_wait_for_no_build(story: Story) -> None:
    await story.push(web="./serve")
    await story.work()
    async with building(story) as id:
        await story.set_config(COLOR="red")
        await story.work()
        assert (await story.releases())[-1] == (3, "succeed", False)
        assert story.cluster.apps["shop"]["web"].spec.env["COLOR"] == "red"
        assert (await shown(story, id)).state == "building"
    await story.work()
    spec = story.cluster.apps["shop"]["web"].spec
    assert (spec.image, spec.env["COLOR"]) == (f"shop:{id}", "red")


async def test_a_newer_push_supersedes_the_one_that_waits_and_never_the_one_that_runs(story: Story) -> None:
    async with building(story) as first:
        second, third = await story.push(web="./two"), await story.push(web="./three")
        assert (await builds.outcome(story.db, second)).text == f"superseded by build {third}"
        assert await story.lines(second) == [f"-----> Waiting: build {first} of this app is running"]
        assert (await shown(story, third)).app_ahead == 1
        with pytest.raises(Conflict, match=f"build {second} is over: superseded"):
            await builds.cancel(story.db, story.nudges, second, "too late")
    await story.work()
    assert await states(story) == ["succeeded", "superseded", "succeeded"]
    assert await story.objects.list("sources/") == []


async def test_a_build_that_is_superseded_while_its_job_is_claimed_does_not_run(story: Story) -> None:
    """Between the claim of its job and its start, a build still waits."""
    first = await story.push(web="./one")
    claim = await jobs.claim(story.db, "story", 30, ("build",))
    assert claim
    second = await story.push(web="./two")
    await pipeline.run(story.ports, claim)
    assert list(story.cluster.one_offs) == []
    assert [(await shown(story, id)).state for id in (first, second)] == ["superseded", "queued"]
    await story.work()
    assert await states(story) == ["superseded", "succeeded"]


async def test_who_cancels_in_time_gets_no_release(story: Story) -> None:
    """Asked after the image was built and before its release was recorded: the answer was "in time"."""
    pushed = await story.push(web="./serve")
    result = story.cluster.result

    async def result_then_cancel(id: str) -> bytes | None:
        await builds.cancel(story.db, story.nudges, pushed, "cancelled by ann")
        return await result(id)

    story.cluster.result = result_then_cancel  # type: ignore[method-assign]
    await story.work()
    story.cluster.result = result  # type: ignore[method-assign]
    build = await story.build(pushed)
    assert (build.state, build.reason) == ("cancelled", "cancelled by ann")
    assert await story.releases() == [(1, "created", False)]
    assert await story.objects.list("sources/") == []
    assert list(story.cluster.one_offs) == []
    again = await story.push(web="./serve")
    await story.work()
    assert (await builds.outcome(story.db, again)).has_succeeded


async def test_a_cancelled_build_whose_job_waits_to_be_repeated_leaves_no_process(story: Story) -> None:
    story.cluster.hanging = True
    id = await story.push(web="./serve")
    claim = await jobs.claim(story.db, "story", 30, ("build",))
    assert claim
    task = asyncio.create_task(pipeline.run(story.ports, claim))
    await until(lambda: story.cluster.one_offs)
    await cancel(task)
    await story.db.write(lambda session: jobs.retry(session, claim, 0.5))
    await builds.cancel(story.db, story.nudges, id, "cancelled by ann")
    assert (await builds.outcome(story.db, id)).text == "cancelled by ann"
    assert list(story.cluster.one_offs) == [f"build-{(await story.build(id)).uuid}"]

    async def is_gone() -> bool:
        await story.work()
        return not story.cluster.one_offs

    await until(is_gone)
    assert await states(story) == ["cancelled"]
    assert await story.objects.list("sources/") == []


async def test_cancelling_what_is_not_there_is_told(story: Story) -> None:
    with pytest.raises(NotFound):
        await builds.cancel(story.db, story.nudges, 99, "nobody's")


async def test_bd10_a_build_that_is_ended_by_its_deadline_says_so(story: Story) -> None:
    wait = story.cluster.wait

    async def ended_late(id: str) -> Exit:
        exit = await wait(id)
        return replace(
            exit, code=None, signal="SIGTERM", at=now() + timedelta(seconds=story.ports.build_timeout)
        )

    story.cluster.builds = Finished(b"sleeping\n", code=143)
    story.cluster.wait = ended_late  # type: ignore[method-assign]
    pushed = await story.push(web="./serve")
    await story.work()
    build = await story.build(pushed)
    assert (build.state, build.reason) == ("failed", "the build ran longer than 5 s and was ended")
    assert (await story.lines(pushed))[-1] == "sleeping"


async def test_se03_the_last_lines_of_a_failed_pod_are_masked_and_made_fit(story: Story) -> None:
    async def tail(pod: str, lines: int) -> list[str]:
        return ["connecting to postgres://u:secret@db/x", "a\0b", "git clone https://ann:s3cret@host/r.git"]

    story.cluster.tail = tail  # type: ignore[method-assign]
    await story.set_config(DATABASE_URL="postgres://u:secret@db/x")
    story.cluster.broken.add(("web", 3))
    id = await story.push(web="./bad")
    await story.work()
    assert (await story.lines(id))[-3:] == [
        "       web: connecting to [masked]",
        "       web: a\ufffdb",
        "       web: git clone https://[masked]@host/r.git",
    ]


async def test_a_follower_outlasts_a_database_that_is_away(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builds, "LOOK_AGAIN", 0.01)
    id = await story.push(web="./serve")
    await story.work()
    read, asked = story.db.read, 0

    async def read_at_times(*statement: Any, **values: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked in (1, 3, 4):
            raise Unavailable("the database does not answer")
        return await read(*statement, **values)

    whole = await story.lines(id)
    monkeypatch.setattr(story.db, "read", read_at_times)
    assert await story.lines(id) == whole
    monkeypatch.setattr(builds, "PATIENCE", 0.0)
    asked = 0
    with pytest.raises(Unavailable):
        await story.lines(id)
