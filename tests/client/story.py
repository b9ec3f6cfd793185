"""Tells the table as one story to a live platform: rows to whoever speaks, pushes by git in between."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from tests.client.prints import short
from tests.client.table import Push, Row, Settled, Step
from tests.client.twin import Said, differs
from tests.platform import PASSWORD, Platform, until, web_app

USER = "alice"
APP = "shop"


class Speaker(Protocol):
    """The twin or the official client."""

    facts: dict[str, str]
    faults: list[str]

    async def say(self, row: Row) -> Said: ...


@dataclass
class Story:
    """One platform, one user, one app."""

    platform: Platform
    repository: Path
    admin: str
    pods: set[str] = field(default_factory=set)

    def facts(self, client: str, controller: str, home: Path) -> dict[str, str]:
        assert self.platform.key is not None
        public = self.platform.key.with_suffix(".pub")
        first, *rest = str(urlsplit(controller).hostname).split(".")
        return {
            "client": client,
            "controller": controller,
            "builder": ".".join([f"{first}-builder", *rest]),
            "home": str(home),
            "user": USER,
            "password": PASSWORD,
            "app": APP,
            "key_name": "laptop",
            "key_file": str(public),
            "key_base": public.name,
            "public": public.read_text().strip(),
            "key_short": short(public.read_text().strip()),
        }

    async def tell(self, steps: Sequence[Step], speaker: Speaker) -> None:
        """Every row, whatever became of the ones before; what differs is in the speaker's `faults`."""
        for step in steps:
            try:
                await self.take(step, speaker)
            except (AssertionError, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
                name = step.typed if isinstance(step, Row) else step
                speaker.faults.append(f"{name}: {type(error).__name__}: {error}")
                if not isinstance(step, Row):
                    break

    async def take(self, step: Step, speaker: Speaker) -> None:
        if isinstance(step, Row):
            said = await speaker.say(step)
            speaker.faults += differs(step, said, speaker.facts)
        elif isinstance(step, Push):
            sha = await self.platform.commit(self.repository, web_app(step.version, "GREETING"))
            await self.platform.push(APP, self.repository)
            speaker.facts["sha7"] = sha[:7]
        else:
            await self.settle(step)

    async def settle(self, step: Settled) -> None:
        """Wait for the roll-out that goes on after an answer."""

        async def is_settled() -> bool:
            path = f"/v2/apps/{APP}"
            release = await self.get(f"{path}/releases/v{step.release}/")
            if release["state"] != "succeed" or len(release["conditions"]) < step.deployed:
                return False
            pods = (await self.get(f"{path}/pods/"))["results"]
            found = {pod["name"] for pod in pods}
            wanted = [(f"v{step.pods_of or step.release}", "up")] * step.web
            is_old = step.is_fresh and found & self.pods
            if is_old or [(pod["release"], pod["state"]) for pod in pods] != wanted:
                return False
            self.pods = found
            return True

        await until(is_settled, 30, str(step))

    async def get(self, path: str) -> Any:
        return (await self.platform.api("GET", path, token=self.admin)).json()


async def begin(platform: Platform) -> Story:
    """A platform with a user, a key that it doesn't know, and a repository that nobody has pushed."""
    await platform.add_user(USER)
    await platform.make_key("laptop")
    repository = await platform.make_app(APP)
    return Story(platform, repository, await platform.login())
