"""A developer at work on one platform: an account, a key, repositories, and the calls of the client."""

from pathlib import Path
from typing import Any

from tests.platform import Answer, Done, Platform
from tests.waiting import until


class Developer:
    """`ann` by default, with a token and a key of her own."""

    def __init__(self, platform: Platform, token: str, key: Path) -> None:
        self.platform = platform
        self.token = token
        self.key = key

    @classmethod
    async def join(cls, platform: Platform, name: str = "ann") -> "Developer":
        await platform.add_user(name)
        token = await platform.login(name)
        return cls(platform, token, await platform.add_key(token, f"{name}-laptop"))

    async def call(self, method: str, path: str, body: Any = None, *, status: int) -> Any:
        """One call of the API below `/v2/`; gives the JSON, None for an empty body."""
        answer = await self.platform.api(method, f"/v2/{path}", body, self.token)
        assert answer.status == status, f"{method} {path}: {answer.status} {answer.text}"
        return answer.json() if answer.body else None

    async def create(self, app: str) -> Path:
        """The app, and an empty repository for it."""
        await self.call("POST", "apps/", {"id": app}, status=201)
        repository = self.platform.home / "apps" / app
        repository.mkdir(parents=True)
        await self.platform.git("init", "-q", "-b", "main", cwd=repository)
        return repository

    async def push(self, app: str, repository: Path, files: dict[str, str], *, code: int | None = 0) -> Done:
        """Commit these files and push them."""
        await self.platform.commit(repository, files)
        return await self.platform.push(app, repository, code=code, key=self.key)

    async def get(self, app: str, path: str = "/") -> Answer:
        return await self.platform.app_get(app, path)

    async def release(self, app: str) -> dict[str, Any]:
        """The newest release."""
        found: dict[str, Any] = (await self.call("GET", f"apps/{app}/releases/", status=200))["results"][0]
        return found

    async def released(self, app: str, version: int, state: str = "succeed") -> None:
        """Wait until that release has come to this state."""
        path = f"apps/{app}/releases/v{version}/"

        async def is_there() -> bool:
            answer = await self.platform.api("GET", f"/v2/{path}", None, self.token)
            return answer.status == 200 and answer.json()["state"] == state

        await until(is_there, within=60)

    async def pods(self, app: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.call("GET", f"apps/{app}/pods/", status=200))["results"]
        return found
