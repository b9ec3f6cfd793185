"""Ten minutes of pushes, config changes, scales and destroys, with 200 kills at random moments."""

import asyncio
import http.client
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from tests.e2e import apps
from tests.e2e.developer import Developer
from tests.e2e.load import loading
from tests.invariants import settle
from tests.platform import Answer, Platform
from tests.waiting import until

KILLS = 200
LONGEST = 4.0  # seconds between a start and the next kill
EARLY = 0.2  # of the kills hit the start itself
STEADY, PASSING = ("left", "right"), ("may", "june")
SETTINGS = {"DRYCC_BACKOFF": "0.1", "DRYCC_GRACE": "2"}


async def drill_storm() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}", flush=True)
    async with Platform(environment=SETTINGS) as platform:
        storm = Storm(platform, await Developer.join(platform), random.Random(seed))
        began = monotonic()
        print(await storm.rage(), f"in {monotonic() - began:.0f} s", flush=True)


@dataclass
class Storm:
    """`promised` is what was answered with success and not been taken back since, by app."""

    platform: Platform
    ann: Developer
    random: random.Random
    kills: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    values: dict[str, dict[str, str]] = field(default_factory=dict)
    replicas: dict[str, int | None] = field(default_factory=dict)  # None: nobody knows
    released: dict[str, list[int]] = field(default_factory=dict)
    pushed: int = 0

    async def rage(self) -> str:
        records = {app: self.platform.home / f"{app}.ids" for app in STEADY}
        repositories = {app: await self._begin(app, record) for app, record in records.items()}
        async with loading(self.platform, list(STEADY), clients=1) as load:
            async with asyncio.TaskGroup() as group:
                killing = group.create_task(self._kill())
                for app, repository in repositories.items():
                    group.create_task(self._change(app, repository, killing))
                for app in PASSING:
                    group.create_task(self._come_and_go(app, killing))
            await settle(self.platform)
        load.check(records)
        for app in STEADY:
            await self._check(app)
        done = ", ".join(f"{count} {what}" for what, count in sorted(self.counts.items()))
        return f"{self.kills} kills; {done}; {load.answered.total()} requests, 0 failed, each id once"

    async def _begin(self, app: str, record: Path) -> Path:
        repository = await self.ann.create(app)
        self.values[app], self.replicas[app], self.released[app] = {"RECORD": str(record)}, 1, []
        values = [{"name": "RECORD", "value": str(record), "group": "global"}]
        await self.ann.call("POST", f"apps/{app}/config/", {"values": values}, status=201)
        assert await self._push(app, repository), "the first push"
        return repository

    async def _kill(self) -> None:
        while self.kills < KILLS:
            await asyncio.sleep(self.random.uniform(0, LONGEST))
            await self.platform.kill()
            self.kills += 1
            if self.random.random() < EARLY:
                starting = asyncio.create_task(self.platform.start())
                await asyncio.sleep(self.random.uniform(0, 1))
                await self.platform.kill()
                with suppress(AssertionError):  # it is meant to end
                    await starting
                self.counts["kills of a start"] += 1
            await self.platform.start()

    # what developers do

    async def _change(self, app: str, repository: Path, killing: "asyncio.Task[None]") -> None:
        while not killing.done():
            act = self.random.choice(("push", "push", "config", "scale"))
            if act == "push":
                await self._push(app, repository)
            elif act == "config":
                await self._configure(app)
            else:
                await self._scale(app)

    async def _come_and_go(self, app: str, killing: "asyncio.Task[None]") -> None:
        repository = self.platform.home / "apps" / app
        repository.mkdir(parents=True)
        await self.platform.git("init", "-q", "-b", "main", cwd=repository)
        while not killing.done():
            self.released[app] = []
            await self._insist("POST", "apps/", {"id": app}, 201, 400)  # 400: it was done, and nobody heard
            for _ in range(self.random.randrange(3)):
                await self._push(app, repository)
            await self._insist("DELETE", f"apps/{app}/", None, 204, 404)
            self.counts["destroys"] += 1

    async def _push(self, app: str, repository: Path) -> bool:
        """What was told success serves at once; without a kill there is no other end."""
        self.pushed += 1
        kills, text = self.kills, f"{app} {self.pushed}"
        await self.platform.commit(repository, apps.answering(repr(text)))
        done = await self.platform.push(app, repository, code=None, key=self.ann.key)
        if done.code != 0:
            await until(self.platform.is_ready, within=60)
            assert self.kills > kills or "Connection refused" in done.err, f"{app}: {done}"
            self.counts["pushes cut"] += 1
            return False
        assert (await self.ann.get(app)).text == text
        self.released[app].append(int(done.err.rpartition(f"{app} v")[2].split()[0]))
        self.counts["pushes told success"] += 1
        return True

    async def _configure(self, app: str) -> None:
        name, value = f"V{self.random.randrange(20)}", str(self.random.random())
        values = [{"name": name, "value": value, "group": "global"}]
        if await self._ask("POST", f"apps/{app}/config/", {"values": values}, 201):
            self.values[app][name] = value
            self.counts["config changes"] += 1
        else:
            self.values[app].pop(name, None)

    async def _scale(self, app: str) -> None:
        wanted = self.random.randint(1, 3)
        is_done = await self._ask("POST", f"apps/{app}/ptypes/scale/", {"web": wanted}, 204)
        self.replicas[app] = wanted if is_done else None
        self.counts["scales"] += is_done

    async def _ask(self, method: str, path: str, body: Any, *expected: int) -> bool:
        """False when nobody knows whether it was done: the platform died, or was not there."""
        try:
            answer: Answer = await self.platform.api(method, f"/v2/{path}", body, self.ann.token)
        except (OSError, http.client.HTTPException):
            await until(self.platform.is_ready, within=60)
            return False
        assert answer.status in (*expected, 503), f"{method} {path}: {answer.status} {answer.text}"
        return answer.status in expected

    async def _insist(self, method: str, path: str, body: Any, *expected: int) -> None:
        async with asyncio.timeout(120):
            while not await self._ask(method, path, body, *expected):
                pass

    # what is true afterwards

    async def _check(self, app: str) -> None:
        """Everything that was promised is there."""
        found = (await self.ann.call("GET", f"apps/{app}/config/", status=200))["values"]
        assert self.values[app].items() <= {item["name"]: item["value"] for item in found}.items()
        for version in self.released[app]:
            release = await self.ann.call("GET", f"apps/{app}/releases/v{version}/", status=200)
            assert release["state"] == "succeed", release
        if self.replicas[app] is not None:
            assert len(await self.ann.pods(app)) == self.replicas[app]
