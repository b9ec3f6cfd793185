"""Users and a faulty world, step by step, beside the model of what shall come of it."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, ClassVar
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from drycc.core import apps, builds, configs, pipeline, releases, workloads
from drycc.core import models as rows
from drycc.core.configs import Change
from drycc.errors import Conflict, Invalid
from tests.core.expected import App, Build, Refused
from tests.core.faults import Kind
from tests.core.story import Story
from tests.core.world import World
from tests.waiting import until

NAMES = ("blog", "shop")
LANES = ("build", "deploy")
PROCFILES: tuple[dict[str, str], ...] = (
    {"web": "./serve"},
    {"web": "./serve", "worker": "./work"},
    {"web": "./serve", "release": "./migrate"},
    {"clock": "./tick", "worker": "./work", "release": "./migrate"},
)
PTYPES: st.SearchStrategy[list[str]] = st.one_of(
    st.just([]), st.lists(st.sampled_from(("web", "worker", "clock", "nope")), max_size=2, unique=True)
)
numbers = st.integers(0, 1)
calls = st.integers(1, 16)  # of a handler, to database and cluster


@dataclass
class Bench:
    """What all runs on one database share; `story` is taken for its ports only."""

    run: Callable[[Coroutine[Any, Any, Any]], Any]
    story: Story


class Platform(RuleBasedStateMachine):
    bench: ClassVar[Bench]
    steps: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.story = self.bench.story
        self.db = self.story.db
        self.world = World(self.story)
        self.user = self._do(self.world.join())

    def teardown(self) -> None:
        self._do(self.world.end())

    @invariant()
    def agrees(self) -> None:
        type(self).steps += 1
        self._do(self.world.compare())

    # ---- users

    @initialize(procfile=st.sampled_from(PROCFILES))
    def begin(self, procfile: dict[str, str]) -> None:
        """Two apps, of which one is live."""
        for number in range(len(NAMES)):
            self.create(number)
        self.push(0, procfile, "y")
        self.work(2)

    @rule(number=numbers)
    def create(self, number: int) -> None:
        name = NAMES[number % len(NAMES)]
        if name not in self.world.apps:
            self._do(apps.create(self.db, self.story.keyring, self.user, id=name))
            self.world.uuids[name] = self._do(apps.find(self.db, name)).uuid
            self.world.apps[name] = App(name, self.world.cluster.failing)

    @rule(number=numbers, procfile=st.sampled_from(PROCFILES), outcome=st.sampled_from("yyyybs"))
    def push(self, number: int, procfile: dict[str, str], outcome: str) -> None:
        if app := self._pick(number):
            self.story.app, self.story.user = self.world.uuids[app.name], self.user.id
            id = self._do(self.story.push(**procfile))
            app.push(Build(id, procfile, fails=outcome == "b", step_fails=outcome == "s"))

    @rule(number=numbers, which=st.integers(0, 3))
    def cancel_build(self, number: int, which: int) -> None:
        if (app := self._pick(number)) and len(app.builds) > which:
            build = app.builds[-1 - which]
            self._both(
                lambda: app.cancel(build),
                lambda: builds.cancel(self.db, self.story.nudges, build.id, "enough"),
            )

    @rule(
        number=numbers,
        name=st.sampled_from("AB"),
        value=st.sampled_from(("1", "2", None)),
        exits=st.booleans(),
    )
    def set_bad_config(self, number: int, name: str, value: str | None, exits: bool) -> None:
        for ptype in ("web", "worker", "clock"):
            self.break_next(number, ptype, exits)
        self.set_config(number, name, value)

    @rule(number=numbers, name=st.sampled_from("AB"), value=st.sampled_from(("1", "2", None)))
    def set_config(self, number: int, name: str, value: str | None) -> None:
        if app := self._pick(number):
            change = Change([{"name": name, "value": value, "group": "global"}])
            parts = (self.db, self.story.nudges, self.story.keyring, self.world.uuids[app.name], self.user)
            self._both(lambda: app.set_config(name, value), lambda: configs.change(*parts, change))

    @rule(number=numbers, ptype=st.sampled_from(("web", "worker", "clock")), count=st.integers(0, 3))
    def scale(self, number: int, ptype: str, count: int) -> None:
        if app := self._pick(number):
            uuid, counts = self.world.uuids[app.name], {ptype: count}
            self._both(
                lambda: app.scale(counts), lambda: workloads.scale(self.db, self.story.nudges, uuid, counts)
            )

    @rule(number=numbers, ptypes=PTYPES)
    def restart(self, number: int, ptypes: list[str]) -> None:
        if app := self._pick(number):
            uuid = self.world.uuids[app.name]
            self._both(
                lambda: app.restart(ptypes),
                lambda: workloads.restart(self.db, self.story.nudges, uuid, ptypes),
            )

    @rule(number=numbers, ptypes=PTYPES, force=st.booleans())
    def deploy(self, number: int, ptypes: list[str], force: bool) -> None:
        if app := self._pick(number):
            uuid = self.world.uuids[app.name]
            self._both(
                lambda: app.deploy(ptypes, force=force),
                lambda: releases.deploy(self.db, self.story.nudges, uuid, ptypes, force=force),
            )

    @rule(number=numbers, back=st.one_of(st.none(), st.integers(0, 2), st.integers(-1, 6)), ptypes=PTYPES)
    def roll_back(self, number: int, back: int | None, ptypes: list[str]) -> None:
        if app := self._pick(number):
            version = None if back is None else app.releases[-1].version - back
            who = (self.user.id, self.user.username)
            parts = (
                self.db,
                self.story.nudges,
                self.world.cluster,
                self.world.uuids[app.name],
                who,
                version,
                ptypes,
            )
            self._both(lambda: app.roll_back(version, ptypes), lambda: releases.rollback(*parts))

    @rule(number=numbers, setting=st.sampled_from(("autodeploy", "autorollback")))
    def switch(self, number: int, setting: str) -> None:
        if app := self._pick(number):
            value = not getattr(app, setting)
            setattr(app, setting, value)
            change = sa.update(rows.App).where(rows.App.id == app.name).values({setting: value})
            self._do(self.db.write(lambda session: session.execute(change)))

    @rule(number=st.integers(0, 9))
    def destroy(self, number: int) -> None:
        if number < 2 and (app := self._pick(number)):
            app.destroy()
            self._do(self._ask_to_destroy(app.name))

    async def _ask_to_destroy(self, name: str) -> None:
        app = await apps.find(self.db, name)
        asking = asyncio.create_task(apps.destroy(self.db, self.story.nudges, app))
        await until(lambda: self._is_being_destroyed(app.uuid))
        asking.cancel()
        await asyncio.wait([asking])

    async def _is_being_destroyed(self, app: UUID) -> bool:
        asked = sa.select(rows.Job.id).where(rows.Job.kind == "destroy", rows.Job.app_uuid == app)
        return bool(await self.db.read(asked))

    # ---- the world

    @rule(number=numbers, ptype=st.sampled_from(("web", "worker", "clock")), exits=st.booleans())
    def break_next(self, number: int, ptype: str, exits: bool) -> None:
        """The next release of the app will not start."""
        if app := self._pick(number):
            self.world.cluster.failing[app.name, ptype, len(app.releases) + 1] = exits

    @rule()
    def reconcile(self) -> None:
        """What another worker does at its start."""
        self._do(pipeline.reconcile(self.world.ports))

    @rule(at=calls, kind=st.sampled_from(("cut", "cut after")))
    def work_and_die(self, at: int, kind: Kind) -> None:
        self._work(kind, at)

    @rule(at=calls, kind=st.sampled_from(("freeze", "freeze after")))
    def work_and_stand_still(self, at: int, kind: Kind) -> None:
        self._work(kind, at)

    @rule(at=calls, kind=st.sampled_from(("away", "away after", "twice")))
    def work_beside_trouble(self, at: int, kind: Kind) -> None:
        self._work(kind, at)

    @rule(at=calls, kind=st.sampled_from(("cut", "freeze", "away after")), ptypes=PTYPES)
    def work_badly_and_be_taken_over(self, at: int, kind: Kind, ptypes: list[str]) -> None:
        """What somebody does who sees that nothing moves."""
        self._work(kind, at)
        self.deploy(0, ptypes, force=True)

    @rule(count=st.integers(1, 4))
    def work(self, count: int) -> None:
        for _ in range(count):
            self._work("none", 0)

    @rule(which=st.integers(0, 10))
    def thaw(self, which: int) -> None:
        self._do(self.world.thaw(which))

    def _pick(self, number: int) -> App | None:
        living = [app for app in self.world.apps.values() if not app.is_destroyed]
        return living[number % len(living)] if living else None

    def _both(self, modelled: Callable[[], None], real: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Done by both, or refused by both."""
        try:
            modelled()
        except Refused:
            with pytest.raises((Invalid, Conflict)):
                self._do(real())
        else:
            self._do(real())

    def _do(self, acting: Coroutine[Any, Any, Any]) -> Any:
        return self.bench.run(acting)

    def _work(self, kind: Kind, at: int) -> None:
        self._do(self.world.work(kind, at))
