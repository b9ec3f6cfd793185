"""An embedded install on disk without a running platform: real rows, images, repositories, lines, keys."""

import asyncio
import hashlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends.db import Database, open_database
from drycc.backends.logstore.base import Line
from drycc.backends.logstore.retention import Bounds
from drycc.backends.logstore.ring import LocalLogStore
from drycc.backends.objects import open_objects
from drycc.backends.objects.base import ObjectStore
from drycc.backup.archive import open_source
from drycc.backup.contents import read_contents
from drycc.backup.create import Platform
from drycc.backup.manifest import Manifest
from drycc.backup.restore import restore
from drycc.build.image.disk import digest_tree, read_complete, seal
from drycc.build.repository import Repositories
from drycc.core import apps, identity, releases
from drycc.core.identity import Identity
from drycc.core.models import App, Build, User
from drycc.core.secrets import Keyring
from drycc.kit.ids import now
from drycc.settings import Settings, load
from tests.conftest import MIGRATIONS
from tests.platform import Done, run

ODD = os.fsdecode(b"caf\xe9 & \xff")  # a name that is no UTF-8
BOUNDS = Bounds(1024 * 1024, 2**32, age=3600)
FSCK = ("fsck", "--full", "--strict", "--no-dangling")
Tree = dict[str, tuple[int, int, bytes]]


class Install:
    """`ann` owns what is added."""

    db: Database
    keyring: Keyring
    objects: ObjectStore
    ann: Identity

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        self.home = home
        self.environment = {"DRYCC_DATA": str(home / "data")} | dict(environment)
        self.settings: Settings = load(self.environment)
        self.data = Path(self.settings.data)
        self.repositories = Repositories(self.data / "repos", 2**20)
        self.commits = 0

    @property
    def platform(self) -> Platform:
        return Platform(self.settings, self.db, self.keyring, self.objects)

    @property
    def rows(self) -> Path:
        return self.data / "drycc.db"

    # what a platform makes

    async def add_app(self, name: str) -> UUID:
        await apps.create(self.db, self.keyring, self.ann, id=name)
        return (await apps.find(self.db, name)).uuid

    async def add_release(self, app: str, *, venv: str = "", state: str = "succeeded") -> int:
        """A commit in the app's repository, its image, and the rows; gives the build's id."""
        uuid = (await apps.find(self.db, app)).uuid
        sha = await asyncio.to_thread(self._commit, uuid)
        key = f"sources/{app}/{sha}.tar"
        await self.objects.put(key, _chunks(sha))
        id = await self._add_build(uuid, sha, key, state)
        if state == "succeeded":
            digest = await asyncio.to_thread(self._make_image, app, id, venv, sha)
            await self._add_release(uuid, id, app, digest)
            await self.objects.delete(key)
        return id

    async def destroy(self, app: str) -> None:
        """Its files first, its row last, then its repository: as the platform does."""
        found = await apps.find(self.db, app)
        await self._run(sa.update(App).where(App.uuid == found.uuid).values(is_destroyed=True))
        for kind in ("images", "venvs"):
            path = self.data / kind / app
            if path.exists():
                path.rename(path.with_name(f".removed-{app}"))
        for key in await self.objects.list(f"sources/{app}/"):
            await self.objects.delete(key)
        await self._run(sa.delete(App).where(App.uuid == found.uuid))
        await asyncio.to_thread(self.repositories.remove, [found.uuid])

    @asynccontextmanager
    async def logs(self) -> AsyncIterator[LocalLogStore]:
        async with LocalLogStore(self.data / "logs", BOUNDS) as store:
            yield store

    async def mark(self, text: str) -> None:
        """A row by which a moment is known."""
        await self._run(sa.insert(User).values(username=text, password="-"))

    # backups

    async def restore(self, source: Path | str) -> Manifest:
        opened = await open_source(str(source), self.objects)
        self.data.mkdir(exist_ok=True)
        return await restore(self.settings, self.rows, self.objects, opened, MIGRATIONS)

    async def dryccd(self, *argv: str | Path, crash: str = "") -> Done:
        """A command of the program with this install's settings."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith("DRYCC_")}
        environment = ours | self.environment | ({"DRYCC_CRASH": crash} if crash else {})
        return await run(sys.executable, "-m", "drycc", *argv, cwd=self.home, environment=environment)

    # pieces

    async def _run(self, statement: Any) -> None:
        async def body(session: AsyncSession) -> None:
            await session.execute(statement)

        await self.db.write(body)

    async def _add_build(self, app: UUID, sha: str, key: str, state: str) -> int:
        async def body(session: AsyncSession) -> int:
            build = Build(app_uuid=app, user_id=self.ann.id, sha=sha, source=key, state=state)
            session.add(build)
            await session.flush()
            return build.id

        return await self.db.write(body)

    async def _add_release(self, app: UUID, id: int, name: str, digest: str) -> None:
        async def body(session: AsyncSession) -> None:
            build = await session.get_one(Build, id)
            build.image, build.digest = f"{name}:{id}", digest
            row = await session.get_one(App, app)
            config = (await releases.latest(session, row)).config_uuid
            await releases.record(session, app, self.ann.id, build_id=id, config_uuid=config, summary=name)

        await self.db.write(body)

    def _make_image(self, app: str, id: int, venv: str, text: str) -> str:
        """Read-only, with a link, a program, a name that is no UTF-8, and its virtual environment."""
        image = self.data / "images" / app / str(id)
        tree = image / "tree"
        (tree / "empty").mkdir(parents=True)
        (tree / "app.py").write_text(text)
        (tree / ODD).write_bytes(os.urandom(3000))
        (tree / "run.sh").write_text("#!/bin/sh\n")
        (tree / "run.sh").chmod(0o755)
        (tree / "current").symlink_to("app.py")
        place = self._make_venv(app, venv) if venv else None
        complete = {"digest": digest_tree(tree, place or ""), "venv": place}
        seal(image, complete)
        return str(complete["digest"])

    def _make_venv(self, app: str, name: str) -> str:
        venv = self.data / "venvs" / app / name
        if not venv.exists():
            (venv / "bin").mkdir(parents=True)
            (venv / "bin" / "python").symlink_to(sys.executable)
            (venv / "lib.py").write_text(f"# {venv}")
            seal(venv, {"python": "3.11"})
        return str(venv)

    def _commit(self, app: UUID) -> str:
        """A new commit with a parent, kept as a push keeps it."""
        work, kept = self.home / "work" / str(app), self.repositories.open(app)
        self.commits += 1
        if not work.exists():
            work.mkdir(parents=True)
            git(work, "init", "-q", "-b", "main")
        (work / "file").write_text(f"{self.commits}\n" * 100)
        git(work, "add", ".")
        git(work, "commit", "-q", "-m", str(self.commits))
        sha = git(work, "rev-parse", "HEAD")
        git(work, "push", "-q", str(kept), f"{sha}:refs/drycc/commits/{sha}")
        return sha


@asynccontextmanager
async def open_install(home: Path, environment: Mapping[str, str] | None = None) -> AsyncIterator[Install]:
    install = Install(home, environment or {})
    async with open_database(install.settings.database_url) as db:
        await db.migrate(MIGRATIONS)
        install.db, install.keyring = db, Keyring.create(Path(install.settings.keyring))
        install.objects = await open_objects(install.settings.objects_url)
        await identity.create_user(db, "ann", "-", is_superuser=False)
        (row,) = await identity.list_users(db)
        install.ann = Identity(row.id, row.username)
        (install.data / "ssh").mkdir(parents=True)
        (install.data / "ssh" / "host_key").write_text("a key")
        yield install


async def write_lines(store: LocalLogStore, app: str, first: int, end: int) -> None:
    for number in range(first, end):
        await store.append(app, [Line(now(), "app", f"line {number}", "web", 1, f"{app}-web-1")])


async def read_lines(store: LocalLogStore, app: str) -> list[str]:
    return [line.text for line in (await store.read(app, limit=100_000)).lines]


def git(directory: Path, *argv: str) -> str:
    """Real git, without the user's configuration."""
    names = {f"GIT_{who}_{what}": "ann" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    environment = {"PATH": os.environ["PATH"], **names, **quiet}
    done = subprocess.run(
        ["git", *argv],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"git {' '.join(argv)}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def read_tables(file: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, as SQLite has it, read without changing the file."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        names = [
            name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")
        ]
        return {name: sorted(connection.execute(f"select * from {name}"), key=repr) for name in sorted(names)}


def read_tree(root: Path) -> Tree:
    """All below `root`: mode, time of the last change and content of each, by name; links as links."""
    found: Tree = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        if path.is_symlink():
            content = os.fsencode(path.readlink())
        else:
            content = b"" if path.is_dir() else hashlib.sha256(path.read_bytes()).digest()
        at = 0 if path.is_symlink() else int(status.st_mtime * 1000)
        found[os.fsencode(path.relative_to(root)).hex()] = (status.st_mode, at, content)
    return found


async def _chunks(text: str) -> AsyncIterator[bytes]:
    yield text.encode() * 100


def lose(install: Install) -> Path:
    """The data directory is gone from its place; gives where it can still be compared with."""
    lost = install.home / "lost"
    install.data.rename(lost)
    return lost


async def check_named(install: Install, *, but: int = 0) -> None:
    """All that the rows name is there: images by their digest, commits in repositories without a fault,
    sources; the image of one build is known to be gone."""
    contents = await read_contents(install.rows, now())
    digests = dict(read_digests(install.rows))
    for app, build in contents.images:
        if build != but:
            image = install.data / "images" / app / str(build)
            complete = read_complete(image)
            assert complete is not None, image
            assert digest_tree(image / "tree", complete["venv"] or "") == digests[build]
            assert complete["venv"] is None or Path(complete["venv"], "lib.py").read_text().endswith(
                complete["venv"]
            )
    for uuid, shas in contents.commits.items():
        repository = install.data / "repos" / f"{uuid}.git"
        assert git(repository, *FSCK) == ""
        assert shas <= set(git(repository, "for-each-ref", "--format=%(objectname)").split())
    assert contents.sources <= set(await install.objects.list("sources/"))


def read_digests(file: Path) -> list[tuple[int, str]]:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        return connection.execute("select id, digest from builds").fetchall()
