"""A disk that is full to the last byte: sentences instead of traces, apps that serve, and no restart."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from tests.conftest import QUICK
from tests.e2e import apps
from tests.e2e.developer import Developer
from tests.invariants import find_temporary, settle
from tests.platform import Answer, Done, Platform
from tests.smalldisk import Disk, small_disk
from tests.waiting import until

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
NO_SPACE = "no space is left"


@pytest.fixture
def home() -> Path:
    return Path(mkdtemp(prefix="dryccd-"))


@pytest.fixture
def disk(home: Path) -> Iterator[Disk]:
    with small_disk(home / "disk", 64) as disk:
        yield disk


@pytest.fixture
async def full_soon(database_url: str | None, home: Path, disk: Disk) -> AsyncIterator[Platform]:
    """A platform whose data directory is on the small disk and whose database is not."""
    url = database_url or f"sqlite+aiosqlite:///{home}/drycc.db"
    settings = QUICK | {"DRYCC_DATABASE_URL": url}
    async with Platform(url, settings, home, disk=disk) as platform:
        yield platform
        assert "Traceback" not in platform.log()
        assert platform.process
        assert platform.process.returncode is None


def assert_refused(done: Done, leave: int) -> None:
    said = done.err.lower()
    assert done.code in (1, 128), done
    assert "no space" in said, f"{leave}: {said}"
    assert "traceback" not in said, f"{leave}: {said}"
    assert "internal error" not in said, f"{leave}: {said}"


def list_kept(platform: Platform) -> set[str]:
    """What pushes and builds keep, but for repositories' own commits."""
    parts = ("objects", "images", "venvs", "pods", "apps")
    found = (path for part in parts for path in (platform.seen_data / part).rglob("*"))
    pushes = (platform.seen_data / "repos").glob("*/pushes/*")
    return {str(path.relative_to(platform.seen_data)) for path in (*found, *pushes)}


def list_commits(platform: Platform) -> set[str]:
    repos = platform.seen_data / "repos"
    return {str(path) for path in (*repos.rglob("refs/drycc/*/*"), *repos.rglob("*.pack"))}


async def test_gp05_a_push_to_a_full_disk_is_refused_and_works_when_there_is_space(
    full_soon: Platform, disk: Disk
) -> None:
    ann = await Developer.join(full_soon)
    repository = await ann.create("shop")
    await ann.push("shop", repository, apps.answering("'one'"))
    payload = repository / "payload"
    payload.write_bytes(os.urandom(3 * MIB))
    await full_soon.commit(repository, apps.answering("'two'"))
    before, commits = list_kept(full_soon), list_commits(full_soon)
    for leave in (0, 8 * 1024, 2 * MIB, 4 * MIB):  # before the pack, in it, in the archive, at its end
        disk.fill(leave)
        done = await full_soon.push("shop", repository, code=None, key=ann.key)
        assert_refused(done, leave)
        assert (list_kept(full_soon), list_commits(full_soon)) == (before, commits), leave
        assert find_temporary(full_soon) == []
        assert (await ann.get("shop")).text == "one"
    for leave in (8 * MIB, 8 * MIB):  # in the copy for the build; then, the pack being kept, in the image
        disk.fill(leave)
        done = await full_soon.push("shop", repository, code=None, key=ann.key)
        assert_refused(done, leave)
        await until(lambda: list_kept(full_soon) == before)
        assert (await ann.get("shop")).text == "one"
        assert (await ann.release("shop"))["version"] == 2
    disk.free()
    await full_soon.push("shop", repository, key=ann.key)
    assert (await ann.get("shop")).text == "two"
    await settle(full_soon)


async def test_apps_serve_on_a_full_disk_and_all_goes_on_when_there_is_space(
    full_soon: Platform, disk: Disk
) -> None:
    ann = await Developer.join(full_soon)
    repository = await ann.create("shop")
    files = apps.answering("os.environ.get('WHO', 'nobody')")
    await ann.push("shop", repository, files | {"payload": os.urandom(MIB).hex()})
    await ann.call("POST", "apps/shop/ptypes/scale/", {"web": 2}, status=204)
    await until_up(ann, 2)
    # Room for a record and not for a copy of the tree: the third pod cannot start, and says why.
    disk.fill(leave=MIB)
    await ann.call("POST", "apps/shop/ptypes/scale/", {"web": 3}, status=204)
    await until(lambda: NO_SPACE in full_soon.log())
    assert disk.left() > MIB // 2
    await ann.call("POST", "apps/shop/ptypes/scale/", {"web": 2}, status=204)
    await until_up(ann, 2)
    # No room at all: what is asked for waits.
    disk.fill()
    values = {"values": [{"name": "WHO", "value": "ann", "group": "global"}]}
    await ann.call("POST", "apps/shop/config/", values, status=201)
    await until(lambda: "waits: no space is left" in full_soon.log())
    for _ in range(100):  # their access lines are more than what is left of the file's last block
        assert (await ann.get("shop")).text == "nobody"
    assert (await ann.release("shop"))["state"] == "created"
    assert (await full_soon.api("GET", "/readiness")).status == 200
    disk.free()
    await ann.released("shop", 3)
    await until_up(ann, 2)
    # A pod that dies is missed, and the other one serves.
    disk.fill()
    os.killpg(find_pods(full_soon)[0], signal.SIGKILL)
    await until_up(ann, 1)
    assert {(await ann.get("shop")).text for _ in range(20)} == {"ann"}
    disk.free()
    await until_up(ann, 2)
    await settle(full_soon)

    async def is_told() -> bool:
        """With the line of the next request."""
        await ann.get("shop")
        shown = await ann.call("GET", "apps/shop/lines/?text=requests+are+missing+here", status=200)
        return bool(shown["results"])

    await until(is_told)


async def test_a_full_database_answers_503_with_a_sentence_and_reads_go_on(home: Path, disk: Disk) -> None:
    async with Platform(None, QUICK, home, disk=disk) as platform:
        ann = await Developer.join(platform)
        repository = await ann.create("shop")
        await ann.push("shop", repository, apps.answering("'one'"))
        disk.fill()
        refused = await fill_database(ann)
        assert (refused.status, refused.headers["retry-after"]) == (503, "5")
        assert refused.json()["detail"].startswith("no space is left for the database")
        readiness = await platform.api("GET", "/readiness")
        assert (readiness.status, readiness.headers["retry-after"]) == (503, "5")
        assert "no space" in readiness.text
        listed = await ann.call("GET", "apps/?limit=1000", status=200)
        assert (await ann.get("shop")).text == "one"
        done = await platform.push("shop", repository, code=None, key=ann.key)
        assert_refused(done, 0)
        disk.free()
        assert await ann.call("GET", "apps/?limit=1000", status=200) == listed
        await ann.call("POST", "apps/", {"id": "late"}, status=201)
        await ann.push("shop", repository, apps.answering("'two'"))
        assert (await ann.get("shop")).text == "two"
        assert "Traceback" not in platform.log()
        assert platform.process
        assert platform.process.returncode is None


async def fill_database(ann: Developer) -> Answer:
    """Make apps until one is refused: there may be space inside the files."""
    for number in range(200):
        answer = await ann.platform.api("POST", "/v2/apps/", {"id": f"app{number}"}, ann.token)
        if answer.status != 201:
            return answer
    raise AssertionError("the database took 200 apps on a full disk")


async def test_a_first_start_on_a_full_disk_says_so_and_leaves_nothing_half_made(
    home: Path, disk: Disk
) -> None:
    platform = Platform(None, QUICK, home, disk=disk)
    for leave in (0, 40 * 1024, 200 * 1024):  # before the lock, in the schema, in it again
        disk.fill(leave)
        done = await platform.dryccd("serve")
        assert done.code == 1, leave
        assert "dryccd: no space is left" in done.err, leave
        assert "Traceback" not in done.err, leave
    disk.free()
    async with platform:
        ann = await Developer.join(platform)
        await ann.create("shop")


async def until_up(ann: Developer, count: int) -> None:
    async def are_up() -> bool:
        return [pod["state"] for pod in await ann.pods("shop")].count("up") == count

    await until(are_up, within=30)


def find_pods(platform: Platform) -> list[int]:
    """Leaders of the app's pods."""
    children = Path("/proc").glob("[0-9]*")
    found = []
    for process in children:
        try:
            environ = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if {f"DRYCC_INSTANCE={platform.data}".encode(), b"DRYCC_APP=shop"} <= set(environ):
            found.append(os.getsid(int(process.name)))
    return sorted(set(found))
