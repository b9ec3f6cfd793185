"""Workers that stand still, that are killed by a job, that nobody nudges: real processes on one database."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import sqlalchemy as sa

from drycc.core import jobs
from drycc.core.models import Base
from tests.conftest import MIGRATIONS
from tests.waiting import until
from tests.worker.driver import POISON
from tests.worker.fleet import Fleet, Process, open_fleet
from tests.worker.user import User

SLACK = 0.5  # seconds that a look may take on a busy machine


@pytest.fixture
async def fleet(db_url: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with open_fleet(db_url, tmp_path, MIGRATIONS, lease=1.0) as fleet:
        yield fleet


@pytest.fixture
async def ann(fleet: Fleet) -> User:
    return await User.join(fleet)


async def dump(fleet: Fleet) -> dict[str, list[Any]]:
    """Every row of every table."""
    tables = Base.metadata.sorted_tables
    return {table.name: sorted(map(str, await fleet.db.read(sa.select(table)))) for table in tables}


async def stop_before(fleet: Fleet, call: str) -> Process:
    """The worker that is about to ask this of the cluster, and stands still."""
    (fleet.directory / "wait-before").write_text(call)
    file: Path = await until(lambda: next(fleet.directory.glob("waits-*"), None))
    found = next(one for one in fleet.workers if file.name == f"waits-{one.pid}")
    await fleet.stop(found)
    file.unlink()
    return found


@pytest.mark.parametrize("call", ["pods.run", "workloads.apply", "workloads.observe"])
async def test_mq04_a_worker_stopped_past_its_lease_changes_nothing(
    fleet: Fleet, ann: User, call: str
) -> None:
    shop = await ann.create("shop")
    for worker in (await fleet.start(), await fleet.start()):
        await until(lambda: "takes jobs" in worker.log())  # noqa: B023
    stopping = asyncio.create_task(stop_before(fleet, call))
    await ann.push(shop, web="./serve", release="./migrate")
    late = await stopping
    await until(ann.is_quiet)  # the other worker took over
    await ann.set_config(shop, "LATER", "1")
    await until(ann.is_quiet)
    rows, counts = await dump(fleet), await fleet.cluster.link.control()
    fleet.go_on(late)
    await until(lambda: "no longer ours" in late.log())
    assert await dump(fleet) == rows
    after = await fleet.cluster.link.control()
    assert (after.started, after.changed) == (counts.started, counts.changed)
    assert set(after.started.values()) == {1}
    assert after.refused == ({call: 1} if call != "workloads.observe" else {})
    await ann.set_config(shop, "LAST", "1")  # and both go on
    await until(ann.is_quiet)
    assert await ann.find_release(shop, 4) == ("succeed", None)


async def test_mq04_a_late_destroy_leaves_the_next_app_of_the_name_alone(fleet: Fleet, ann: User) -> None:
    old = await ann.create("shop")
    await fleet.start()
    await ann.push(old, web="./serve")
    await until(ann.is_quiet)
    stopping = asyncio.create_task(stop_before(fleet, "workloads.remove"))
    await ann.ask_to_destroy("shop")
    late = await stopping
    await fleet.start()
    await until(lambda: ann.is_gone(old))
    new = await ann.create("shop")
    await ann.push(new, web="./serve")
    await until(ann.is_quiet)
    fleet.go_on(late)
    await until(lambda: "no longer ours" in late.log())
    assert (await fleet.cluster.workloads.observe("shop")).workloads["web"].serving == 1
    assert (await fleet.cluster.link.control()).refused == {"workloads.remove": 1}
    await ann.scale(new, web=2)
    await until(ann.is_quiet)
    assert (await fleet.cluster.workloads.observe("shop")).workloads["web"].serving == 2


async def test_mq05_a_job_that_kills_the_process_is_set_aside_and_others_go_on(
    fleet: Fleet, ann: User
) -> None:
    names = [POISON, *(f"app{n}" for n in range(6))]
    created = {name: await ann.create(name) for name in names}
    for app in created.values():
        await ann.push(app, web="./serve")
    deaths, fleet.lease = 0, 60.0
    workers = [await fleet.start(), await fleet.start()]
    while not await ann.is_quiet():
        dead = [worker for worker in workers if not worker.is_alive]
        for worker in dead:  # as systemd would
            await fleet.kill(worker)
            workers[workers.index(worker)] = await fleet.start(worker.data)
        deaths += len(dead)
        await asyncio.sleep(0.01)
    reason = (
        f"error: set aside: {jobs.MOST_ATTEMPTS} times in a row the platform ended soon after it began this"
    )
    assert await ann.find_release(created.pop(POISON), 2) == ("crashed", reason)
    for app in created.values():
        assert await ann.find_release(app, 2) == ("succeed", None)
    assert deaths == jobs.MOST_ATTEMPTS


async def test_mq02_without_a_broker_the_answer_is_quick_and_work_starts_by_the_timer(
    fleet: Fleet, ann: User
) -> None:
    shop = await ann.create("shop")
    worker = await fleet.start()
    await until(lambda: "takes jobs" in worker.log())
    await ann.push(shop, web="./serve")
    await until(ann.is_quiet)
    began = monotonic()
    await ann.set_config(shop, "X", "1")
    answered = monotonic() - began
    await until(ann.is_quiet)
    assert answered < 0.5
    assert monotonic() - began < 1 + 2 * SLACK
    await fleet.kill(worker)
    await ann.set_config(shop, "X", "2")  # nobody is there to hear of it
    await fleet.start()
    await until(ann.is_quiet)
    assert await ann.find_release(shop, 4) == ("succeed", None)


async def test_a_forced_deploy_takes_over_from_a_worker_that_does_not_answer(fleet: Fleet, ann: User) -> None:
    shop = await ann.create("shop")
    fleet.lease = 60.0
    for _ in range(2):
        await fleet.start()
    await fleet.cluster.link.control(never=[["web", 2]])
    await ann.push(shop, web="./serve")
    stopping = asyncio.create_task(stop_before(fleet, "workloads.observe"))
    late = await stopping
    await fleet.cluster.link.control(never=[])
    began = monotonic()
    await ann.deploy(shop, force=True)
    await until(ann.is_quiet, within=20)
    assert monotonic() - began < jobs.FORCED_WITHIN + 2 + SLACK
    assert await ann.find_release(shop, 2) == ("succeed", None)
    fleet.go_on(late)
