"""Making a backup while the platform serves.

Rows come first, files after them: what a snapshot of the database names was on disk at that moment.
Should something of it be gone before it was copied (its app was destroyed, its image collected), the
rows are taken again, until all that they name is there. So nothing has to wait for a backup.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event
from uuid import UUID

import sqlalchemy as sa

from drycc import __version__
from drycc.backends.db import Database
from drycc.backends.objects import find_directory
from drycc.backends.objects.base import ObjectStore
from drycc.backup import archive, manifest
from drycc.backup.archive import Target
from drycc.backup.contents import (
    Contents,
    list_host_key,
    list_log,
    list_repository,
    read_commits,
    read_contents,
)
from drycc.backup.manifest import DATABASE, OBJECT, OBJECTS, TREE, Manifest, Part
from drycc.backup.parts import list_tree, pack_file, pack_tree
from drycc.core.models import App
from drycc.core.secrets import Keyring
from drycc.errors import Invalid, NotFound, Unavailable
from drycc.kit.crash import point
from drycc.kit.files import read_json
from drycc.kit.ids import now
from drycc.settings import Settings

ROUNDS = 5  # of taking the rows and copying what they name
TRIES = 5  # for a directory in which files come and go
NO_APP = "_"  # the log that says how far the edge's access lines are read
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")  # how an address begins
NAMED = ("sources/", archive.PREFIX)  # objects that are copied only when a row names them


@dataclass(frozen=True, slots=True)
class Platform:
    """What a backup is made of."""

    settings: Settings
    db: Database
    keyring: Keyring
    objects: ObjectStore

    @property
    def data(self) -> Path:
        return Path(self.settings.data)

    @property
    def spools(self) -> Path:
        """Where backups under way keep what is not handed over yet."""
        return self.data / "backup"

    @property
    def is_on_one_disk(self) -> bool:
        """Whether the ObjectStore would be lost together with the data directory."""
        return find_directory(self.settings.objects_url).is_relative_to(self.data)


async def create_backup(platform: Platform, target: str) -> tuple[str, Manifest]:
    """Make a backup in the directory `target`, or in the ObjectStore for `objects:`; says where it is.

    It is there whole and durable, or not at all. Raises `Invalid` for a database on a server.
    """
    platform.db.file()
    name = archive.make_name(now())
    try:
        with archive.open_spool(platform.spools, name) as spool:
            async with _open_target(platform, target, spool, name) as opened:
                made = await _Copy(platform, opened, spool / "snapshot.db").run()
                point("backup.copied")
                await opened.finish(manifest.dump(made))
                point("backup.finished")
                return opened.shown, made
    except OSError as error:
        raise Unavailable(f"the backup cannot be written: {error}") from error


@asynccontextmanager
async def _open_target(platform: Platform, target: str, spool: Path, name: str) -> AsyncIterator[Target]:
    async with AsyncExitStack() as stack:
        if target == archive.STORE:
            await archive.sweep_stored(platform.objects, platform.spools)
            yield await stack.enter_async_context(archive.open_store(platform.objects, spool, name))
            return
        if not target or _SCHEME.match(target):
            raise Invalid(
                f"{target!r} is no place for a backup: name a directory, with ./ before a name that begins "
                f"like an address, or {archive.STORE} for the object store"
            )
        parent = Path(await asyncio.to_thread(os.path.realpath, target))
        if parent.is_relative_to(await asyncio.to_thread(platform.data.resolve)):
            raise Invalid(f"{parent} is in the data directory: name a directory elsewhere, on another disk")
        yield stack.enter_context(archive.open_directory(parent, name))


@dataclass
class _Copy:
    """One backup so far: its parts, and which of them make up what rows name."""

    platform: Platform
    target: Target
    snapshot: Path
    parts: dict[str, Part] = field(default_factory=dict)
    images: dict[str, list[str]] = field(default_factory=dict)  # an image's parts
    commits: dict[UUID, frozenset[str]] = field(default_factory=dict)  # of the repositories that are copied

    async def run(self) -> Manifest:
        contents = await self._copy_rows_and_named()
        await self._pack(DATABASE, partial(pack_file, self.snapshot))
        for app in sorted({*contents.apps, NO_APP}):
            await self._pack_tree(f"logs/{app}", list_log, may_vanish=True)
        access = await asyncio.to_thread(_size, self.platform.data / "edge" / "access")
        await self._pack_tree("ssh", list_host_key)
        return Manifest(
            at=contents.at.isoformat(),
            version=__version__,
            revision=contents.revision,
            data=self.platform.settings.data,
            keyring=self.platform.settings.keyring,
            keys=self.platform.keyring.ids,
            access=access,
            parts=dict(sorted(self.parts.items())),
        )

    async def _copy_rows_and_named(self) -> Contents:
        absent: set[str] = set()
        for _ in range(ROUNDS):
            await asyncio.to_thread(self.snapshot.unlink, missing_ok=True)
            at = now()
            await self.platform.db.snapshot(self.snapshot)
            point("backup.snapshot")
            contents = await read_contents(self.snapshot, at)
            wanted, missing = await self._copy_named(contents)
            if missing <= absent:  # and they were before this snapshot: the platform lacks them itself
                for name in self.parts.keys() - wanted:
                    await self._drop(name)
                return contents
            absent |= missing
        raise Unavailable("the platform changes faster than it is copied; try again")

    async def _copy_named(self, contents: Contents) -> tuple[set[str], set[str]]:
        """Copy what is named and not copied yet; gives the parts that belong, and what is missing."""
        wanted: set[str] = set()
        missing: set[str] = set()
        async for item, parts in self._copy_each(contents):
            wanted.update(parts)
            if not parts:
                missing.add(item)
        return wanted, missing

    async def _copy_each(self, contents: Contents) -> AsyncIterator[tuple[str, list[str]]]:
        """Everything that is named, with its parts: none when it is not there."""
        for app, build in sorted(contents.images):
            yield f"{app}:{build}", await self._copy_image(app, build)
        for uuid, shas in contents.commits.items():
            yield str(uuid), await self._copy_repository(uuid, shas)
        others = [key for key in await self.platform.objects.list("") if not key.startswith(NAMED)]
        for key in sorted({*contents.sources, *others}):
            yield key, await self._copy_object(key)

    async def _copy_image(self, app: str, build: int) -> list[str]:
        """The image, and the virtual environment that it names."""
        image = f"images/{app}/{build}"
        if image not in self.images:
            complete = await asyncio.to_thread(read_json, self.platform.data / image / "complete")
            venv = (complete or {}).get("venv")
            directories = [image, *([f"venvs/{app}/{Path(venv).name}"] if venv else [])]
            for directory in directories:
                if complete is None or not await self._pack_tree(directory, list_tree):
                    return []
            self.images[image] = [directory + TREE for directory in directories]
        return self.images[image]

    async def _copy_repository(self, app: UUID, shas: frozenset[str]) -> list[str]:
        """The app's repository, again when an earlier copy lacks one of these commits."""
        directory = f"repos/{app}.git"
        if not shas <= self.commits.get(app, frozenset()):
            if directory + TREE in self.parts:
                await self._drop(directory + TREE)
            known = await asyncio.to_thread(read_commits, self.platform.data / directory)
            if not shas <= known or not await self._pack_tree(directory, list_repository):
                return []
            if await self.platform.db.read_one(_alive, app=app) is None:
                return []  # and so its files may have been going one after another
            self.commits[app] = known
        return [directory + TREE]

    async def _copy_object(self, key: str) -> list[str]:
        name = OBJECTS + key + OBJECT
        if name not in self.parts:
            try:
                await self._pack(name, partial(pack_file, await self.platform.objects.path(key)))
            except (NotFound, FileNotFoundError):
                return []
        return [name]

    async def _pack_tree(
        self, directory: str, names: Callable[[Path], Iterable[str]], *, may_vanish: bool = False
    ) -> bool:
        """Whether the directory is there; packs it unless that is done."""
        root = self.platform.data / directory
        for _ in range(TRIES):
            if directory + TREE in self.parts:
                return True
            if not await asyncio.to_thread(root.is_dir):
                return False
            try:
                await self._pack(directory + TREE, partial(pack_tree, root, names, may_vanish=may_vanish))
            except FileNotFoundError:
                continue
        raise Unavailable(f"{root} changes faster than it is copied; try again")

    async def _pack(self, name: str, pack: Callable[[Path, Event], Part]) -> None:
        part = await _run_in_thread(pack, self.target.directory / name)
        await self.target.keep(name)
        self.parts[name] = part

    async def _drop(self, name: str) -> None:
        await self.target.drop(name)
        del self.parts[name]


async def _run_in_thread(pack: Callable[[Path, Event], Part], target: Path) -> Part:
    """When we are cancelled the thread ends at its next write, and is waited for."""
    stop = Event()
    work = asyncio.create_task(asyncio.to_thread(pack, target, stop))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([work])
        raise


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


_alive = sa.select(App.uuid).where(App.uuid == sa.bindparam("app"), ~App.is_destroyed)
