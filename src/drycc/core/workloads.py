"""Workloads: the desired state of each process type, as rows and as the `AppSpec` that they mean."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends.cluster.base import AppSpec, RouteTable, WorkloadSpec
from drycc.backends.db import Database
from drycc.backends.nudges.base import Nudges
from drycc.core import jobs, releases
from drycc.core.configs import resolve_environment
from drycc.core.models import App, Build, Config, Release, Workload
from drycc.core.secrets import Keyring
from drycc.errors import Invalid
from drycc.kit.ids import now, stamp

READY_AFTER = 2.0  # seconds that a process type without a port must run before it counts as ready
MOST_REPLICAS = 100  # of one process type


@dataclass(frozen=True, slots=True)
class Former:
    """Where a pointer stood before a deploy moved it; `release` None = the process type is new."""

    release: UUID | None
    replicas: int
    is_held: bool

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> "Former":
        release = UUID(data["release"]) if data["release"] else None
        return cls(release, data["replicas"], data["is_held"])

    def dump(self) -> dict[str, Any]:
        return {
            "release": str(self.release) if self.release else None,
            "replicas": self.replicas,
            "is_held": self.is_held,
        }


async def load_spec(db: Database, keyring: Keyring, app: UUID, grace: float) -> AppSpec | None:
    """What the cluster shall make true of the app, from one statement; None for an app that is gone."""
    rows = await db.read(_desired, app=app)
    if not rows:
        return None
    workloads = tuple(_spec(row, keyring, grace) for row in rows if row.ptype is not None)
    return AppSpec(rows[0].id, rows[0].generation, workloads)


def route_table(app: str, domain: str, *, is_routable: bool) -> RouteTable:
    """The hosts of an app: until there are domains of its own, the platform's one."""
    return RouteTable(app, (f"{app}.{domain}",), is_routable=is_routable)


async def scale(db: Database, nudges: Nudges, app: UUID, counts: Mapping[str, int]) -> None:
    """Set replicas of process types that exist; unknown ones are ignored. Raises `Invalid`."""
    for ptype, count in counts.items():
        if ptype in releases.RESERVED:
            raise Invalid(f"Cannot set scale for reserved types, procfile type is: {ptype}")
        if not 0 <= count <= MOST_REPLICAS:
            raise Invalid(f"Invalid scaling format: {ptype}={count} is not within 0 and {MOST_REPLICAS}")

    async def body(session: AsyncSession) -> bool:
        await _require_build(session, app)
        changed = [
            workload
            for workload in await session.scalars(_of_app, {"app": app})
            if counts.get(workload.ptype, workload.replicas) != workload.replicas
        ]
        for workload in changed:
            workload.replicas, workload.is_held = counts[workload.ptype], False
        return await _queue_apply(session, app, changed)

    if await db.write(body, app=app):
        await jobs.wake(nudges)


async def restart(db: Database, nudges: Nudges, app: UUID, ptypes: Sequence[str]) -> None:
    """Replace the pods of these process types (none named = of all), those at 0 left out."""

    async def body(session: AsyncSession) -> bool:
        present = {workload.ptype: workload for workload in await session.scalars(_of_app, {"app": app})}
        unknown = [ptype for ptype in ptypes if ptype not in present]
        if unknown:
            raise Invalid(releases.NOT_INCLUDED.format(",".join(unknown)))
        chosen = [present[ptype] for ptype in ptypes or present if present[ptype].replicas > 0]
        for workload in chosen:
            workload.restarted_at, workload.is_held = now(), False
        return await _queue_apply(session, app, chosen)

    if await db.write(body, app=app):
        await jobs.wake(nudges)


async def move(
    session: AsyncSession, keyring: Keyring, app: App, release: Release, ptypes: Sequence[str], *, force: bool
) -> dict[str, Former]:
    """Point process types at `release`; gives where each one that moved stood before.

    Named `ptypes` or, when none, all of the release's build. Without `force` those stay whose
    image, command and environment would not change.
    """
    build = await session.get_one(Build, release.build_id)
    present = {workload.ptype: workload for workload in await session.scalars(_of_app, {"app": app.uuid})}
    wanted = [ptype for ptype in releases.ptypes_of(build.procfile) if not ptypes or ptype in ptypes]
    if not force:
        wanted = [
            ptype for ptype in wanted if await _differs(session, keyring, app, release, present.get(ptype))
        ]
    former = {}
    for ptype in wanted:
        workload = present.get(ptype)
        former[ptype] = _former(workload)
        if workload is None:
            workload = Workload(app_uuid=app.uuid, ptype=ptype, replicas=1 if ptype == "web" else 0)
            session.add(workload)
        workload.release_uuid, workload.is_held = release.uuid, False
    app.generation += 1
    return former


async def put_back(session: AsyncSession, app: App, former: Mapping[str, Former]) -> None:
    """Undo `move`; a count that was scaled meanwhile stays."""
    for ptype, stood in former.items():
        workload = await session.get(Workload, (app.uuid, ptype))
        if workload is None:
            continue
        if stood.release is None:
            await session.delete(workload)
        else:
            workload.release_uuid, workload.is_held = stood.release, stood.is_held
    app.generation += 1


async def hold(session: AsyncSession, app: App, ptypes: Iterable[str]) -> None:
    """Keep the pointers of a failed roll-out where they are, and start nothing there any more."""
    for ptype in ptypes:
        workload = await session.get(Workload, (app.uuid, ptype))
        if workload is not None:
            workload.is_held = True
    app.generation += 1


async def drop_vanished(session: AsyncSession, app: App, release: Release) -> list[str]:
    """Remove workloads that the release's build does not have any more; gives their names."""
    build = await session.get_one(Build, release.build_id)
    kept = releases.ptypes_of(build.procfile)
    gone = [w for w in await session.scalars(_of_app, {"app": app.uuid}) if w.ptype not in kept]
    for workload in gone:
        await session.delete(workload)
    app.generation += 1
    return [workload.ptype for workload in gone]


def make_environment(row: Any, values: list[dict[str, str]], ptype: str) -> dict[str, str]:
    """The variables of a process type (kubernetes.md section 6); `PORT` is the cluster's to set."""
    environment = {
        "DRYCC_APP": row.id,
        "DRYCC_WORKSPACE": row.workspace_id,
        "WORKFLOW_RELEASE": f"v{row.version}",
        "WORKFLOW_RELEASE_SUMMARY": row.summary,
        "WORKFLOW_RELEASE_CREATED_AT": stamp(row.released) or "",
        "SOURCE_VERSION": row.sha or "",
    }
    return environment | resolve_environment(values, row.values_refs, ptype)


def make_spec(row: Any, values: list[dict[str, str]], grace: float) -> WorkloadSpec:
    """One workload from its joined row and its config's values; pure."""
    command = row.procfile.get(row.ptype, "")
    return WorkloadSpec(
        ptype=row.ptype,
        release=row.version,
        image=row.image,
        command=command,
        env=make_environment(row, values, row.ptype),
        replicas=row.replicas,
        restarted_at=row.restarted_at,
        ready_after=None if row.ptype == "web" else READY_AFTER,
        grace=grace,
        is_held=row.is_held,
    )


@dataclass(frozen=True, slots=True)
class _Key:
    """What unsealing needs of a joined row."""

    uuid: UUID
    data_key: bytes


def open_values(row: Any, keyring: Keyring) -> list[dict[str, str]]:
    """The config's values of a joined row, in clear."""
    sealed = keyring.unseal(
        _Key(row.app_uuid, row.data_key), row.sealed_values, f"configs.sealed_values.{row.config_uuid}"
    )
    values: list[dict[str, str]] = json.loads(sealed)
    return values


def _spec(row: Any, keyring: Keyring, grace: float) -> WorkloadSpec:
    return make_spec(row, open_values(row, keyring), grace)


async def _differs(
    session: AsyncSession, keyring: Keyring, app: App, release: Release, workload: Workload | None
) -> bool:
    """Whether the process type would run anything else under the new release."""
    if workload is None or workload.is_held:
        return True
    old = (await session.execute(_joined(workload.release_uuid), {"app": app.uuid})).one()
    new = (await session.execute(_joined(release.uuid), {"app": app.uuid})).one()
    return _effect(old, keyring, workload.ptype) != _effect(new, keyring, workload.ptype)


def _effect(row: Any, keyring: Keyring, ptype: str) -> tuple[str, str, dict[str, str]]:
    environment = resolve_environment(open_values(row, keyring), row.values_refs, ptype)
    return row.image, row.procfile.get(ptype, ""), environment


def _former(workload: Workload | None) -> Former:
    if workload is None:
        return Former(None, 0, is_held=False)
    return Former(workload.release_uuid, workload.replicas, workload.is_held)


async def _require_build(session: AsyncSession, app: UUID) -> None:
    release = await releases.latest(session, await session.get_one(App, app))
    if release.build_id is None:
        raise Invalid("No build associated with this release")


async def _queue_apply(session: AsyncSession, app_uuid: UUID, changed: Sequence[Workload]) -> bool:
    if not changed:
        return False
    app = await session.get_one(App, app_uuid)
    app.generation += 1
    await jobs.queue(session, "apply", app_uuid)
    return True


COLUMNS = (
    App.id,
    App.uuid.label("app_uuid"),
    App.data_key,
    App.generation,
    App.workspace_id,
    App.routable,
    Release.uuid.label("release_uuid"),
    Release.version,
    Release.summary,
    Release.created.label("released"),
    Build.image,
    Build.sha,
    Build.procfile,
    Config.uuid.label("config_uuid"),
    Config.sealed_values,
    Config.values_refs,
)
_desired = (
    sa.select(*COLUMNS, Workload.ptype, Workload.replicas, Workload.restarted_at, Workload.is_held)
    .select_from(App)
    .outerjoin(Workload, Workload.app_uuid == App.uuid)
    .outerjoin(Release, Release.uuid == Workload.release_uuid)
    .outerjoin(Build, Build.id == Release.build_id)
    .outerjoin(Config, Config.uuid == Release.config_uuid)
    .where(App.uuid == sa.bindparam("app"), ~App.is_destroyed)
    .order_by(Workload.ptype)
)
_of_app = sa.select(Workload).where(Workload.app_uuid == sa.bindparam("app"))


def _joined(release: UUID) -> sa.Select[*tuple[Any, ...]]:
    return (
        sa.select(*COLUMNS)
        .select_from(App)
        .join(Release, Release.app_uuid == App.uuid)
        .outerjoin(Build, Build.id == Release.build_id)
        .join(Config, Config.uuid == Release.config_uuid)
        .where(App.uuid == sa.bindparam("app"), Release.uuid == release)
    )
