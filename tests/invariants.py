"""What is true of a platform whenever nothing is under way, however it got there."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from drycc.backends.db import open_database
from drycc.core.models import App, Build, Job, Release, Workload
from tests.platform import Platform
from tests.waiting import until

TEMPORARY = ("tmp_objdir", ".part-", ".removed-")


async def check_invariants(platform: Platform) -> None:
    """No orphan, no lease, no half row, no temporary object; each pointer at a release that was recorded."""
    url = platform.database_url or f"sqlite+aiosqlite:///{platform.data}/drycc.db"
    async with open_database(url) as db:
        assert await _names(db, _unfinished_jobs) == [], "a job is still open"
        assert await _names(db, _open_builds) == [], "a build is neither open nor over"
        assert await _names(db, _gaps) == [], "releases have a gap"
        assert await _names(db, _succeeded_without_image) == [], "a release serves a build without an image"
        assert await _names(db, _strange_pointers) == [], "a workload points at another app's release"
        wanted = dict(await _pairs(db))
    assert (left := find_temporary(platform)) == [], f"temporary objects are left: {left}"
    running = count_pods(platform)
    assert running == {app: count for app, count in wanted.items() if count}, (running, wanted)


async def settle(platform: Platform) -> None:
    """Wait until nothing is under way and all of it is true."""

    async def is_quiet() -> bool:
        try:
            await check_invariants(platform)
        except AssertionError:
            return False
        return True

    try:
        await until(is_quiet, within=60)
    except TimeoutError:
        await check_invariants(platform)
        raise


def find_processes(platform: Platform) -> list[str]:
    """Command lines of pods and edge of this platform."""
    return [" ".join(command) for _, command in _ours(platform)]


def count_pods(platform: Platform) -> dict[str, int]:
    """Living pods by app: session leaders that carry our token."""
    counts: dict[str, int] = {}
    for environment, _ in _ours(platform):
        if app := environment.get("DRYCC_APP"):
            pod = environment["DRYCC_POD"]
            counts.setdefault(f"{app} {pod}", 1)
    by_app: dict[str, int] = {}
    for key in counts:
        by_app[key.split()[0]] = by_app.get(key.split()[0], 0) + 1
    return by_app


def find_temporary(platform: Platform) -> list[Path]:
    """What is half made, but in the trees of pods, which come and go."""
    found = []
    for parent, directories, files in os.walk(platform.seen_data):
        if Path(parent).parent.name == "pods":
            directories.clear()
        found += [Path(parent, name) for name in directories + files if name.startswith(TEMPORARY)]
    return found


def _ours(platform: Platform) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Environment and command of each process that carries this platform's token."""
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if directory.stat().st_uid != os.geteuid():
                continue
            raw = (directory / "environ").read_bytes().decode(errors="replace")
            command = (directory / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        environment = dict(item.split("=", 1) for item in raw.split("\0") if "=" in item)
        if environment.get("DRYCC_INSTANCE") == str(platform.data):
            yield environment, command


async def _names(db: Any, statement: sa.Executable) -> list[str]:
    return [" ".join(map(str, row)) for row in await db.read(statement)]


async def _pairs(db: Any) -> list[tuple[str, int]]:
    return [(row[0], int(row[1])) for row in await db.read(_wanted)]


_unfinished_jobs = sa.select(Job.id, Job.kind, Job.state).where(Job.state.in_(["queued", "running"]))
_open_builds = sa.select(Build.id, Build.state).where(
    sa.or_(Build.state.in_(["queued", "building"]), Build.finished.is_(None))
)
_gaps = (
    sa.select(Release.app_uuid, sa.func.max(Release.version))
    .group_by(Release.app_uuid)
    .having(sa.func.max(Release.version) != sa.func.count())
)
_succeeded_without_image = (
    sa.select(Release.uuid)
    .join(Build, Build.id == Release.build_id)
    .where(sa.or_(Build.image == "", Build.state != "succeeded"))
)
_strange_pointers = (
    sa.select(Workload.app_uuid, Workload.ptype)
    .outerjoin(Release, Release.uuid == Workload.release_uuid)
    .where(sa.or_(Release.uuid.is_(None), Release.app_uuid != Workload.app_uuid))
)
_wanted = (
    sa.select(App.id, sa.func.sum(Workload.replicas))
    .join(Workload, Workload.app_uuid == App.uuid)
    .where(~Workload.is_held)
    .group_by(App.id)
)
