"""Die at each named point of the source, start again, and look: nothing is lost, doubled or half made."""

import re
from pathlib import Path

import pytest

from tests.conftest import QUICK
from tests.e2e import apps
from tests.e2e.developer import Developer
from tests.invariants import count_pods, settle
from tests.platform import Platform, exchange
from tests.waiting import until

ROOT = Path(__file__).parent.parent
SOURCE, TABLE = ROOT / "src" / "drycc", ROOT / "docs" / "reliability.md"


def find_points() -> list[str]:
    """Every name that the source gives to `kit.crash.point`."""
    texts = (file.read_text() for file in sorted(SOURCE.rglob("*.py")))
    return sorted({name for text in texts for name in re.findall(r"\bpoint\(\s*\"([^\"]+)\"", text)})


DESTROYING = {"app.removing", "app.removed", "lines.renamed"}
# Met at a start, or when the pusher has its answer; at all others somebody waits for the end of a push.
AT_ANY_TIME = {
    "app.applying",
    "file.written",
    "lines.appending",
    "lines.appended",
    "output.finished",
    "outcome.recorded",
    "pod.ended",
}
# The first time is another act: a build's pod comes before the app's, a start tells the cluster everything.
TWICE = ("pod.prepared", "pod.spawned", "app.applying")
# Of commands that end by themselves, and of a first start: their own tests die there.
ELSEWHERE = ("backup.", "restore.", "admin.")
pytestmark = pytest.mark.e2e


def find_moments() -> list[str]:
    """What the platform itself is to die at: each point, and `:2` where it is met twice."""
    points = [name for name in find_points() if not name.startswith(ELSEWHERE)]
    return points + [f"{name}:2" for name in points if name in TWICE]


def test_the_straight_path_has_its_points() -> None:
    assert set(find_moments()) >= DESTROYING | AT_ANY_TIME | {"build.queueing", "build.queued"}


def test_the_table_of_points_is_whole() -> None:
    section = TABLE.read_text().partition("## The points at which we may die")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([^`]+)`", row)} == set(find_points())


@pytest.mark.parametrize("name", find_moments())
async def test_dying_at_a_point_loses_nothing(database_url: str | None, name: str) -> None:
    async with Platform(database_url, QUICK) as platform:
        ann = await Developer.join(platform)
        repository = await ann.create("shop")
        await ann.push("shop", repository, apps.answering("'one'"))
        await _restart_dying_at(platform, name)
        if name in DESTROYING:
            await _die_destroying(platform, ann)
        else:
            await _die_pushing(platform, ann, repository, name)


async def _restart_dying_at(platform: Platform, name: str) -> None:
    await platform.kill()
    platform.settings["DRYCC_CRASH"] = name
    try:
        await platform.start()
    except AssertionError:
        assert name in AT_ANY_TIME, platform.log()
    del platform.settings["DRYCC_CRASH"]


async def _die_pushing(platform: Platform, ann: Developer, repository: Path, name: str) -> None:
    await platform.commit(repository, apps.answering("'two'"))
    done = await platform.push("shop", repository, code=None, key=ann.key)
    assert done.code != 0 or name in AT_ANY_TIME, f"the push was told success: {done}"
    await until(lambda: platform.process and platform.process.returncode == 137)
    assert (await ann.get("shop")).status == 200  # the pods and the edge go on without us
    await platform.start()
    await settle(platform)
    release = await ann.release("shop")
    assert release["state"] == "succeed"
    assert release["version"] == 3 or done.code != 0, "told success without the release"
    served = {"one" if release["version"] == 2 else "two"}
    assert {(await ann.get("shop")).text for _ in range(5)} == served
    again = await ann.push("shop", repository, apps.answering("'three'"))
    assert (again.code, (await ann.get("shop")).text) == (0, "three")
    await settle(platform)


async def _die_destroying(platform: Platform, ann: Developer) -> None:
    with pytest.raises(OSError):
        exchange(
            platform.http_port,
            "DELETE",
            "/v2/apps/shop/",
            {"Host": "localhost", "Authorization": f"token {ann.token}"},
        )
    await until(lambda: platform.process and platform.process.returncode is not None)
    await platform.start()

    async def is_gone() -> bool:
        return bool((await platform.api("GET", "/v2/apps/", None, ann.token)).json()["count"] == 0)

    await until(is_gone)
    await settle(platform)
    assert count_pods(platform) == {}
    await ann.call("POST", "apps/", {"id": "shop"}, status=201)
