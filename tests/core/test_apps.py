"""Apps beneath the API: names, and a destroy that waits."""

import asyncio
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends.db import Database
from drycc.backends.nudges.memory import MemoryNudges
from drycc.core import apps
from drycc.core.identity import Identity
from drycc.core.models import App, Job, User
from drycc.core.secrets import Keyring
from drycc.errors import Invalid, NotFound, Unavailable

RESERVED = {"billing", ""}


@pytest.mark.parametrize("id", ["a", "a1", "a-b", "a" * 63, "my--app", "dryccs", "kubernetes", "billing2"])
def test_names_that_are_taken(id: str) -> None:
    apps.check_id(id, RESERVED)


@pytest.mark.parametrize(
    ("id", "texts"),
    [
        ("x2021_02", [apps.RULE]),
        ("-a", [apps.RULE]),
        ("a-", [apps.RULE]),
        ("9", [apps.RULE]),
        ("é", [apps.RULE, apps.SLUG]),
        ("a\n", [apps.RULE, apps.SLUG]),
        ("a" * 64, ["Ensure this field has no more than 63 characters."]),
        ("A" * 64 + ".", [apps.RULE, "Ensure this field has no more than 63 characters.", apps.SLUG]),
        ("billing", ["billing is a reserved name."]),
        ("drycc", ["drycc is a reserved name."]),
        ("kube-dns", ["kube-dns is a reserved name."]),
    ],
)
def test_nm02_nm03_names_that_are_refused_with_all_reasons(id: str, texts: list[str]) -> None:
    with pytest.raises(Invalid) as refused:
        apps.check_id(id, RESERVED)
    assert (refused.value.field, list(refused.value.texts)) == ("id", texts)


async def make_app(db: Database, directory: Path) -> apps.AppRef:
    async def body(session: AsyncSession) -> Identity:
        user = User(username="ann", password="-")
        session.add(user)
        await session.flush()
        return Identity(user.id, "ann")

    keyring = await asyncio.to_thread(Keyring.create, directory / "keyring")
    id = await apps.create(db, keyring, await db.write(body), id="shop")
    return await apps.find(db, id)


async def remove(db: Database, nudges: MemoryNudges, app: UUID) -> None:
    """What a worker does at the end of a destroy."""

    async def body(session: AsyncSession) -> None:
        await session.execute(sa.delete(App).where(App.uuid == app))

    await db.write(body)
    await nudges.send(apps.TOPIC, str(app))


async def test_destroy_returns_when_the_row_is_gone(db: Database, tmp_path: Path) -> None:
    app, nudges = await make_app(db, tmp_path), MemoryNudges()
    async with nudges.subscribe("jobs") as woken:
        both = [asyncio.create_task(apps.destroy(db, nudges, app)) for _ in range(2)]
        await anext(woken)
        with pytest.raises(NotFound):
            await apps.find(db, "shop")
        assert (await apps.find(db, "shop", even_destroyed=True)).is_destroyed
        assert not any(task.done() for task in both)
        await remove(db, nudges, app.uuid)
    async with asyncio.timeout(0.9):  # told, not found by the timer
        await asyncio.gather(*both)
    await apps.destroy(db, nudges, app)


async def test_a_destroy_has_a_deadline_and_one_job(db: Database, tmp_path: Path) -> None:
    app, nudges = await make_app(db, tmp_path), MemoryNudges()
    for _ in range(3):
        with pytest.raises(Unavailable, match="Could not delete Kubernetes Namespace shop within 0"):
            await apps.destroy(db, nudges, app, deadline=0.05)
    jobs = await db.read(sa.select(Job.kind, Job.state))
    assert [tuple(job) for job in jobs] == [("destroy", "queued")]
    await db.write(lambda session: session.execute(sa.update(Job).values(state="failed")))
    with pytest.raises(Unavailable):
        await apps.destroy(db, nudges, app, deadline=0.05)
    jobs = await db.read(sa.select(Job.state).order_by(Job.id))
    assert [job.state for job in jobs] == ["failed", "queued"], "one that was given up is tried again"


async def test_a_lost_nudge_costs_a_second_and_not_the_answer(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apps, "LOOK_AGAIN", 0.02)
    app, nudges = await make_app(db, tmp_path), MemoryNudges()
    waiting = asyncio.create_task(apps.destroy(db, nudges, app))
    await remove(db, MemoryNudges(), app.uuid)  # its nudge goes elsewhere
    async with asyncio.timeout(5):
        await waiting
