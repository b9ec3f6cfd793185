"""What a platform consists of on disk, by the rows of a snapshot, and which files of it are taken."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote
from uuid import UUID

import sqlalchemy as sa

from drycc.backends.db import open_database
from drycc.backup.parts import list_tree
from drycc.core import builds
from drycc.core.models import App, Build, Release

_LOOSE = re.compile(r"[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Contents:
    """What the rows name. An image or a repository that is named may be absent all the same."""

    at: datetime
    revision: str
    images: frozenset[tuple[str, int]]  # app and build
    commits: Mapping[UUID, frozenset[str]]  # by app
    sources: frozenset[str]  # keys in the ObjectStore
    apps: frozenset[str]


async def read_contents(snapshot: Path, at: datetime) -> Contents:
    """`at` is when the snapshot was taken."""
    async with open_database(f"sqlite+aiosqlite:///{quote(str(snapshot))}") as db:
        images = [(row.id, row.build_id) for row in await db.read(_images) if _is_ours(row)]
        commits: dict[UUID, set[str]] = {}
        for row in await db.read(_commits):
            commits.setdefault(row.app_uuid, set()).add(row.sha)
        sources = {row.source for row in await db.read(_sources)}
        apps = {row.id for row in await db.read(_apps)}
        revision = await db.revision()
    found = {app: frozenset(shas) for app, shas in commits.items()}
    return Contents(at, str(revision), frozenset(images), found, frozenset(sources), frozenset(apps))


def list_repository(root: Path) -> Iterator[str]:
    """References before objects, loose objects before packs: whoever pushes or tidies meanwhile, all that
    the references need is there. What git makes again by itself is left out."""
    yield "."
    yield "objects"
    yield "refs"
    for name in list_tree(root / "refs"):
        if name != "." and not name.endswith(".lock"):
            yield f"refs/{name}"
    for name in ("packed-refs", "shallow", "HEAD", "config"):
        if (root / name).exists():
            yield name
    for directory in sorted((root / "objects").iterdir()):
        if _LOOSE.fullmatch(directory.name):
            yield f"objects/{directory.name}"
            yield from (
                f"objects/{directory.name}/{file.name}" for file in sorted(directory.glob("[0-9a-f]*"))
            )
    yield "objects/pack"
    for index in sorted((root / "objects" / "pack").glob("*.idx")):  # with it git sees the pack
        yield f"objects/pack/{index.stem}.pack"
        yield f"objects/pack/{index.name}"


def read_commits(root: Path) -> frozenset[str]:
    """Commits that the repository keeps: those that a reference is named by."""
    packed = root / "packed-refs"
    names = [line.split()[-1] for line in packed.read_text().splitlines()] if packed.exists() else []
    names += [file.name for file in (root / "refs" / "drycc").rglob("*")]
    return frozenset(name.rpartition("/")[2] for name in names)


def list_log(root: Path) -> Iterator[str]:
    """Segments, oldest first: they are appended to, so each is whole up to where it ends now."""
    yield "."
    for file in sorted(root.glob("*.log")):
        yield file.name


def list_host_key(root: Path) -> Iterator[str]:
    yield "."
    yield from (file.name for file in sorted(root.iterdir()) if file.is_file())


def _is_ours(row: sa.Row[tuple[str, int, str]]) -> bool:
    """A release may name an image that is none of this platform's."""
    return bool(row.image == f"{row.id}:{row.build_id}")


_images = (
    sa.select(App.id, Release.build_id, Build.image)
    .join(Release, Release.app_uuid == App.uuid)
    .join(Build, Build.id == Release.build_id)
    .where(~App.is_destroyed)
    .distinct()
)
_commits = (
    sa.select(Build.app_uuid, Build.sha)
    .join(App, App.uuid == Build.app_uuid)
    .where(~App.is_destroyed, Build.sha != "", Build.source != "")
    .distinct()
)
_sources = (
    sa.select(Build.source)
    .join(App, App.uuid == Build.app_uuid)
    .where(~App.is_destroyed, Build.state.in_(builds.OPEN))
)
_apps = sa.select(App.id).where(~App.is_destroyed)
