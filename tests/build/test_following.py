"""Who follows a build, and who does not: neither slows it, and neither loses a line by a trouble of ours."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy.engine import make_url

from drycc.backends.cluster.base import Output
from drycc.backends.db import open_database
from drycc.core import apps, build_log, builds
from drycc.core.models import Build
from drycc.errors import Unavailable
from tests.between import Between
from tests.build.builder import WEB, Builder, open_builder
from tests.cluster import Finished, ModelCluster
from tests.conftest import MIGRATIONS, new_postgres_database
from tests.waiting import until

LINES = 200_000


class GatedCluster(ModelCluster):
    """One-offs print nothing before `gate` is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def output(self, id: str, offset: int = 0) -> AsyncIterator[Output]:
        await self.gate.wait()
        async for output in super().output(id, offset):
            yield output


async def queue(builder: Builder, app: str = "shop") -> int:
    """A build that nobody follows."""

    async def source() -> AsyncIterator[bytes]:
        yield b"tar"

    key = f"sources/{app}/{uuid4()}.tar"
    await builder.objects.put(key, source())
    asked = builds.Source("0" * 40, "buildpack", key, {"web": "./serve"})
    uuid, user = (await apps.find(builder.db, app)).uuid, builder.users["ann"].id
    return await builds.queue(builder.db, builder.nudges, uuid, user, asked, slots=builder.settings.builds)


async def duration(builder: Builder, id: int) -> float:
    """Of the build, once it is over."""

    async def ended() -> float | None:
        (row,) = await builder.db.read(builds.SHOWN.where(Build.id == id), slots=2)
        return builds.find_duration(row.started, row.ended) if row.ended else None

    seconds: float = await until(ended, within=90)
    return seconds


async def states(builder: Builder) -> list[str]:
    return [state for state, _ in await builder.builds()]


async def test_a_pusher_who_stops_reading_slows_no_build(idle_builder: Builder) -> None:
    builder = idle_builder
    builder.cluster = cluster = GatedCluster()
    cluster.builds = Finished(b"".join(b"compiling module number %06d of many\n" % n for n in range(LINES)))
    repository = await builder.make_repository(WEB)
    async with builder.working(), builder.serving():
        cluster.gate.set()
        normal = await duration(builder, await queue(builder))
        cluster.gate.clear()
        process = await builder.start_push(repository)
        await until(lambda: len(cluster.ended) == 2)
        os.killpg(process.pid, signal.SIGSTOP)
        try:
            cluster.gate.set()
            assert await duration(builder, 2) < 3 * normal + 5  # others may be busy on this machine
            (line,) = (await build_log.read(builder.db, 2, limit=1)).lines
            place = await build_log.find_place(builder.db, 2, "build")
            assert (line.seq, place.seq) == (1, LINES + 1)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        assert await states(builder) == ["succeeded", "succeeded"]


async def test_as_many_builds_run_as_drycc_builds_says_one_of_an_app(builder: Builder) -> None:
    assert builder.settings.builds == 2
    builder.cluster.hanging = True
    for app in ("two", "three"):
        await builder.add_app(app)
    first = await queue(builder, "shop")
    await until(lambda: len(builder.cluster.ended) == 1)
    again = await queue(builder, "shop")
    second = await queue(builder, "two")
    await until(lambda: len(builder.cluster.ended) == 2)
    third = await queue(builder, "three")
    assert await states(builder) == ["building", "queued", "building", "queued"]
    said = [(await build_log.read(builder.db, id)).lines[0].text for id in (again, third)]
    assert said == [
        f"-----> Waiting: build {first} of this app is running",
        "-----> Waiting: 3 builds are ahead of this one, 2 run at once",
    ]
    one_offs = list(builder.cluster.ended)
    builder.cluster.ended[one_offs[1]].set()  # of `two`: the app `shop` goes on building, so `three` is next
    await until(lambda: len(builder.cluster.ended) == 3)
    assert (await states(builder))[::3] == ["building", "building"]
    builder.cluster.hanging = False
    for ended in builder.cluster.ended.values():
        ended.set()
    for id in (first, again, second, third):
        await duration(builder, id)
    assert await states(builder) == ["succeeded"] * 4


async def test_gp11_a_database_that_is_away_during_the_launch_costs_the_pusher_nothing(
    postgres_url: str, tmp_path: Path
) -> None:
    url = make_url(await new_postgres_database(postgres_url))
    assert url.port
    async with (
        Between.open(url.port) as between,
        open_database(url.set(port=between.port).render_as_string()) as db,
    ):
        await db.migrate(MIGRATIONS)
        builder = await open_builder(db, tmp_path)
        repository = await builder.make_repository(WEB)
        builder.cluster.never.add(("web", 2))
        async with builder.working(), builder.serving():
            process = await builder.start_push(repository)
            await until(lambda: "shop" in builder.cluster.apps)
            await between.cut()
            with pytest.raises(Unavailable):
                await db.ping()
            builder.cluster.never.clear()
            await between.mend()
            _, said = await process.communicate()
        assert process.returncode == 0, said.decode()
        for line in ("Launching App...", "Done, shop:v2 deployed to Workflow"):
            assert said.decode().count(line) == 1
        assert await builder.releases() == [(2, "succeed")]
