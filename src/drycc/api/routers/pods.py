"""Pods and process types, as the cluster has them now."""

from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter, Response

from drycc.api.deps import ChangeApp, Ports, ViewApp
from drycc.api.pages import answer_all
from drycc.api.schemas.base import APP_ERRORS, ShortListing, answers
from drycc.api.schemas.pods import Pod, ProcessType, RestartBody, ScaleBody
from drycc.backends.cluster import base
from drycc.core import models, releases, workloads
from drycc.errors import Invalid

router = APIRouter(tags=["pods"], responses=APP_ERRORS)


@router.get("/v2/apps/{app:appid}/pods/", summary="List pods", responses=answers(ShortListing[Pod]))
async def list_pods(app: ViewApp, ports: Ports) -> Response:
    return answer_all([_show_pod(pod) for pod in await ports.cluster.pods.list(app.id)])


@router.get(
    "/v2/apps/{app:appid}/ptypes/",
    summary="List process types",
    responses=answers(ShortListing[ProcessType]),
)
async def list_ptypes(app: ViewApp, ports: Ports) -> Response:
    rows = await ports.db.read(_workloads, app=app.uuid)
    observed = await ports.cluster.workloads.observe(app.id) if rows else None
    return answer_all([_show_ptype(row, observed.workloads.get(row.ptype)) for row in rows if observed])


@router.post(
    "/v2/apps/{app:appid}/ptypes/scale/",
    summary="Set how many pods process types have",
    status_code=204,
    responses=answers(None, 204),
)
async def scale(body: ScaleBody, app: ChangeApp, ports: Ports) -> Response:
    counts = {ptype: _check_count(ptype, count) for ptype, count in body.root.items()}
    await workloads.scale(ports.db, ports.nudges, app.uuid, counts)
    return Response(status_code=204)


@router.post(
    "/v2/apps/{app:appid}/ptypes/restart/",
    summary="Replace the pods of process types",
    status_code=204,
    responses=answers(None, 204),
)
async def restart(body: RestartBody, app: ChangeApp, ports: Ports) -> Response:
    named = [name for part in (body.ptypes or "").split(",") if (name := part.strip())]
    await workloads.restart(ports.db, ports.nudges, app.uuid, named)
    return Response(status_code=204)


def _show_pod(pod: base.Pod) -> dict[str, Any]:
    return {
        "name": pod.name,
        "state": pod.state,
        "release": f"v{pod.release}",
        "type": pod.ptype,
        "started": pod.started,
        "ready": "1/1" if pod.is_ready else "0/1",
        "restarts": pod.restarts,
    }


def _show_ptype(row: Any, seen: base.ObservedWorkload | None) -> dict[str, Any]:
    return {
        "name": row.ptype,
        "release": f"v{row.version}",
        "ready": f"{seen.ready if seen else 0}/{row.replicas}",
        "garbage": row.ptype not in releases.ptypes_of(row.newest_procfile or {}),
        "up_to_date": seen.updated if seen else 0,
        "available_replicas": seen.ready if seen else 0,
        "started": row.created,
    }


def _check_count(ptype: str, count: object) -> int:
    if not isinstance(count, int) or isinstance(count, bool):
        raise Invalid(f"Invalid scaling format: {ptype}={str(count)[:40]} is no number of pods")
    return count


_newest_procfile = (
    sa.select(models.Build.procfile)
    .select_from(models.Release)
    .outerjoin(models.Build, models.Build.id == models.Release.build_id)
    .where(models.Release.app_uuid == sa.bindparam("app"))
    .order_by(models.Release.version.desc())
    .limit(1)
    .scalar_subquery()
)
_workloads = (
    sa.select(
        models.Workload.ptype,
        models.Workload.replicas,
        models.Workload.created,
        models.Release.version,
        _newest_procfile.label("newest_procfile"),
    )
    .join(models.Release, models.Release.uuid == models.Workload.release_uuid)
    .where(models.Workload.app_uuid == sa.bindparam("app"))
    .order_by(models.Workload.created.desc(), models.Workload.ptype)
)
