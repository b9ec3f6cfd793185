"""`dryccd builds`: list, follow and cancel, on the database alone, so beside a running `serve`."""

import argparse
from typing import Any

import sqlalchemy as sa

from drycc.backends.db import Database
from drycc.backends.nudges import open_nudges
from drycc.backends.nudges.base import Nudges
from drycc.build.terminal import make_lines
from drycc.core import apps, builds
from drycc.core.models import Build
from drycc.data import open_existing
from drycc.errors import BuildFailed, NotFound
from drycc.kit.ids import stamp
from drycc.settings import Settings

MOST_LISTED = 50


async def run_builds(arguments: argparse.Namespace, chosen: Settings) -> None:
    """Do what the arguments say; raises `BuildFailed` after the log of a build that has not succeeded."""
    async with open_existing(chosen) as db:
        if arguments.action == "list":
            await _list(db, arguments.app, chosen.builds)
            return
        await _check(db, arguments.id)
        nudges = await open_nudges("memory:")  # the platform hears nothing of it and looks by its timer
        if arguments.action == "follow":
            await _follow(db, nudges, arguments.id)
        else:
            await builds.cancel(db, nudges, arguments.id, "cancelled by the operator")


async def _list(db: Database, app: str, slots: int) -> None:
    found = await apps.find(db, app, even_destroyed=True)
    for row in await db.read(_newest, app=found.uuid, slots=slots):
        print(*_describe(row), sep="\t")


def _describe(row: Any) -> list[str]:
    duration = builds.find_duration(row.started, row.ended)
    waits = f"{row.node_ahead or row.app_ahead} ahead" if row.app_ahead or row.node_ahead else ""
    return [
        str(row.id),
        row.state,
        f"v{row.release}" if row.release else "-",
        row.sha[:8] or "-",
        row.owner,
        stamp(row.created) or "-",
        "-" if duration is None else f"{duration:.1f} s",
        row.reason or waits,
    ]


async def _check(db: Database, id: int) -> None:
    there = sa.select(Build.id).where(Build.id == id)
    if not 0 < id < 2**31 or await db.read_one(there) is None:
        raise NotFound(f"there is no build {id}")


async def _follow(db: Database, nudges: Nudges, id: int) -> None:
    async for line in builds.follow(db, nudges, id):
        for piece in make_lines(line):
            print(piece, flush=True)
    outcome = await builds.outcome(db, id)
    if not outcome.has_succeeded:
        raise BuildFailed(f"build {id}: {outcome.text}")


_newest = (
    builds.SHOWN.where(Build.app_uuid == sa.bindparam("app")).order_by(Build.id.desc()).limit(MOST_LISTED)
)
