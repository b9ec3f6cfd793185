"""What the rows and the cluster say, in the form in which the model says it."""

import json
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends.cluster.base import AppSpec
from drycc.backends.db import Database
from drycc.core import models as rows
from drycc.core import workloads
from drycc.core.secrets import Keyring
from tests.cluster import ModelCluster
from tests.core.expected import App, Build, Job, Release

OPEN = ("queued", "running")


async def read_app(db: Database, keyring: Keyring, name: str) -> dict[str, Any]:
    app = await db.read_one(sa.select(rows.App).where(rows.App.id == name))
    assert app
    found = await db.read(_of(rows.Release, app.uuid).order_by(rows.Release.version))
    versions = {release.uuid: release.version for release in found}
    jobs = await db.read(_of(rows.Job, app.uuid).where(rows.Job.state.in_(OPEN)).order_by(rows.Job.id))
    return {
        "settings": (app.autodeploy, app.autorollback, app.is_destroyed),
        "builds": [
            (row.id, row.state) for row in await db.read(_of(rows.Build, app.uuid).order_by(rows.Build.id))
        ],
        "releases": [
            (row.version, row.build_id, config, row.state, row.failed, sorted(row.deployed_ptypes))
            for row, config in zip(found, await _read_configs(db, keyring, app), strict=True)
        ],
        "workloads": {
            row.ptype: (versions[row.release_uuid], row.replicas, row.is_held)
            for row in await db.read(_of(rows.Workload, app.uuid))
        },
        "jobs": [
            (row.id, *_describe_row(row, {str(uuid): v for uuid, v in versions.items()})) for row in jobs
        ],
    }


def describe_app(app: App) -> dict[str, Any]:
    return {
        "settings": (app.autodeploy, app.autorollback, app.is_destroyed),
        "builds": [(build.id, build.state) for build in app.builds],
        "releases": [_describe_release(release) for release in app.releases],
        "workloads": {
            ptype: (workload.release.version, workload.replicas, workload.is_held)
            for ptype, workload in app.workloads.items()
        },
        "jobs": [(job.id, *_describe_job(job)) for job in app.jobs],
    }


def check_cluster(cluster: ModelCluster, spec: AppSpec, app: App) -> None:
    """With nothing left to do the cluster carries what rows and model say, and what can serve does."""
    carried = {ptype: rollout.spec for ptype, rollout in cluster.apps.get(app.name, {}).items()}
    assert carried == {workload.ptype: workload for workload in spec.workloads}
    for ptype, workload in app.workloads.items():
        build, config = workload.release.build, workload.release.config
        assert isinstance(build, Build)
        told = carried[ptype]
        assert (told.image, told.command) == (f"{app.name}:{build.id}", build.procfile.get(ptype, ""))
        assert {name: told.env[name] for name in ("A", "B") if name in told.env} == config
        if not workload.is_held and (app.name, ptype, workload.release.version) not in app.broken:
            assert cluster.apps[app.name][ptype].serving == workload.release.version


async def dump_rows(db: Database) -> dict[str, list[str]]:
    """Every row of every table."""
    tables = rows.Base.metadata.sorted_tables
    return {table.name: sorted(map(str, await db.read(sa.select(table)))) for table in tables}


async def empty(db: Database) -> None:
    async def body(session: AsyncSession) -> None:
        for table in reversed(rows.Base.metadata.sorted_tables):
            await session.execute(sa.delete(table))

    await db.write(body)


async def _read_configs(db: Database, keyring: Keyring, app: Any) -> list[dict[str, str]]:
    query = sa.select(rows.Config.uuid.label("config_uuid"), rows.Config.sealed_values, rows.App.data_key)
    query = query.add_columns(rows.App.uuid.label("app_uuid"))
    joined = query.select_from(rows.Release).join(rows.Config, rows.Config.uuid == rows.Release.config_uuid)
    joined = joined.join(rows.App, rows.App.uuid == rows.Release.app_uuid)
    found = await db.read(joined.where(rows.App.uuid == app.uuid).order_by(rows.Release.version))
    return [{item["name"]: item["value"] for item in workloads.open_values(row, keyring)} for row in found]


def _describe_release(release: Release) -> tuple[Any, ...]:
    build = release.build.id if release.build else None
    return (
        release.version,
        build,
        dict(release.config),
        release.state,
        release.failed,
        sorted(release.deployed),
    )


def _describe_row(row: Any, versions: dict[str, int]) -> tuple[Any, ...]:
    build = int(row.key) if row.kind == "build" else row.payload.get("build")
    about = (versions.get(row.key), build, row.payload.get("ptypes", []), row.payload.get("force", False))
    return row.kind, row.state, json.loads(json.dumps(about)), row.cancel_requested


def _describe_job(job: Job) -> tuple[Any, ...]:
    release = job.release.version if job.release else None
    about = [release, job.build.id if job.build else None, list(job.ptypes), job.force]
    return job.kind, "running" if job.is_running else "queued", about, job.is_cancelled


def _of(model: type[Any], app: Any) -> sa.Select[Any]:
    return sa.select(model).where(model.app_uuid == app)
