"""The promise: the control plane may die at any instant and no app notices."""

import statistics
from pathlib import Path
from time import monotonic

import pytest

from tests.e2e import apps
from tests.e2e.developer import Developer
from tests.e2e.load import loading
from tests.platform import Platform

pytestmark = pytest.mark.e2e


async def test_kill_9_under_load_fails_no_request_and_restarts_no_pod(platform: Platform) -> None:
    await kill_under_load(platform, kills=3)


async def kill_under_load(platform: Platform, *, kills: int) -> tuple[int, list[float]]:
    """Requests answered, and seconds until the API was back after each kill."""
    ann = await Developer.join(platform)
    records: dict[str, Path] = {}
    for app in ("left", "right"):
        records[app] = platform.home / f"{app}.ids"
        repository = await ann.create(app)
        values = [{"name": "RECORD", "value": str(records[app]), "group": "global"}]
        await ann.call("POST", f"apps/{app}/config/", {"values": values}, status=201)
        await ann.push(app, repository, apps.answering("'fine'"))
    before = [await _identities(ann, app) for app in records]
    backs = []
    async with loading(platform, list(records)) as load:
        for _ in range(kills):
            await platform.kill()
            began = monotonic()
            await platform.start()
            backs.append(monotonic() - began)
    load.check(records)
    assert [await _identities(ann, app) for app in records] == before
    assert min(load.answered.values()) > 0
    return load.answered.total(), backs


async def _identities(ann: Developer, app: str) -> list[tuple[object, ...]]:
    return [(pod["name"], pod["started"], pod["restarts"]) for pod in await ann.pods(app)]


def describe(answered: int, backs: list[float]) -> str:
    median, worst = statistics.median(backs), max(backs)
    return f"{answered} requests, 0 failed, each id once; API back in {median:.2f} s (worst {worst:.2f} s)"
