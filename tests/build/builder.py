"""A builder and a worker in this process, over a model cluster, with users who have real git and ssh."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import sqlalchemy as sa

from drycc.backends.db import Database
from drycc.backends.nudges import open_nudges
from drycc.backends.nudges.base import Nudges
from drycc.backends.objects import open_objects
from drycc.backends.objects.base import ObjectStore
from drycc.build import role as builder
from drycc.core import apps, keys
from drycc.core.identity import Identity
from drycc.core.models import Base, Build, Release, User
from drycc.core.secrets import Keyring
from drycc.kit.aio import running
from drycc.settings import Settings, load
from drycc.worker import role as worker
from tests.cluster import ModelCluster
from tests.core.story import ListLog
from tests.platform import Done, run
from tests.postgres import free_port

WEB = {"Procfile": "web: python3 -m http.server $PORT\n", "README.md": "hello\n"}


class Builder:
    """`ann` owns the app `shop` and pushes with a key of hers; `bob` has a key and no app."""

    db: Database
    nudges: Nudges
    objects: ObjectStore
    keyring: Keyring

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.push_limit = 4 * 1024 * 1024
        self.cluster = ModelCluster()
        self.users: dict[str, Identity] = {}

    @property
    def settings(self) -> Settings:
        return load(
            {
                "DRYCC_DATA": str(self.home / "data"),
                "DRYCC_SSH_LISTEN": f"127.0.0.1:{self.port}",
                "DRYCC_PUSH_LIMIT": str(self.push_limit),
                "DRYCC_TREE_LIMIT": str(8 * self.push_limit),
            }
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """The SSH server alone."""
        needs = builder.Needs(self.settings, self.db, self.objects, self.nudges)
        async with builder.lifespan(needs):
            yield

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """A worker alone."""
        needs = worker.Needs(
            self.settings, self.db, self.keyring, self.cluster, self.objects, self.nudges, ListLog()
        )
        async with running(("worker", worker.Worker(needs).run)):
            yield

    # users and apps

    async def add_user(self, name: str) -> Identity:
        """A user with a key of theirs."""
        argv = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self.home / name))
        assert (await run(*argv, cwd=self.home, environment=self._environment())).code == 0

        async def body(session: Any) -> int:
            user = User(username=name, password="-")
            session.add(user)
            await session.flush()
            return user.id

        user = Identity(await self.db.write(body), name)
        await keys.add(self.db, user, name, (self.home / f"{name}.pub").read_text())
        self.users[name] = user
        return user

    async def deactivate(self, name: str) -> None:
        await self.db.write(
            lambda session: session.execute(
                sa.update(User).where(User.username == name).values(is_active=False)
            )
        )

    async def add_app(self, id: str, owner: str = "ann") -> None:
        await apps.create(self.db, self.keyring, self.users[owner], id=id)

    async def destroy_app(self, id: str) -> None:
        await apps.destroy(self.db, self.nudges, await apps.find(self.db, id))

    async def rows(self, model: type[Base]) -> list[Any]:
        async def body(session: Any) -> list[Any]:
            return list(await session.scalars(sa.select(model)))

        return await self.db.write(body)

    async def builds(self) -> list[tuple[str, str]]:
        """State and reason of each, in order."""
        return [(build.state, build.reason) for build in sorted(await self.rows(Build), key=lambda b: b.id)]

    async def releases(self) -> list[tuple[int, str]]:
        rows = sorted(await self.rows(Release), key=lambda r: r.version)
        return [(row.version, row.state) for row in rows if row.build_id]

    # git

    def _environment(self, user: str = "ann") -> dict[str, str]:
        ssh = (
            f"ssh -F /dev/null -i {self.home / user} -o IdentitiesOnly=yes -o BatchMode=yes"
            " -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        )
        who = {f"GIT_{role}_{part}": user for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
        return who | {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_SSH_COMMAND": ssh,
        }

    def remote(self, app: str = "shop") -> str:
        return f"ssh://git@127.0.0.1:{self.port}/{app}.git"

    async def git(self, *argv: str | Path, cwd: Path, user: str = "ann", code: int | None = 0) -> Done:
        done = await run("git", *argv, cwd=cwd, environment=self._environment(user), seconds=60)
        assert code is None or done.code == code, done
        return done

    async def ssh(self, *words: str, user: str = "ann", types: str = "") -> Done:
        options = self._environment(user)["GIT_SSH_COMMAND"].split()
        argv = (*options, "-p", str(self.port), "git@127.0.0.1", *words)
        return await run(*argv, cwd=self.home, environment=self._environment(user), types=types)

    async def make_repository(self, files: Mapping[str, str | bytes], name: str = "work") -> Path:
        repository = self.home / name
        repository.mkdir()
        await self.git("init", "-q", "-b", "main", cwd=repository)
        await self.commit(repository, files)
        return repository

    async def commit(self, repository: Path, files: Mapping[str, str | bytes]) -> str:
        for path, content in files.items():
            target = repository / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.encode() if isinstance(content, str) else content)
        await self.git("add", "-A", cwd=repository)
        await self.git("commit", "-q", "--allow-empty", "-m", "a change", cwd=repository)
        return (await self.git("rev-parse", "HEAD", cwd=repository)).out.strip()

    async def push(
        self,
        repository: Path,
        *refs: str,
        app: str = "shop",
        options: tuple[str, ...] = (),
        user: str = "ann",
        code: int | None = 0,
    ) -> str:
        """What the pusher reads."""
        chosen = [word for option in options for word in ("-o", option)]
        argv = ("push", *chosen, self.remote(app), *(refs or ("main",)))
        return (await self.git(*argv, cwd=repository, user=user, code=code)).err

    async def start_push(self, repository: Path, *argv: str) -> asyncio.subprocess.Process:
        """A push that goes on by itself."""
        return await asyncio.create_subprocess_exec(
            *("git", "push", *argv, self.remote(), "main"),
            cwd=repository,
            env=self._environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )


async def open_builder(db: Database, home: Path) -> Builder:
    made = Builder(home)
    made.db = db
    made.nudges = await open_nudges("memory:")
    made.objects = await open_objects(f"file://{home}/objects")
    made.keyring = Keyring.create(home / "keyring")
    await made.add_user("ann")
    await made.add_user("bob")
    await made.add_app("shop")
    return made


@asynccontextmanager
async def connect(
    builder: Builder, *names: str, **options: Any
) -> AsyncIterator[asyncssh.SSHClientConnection]:
    client_keys = [str(builder.home / name) for name in names or ("ann",)]
    async with asyncssh.connect(
        "127.0.0.1",
        builder.port,
        username="git",
        client_keys=client_keys,
        known_hosts=None,
        config=[],
        **options,
    ) as connection:
        yield connection
