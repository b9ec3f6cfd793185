"""A backup under load, the disk lost, a restore: every row, every image, every app's answer."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from drycc.backup import manifest, parts
from tests.backup.install import FSCK, git, read_tables, read_tree
from tests.conftest import QUICK
from tests.e2e import apps
from tests.e2e.developer import Developer
from tests.invariants import check_invariants
from tests.platform import Platform
from tests.waiting import until

APPS = ("left", "right", "snake")  # the last one is Python's, with a virtual environment
pytestmark = pytest.mark.e2e


@dataclass
class Work:
    """What was done while the body ran."""

    pushes: int = 0
    configs: int = 0
    asked: int = 0
    seconds: list[float] = field(default_factory=list)  # that the API took for an answer
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """What a drill shows."""

    work: Work
    before: list[float]  # seconds that the API took for an answer, under the same load
    during: list[float]  # and while the backup was made
    said: str  # by `dryccd backup` and `dryccd restore`
    rows: int
    images: int
    back: float  # seconds from `dryccd serve` until every app answered
    settled: float  # and until what was under way at the snapshot had come to its end


async def test_a_platform_whose_disk_is_lost_is_the_one_that_was_backed_up() -> None:
    """Meanwhile `serve` makes backups of its own, to another disk."""
    async with Platform(None, QUICK | {"DRYCC_BACKUP_EVERY": "2"}) as platform:
        ann = await Developer.join(platform)
        report = await lose_and_restore(ann, rounds=2)
        assert report.work.failures == []
        assert report.work.pushes > 0
        assert report.work.configs > 0
        done = await ann.push("left", platform.home / "apps" / "left", source("after", "left"))
        assert (done.code, (await ann.get("left")).text.split()[0]) == (0, "after")
        await check_logs_go_on(ann)
        await check_invariants(platform)
        lost = platform.home / "lost"
        assert len(list(lost.glob(f"objects/backups/*/{manifest.FILE}"))) > 1
        assert "no backup was made" not in platform.log()


async def lose_and_restore(ann: Developer, *, rounds: int, weight: int = 0) -> Report:
    """Back up after so many pushes under load, lose the data directory, restore it and compare."""
    platform, kept = ann.platform, ann.platform.home / "kept"
    for app in APPS:
        await ann.push(app, await ann.create(app), source("first", app, weight))
    await mark(ann, "before")
    async with working(ann) as work:
        await until(lambda: work.pushes >= rounds, within=300)
        before = list(work.seconds)
        done = await platform.dryccd("backup", str(kept), seconds=300)
        assert done.code == 0, done
        said, during = done.out, work.seconds[len(before) :]
    await mark(ann, "after")
    await platform.stop()
    lost = platform.data.rename(platform.home / "lost")

    (backup,) = kept.iterdir()
    done = await platform.dryccd("restore", str(backup), seconds=300)
    assert done.code == 0, done
    rows = compare_rows(platform, backup, lost)
    images = compare_files(platform, lost)
    began = monotonic()
    await platform.start()
    for app in APPS:
        await until(partial(answers, ann, app), within=60)
    back = monotonic() - began
    await until(lambda: is_settled(ann), within=120)
    settled = monotonic() - began
    for app in APPS:
        await check_answer(ann, app)
    return Report(work, before, during, said + done.out, rows, images, back, settled)


def source(text: str, app: str, weight: int = 0) -> dict[str, str]:
    """An app that answers the text and COLOR and prints a line; `weight` is its size in KiB."""
    files = apps.answering(
        f"(print('asked for', {text!r}, flush=True), {text!r} + ' ' + os.environ.get('COLOR', '-'))[1]"
    )
    files |= {f"data/{number}.txt": f"{app} {number} ".ljust(1024, "x") for number in range(weight)}
    return files | ({"requirements.txt": ""} if app == "snake" else {})


@asynccontextmanager
async def working(ann: Developer) -> AsyncIterator[Work]:
    """Pushes to one app, config changes of another, requests to all of them."""
    work, over = Work(), asyncio.Event()
    left = ann.platform.home / "apps" / "left"

    async def push() -> None:
        while not over.is_set():
            done = await ann.push("left", left, source(f"push-{work.pushes}", "left"), code=None)
            if done.code:
                work.failures.append(done.err)
            work.pushes += 1

    async def configure() -> None:
        while not over.is_set():
            values = [{"name": "COLOR", "value": f"color-{work.configs}", "group": "global"}]
            await ann.call("POST", "apps/right/config/", {"values": values}, status=201)
            work.configs += 1

    async def ask() -> None:
        while not over.is_set():
            for app in APPS:
                answer = await ann.get(app)
                if answer.status != 200:
                    work.failures.append(f"{app} {answer.status}")
                work.asked += 1
            began = monotonic()
            await ann.call("GET", "apps/", status=200)
            work.seconds.append(monotonic() - began)

    async with asyncio.TaskGroup() as group:
        for task in (push, configure, ask):
            group.create_task(task())
        try:
            yield work
        finally:
            over.set()


def compare_rows(platform: Platform, backup: Path, lost: Path) -> int:
    """The restored rows are those of the snapshot, with what came before it and without what came after."""
    reference = platform.home / "reference.db"
    parts.unpack_file(backup / manifest.DATABASE, reference)
    restored = read_tables(platform.data / "drycc.db")
    assert restored == read_tables(reference)
    assert b"color-" not in reference.read_bytes(), "a value of a config can be read without the keyring"
    users = {row[1] for row in restored["users"]}
    assert "before" in users
    assert "after" not in users
    assert {"before", "after"} <= {row[1] for row in read_tables(lost / "drycc.db")["users"]}
    return sum(len(rows) for rows in restored.values())


def compare_files(platform: Platform, lost: Path) -> int:
    """Images and environments byte by byte, each repository without a fault; gives the count of images."""
    found = [path for kind in ("images", "venvs") for path in (platform.data / kind).glob("*/*")]
    for path in found:
        assert read_tree(path) == read_tree(lost / path.relative_to(platform.data)), path
    for repository in (platform.data / "repos").iterdir():
        assert git(repository, *FSCK) == ""
    for key in (platform.data / "objects").rglob("*"):
        assert not key.is_file() or "sources" in key.parts, key
    return len(list(platform.data.glob("images/*/*")))


async def check_answer(ann: Developer, app: str) -> None:
    """The app answers what its newest release is made of: the commit that a clone gives, and the config."""
    clone = ann.platform.home / "clones" / app
    await ann.platform.git("clone", "-q", ann.platform.remote(app), clone, cwd=ann.platform.home, key=ann.key)
    found = re.search(r"asked for', '([^']+)'", (clone / "app.py").read_text())
    assert found, clone
    config = await ann.call("GET", f"apps/{app}/config/", status=200)
    colors = [item["value"] for item in config["values"] if item["name"] == "COLOR"]
    expected = f"{found[1]} {colors[0] if colors else '-'}"
    await until(lambda: answers(ann, app, expected), within=30)


async def check_logs_go_on(ann: Developer) -> None:
    """Lines of before the backup are there, and what is printed and asked now follows them."""
    lines = await read_lines(ann, "snake")
    assert any("asked for first" in line["text"] for line in lines)
    assert any(line["source"] == "access" for line in lines)
    count = len(lines)
    await ann.get("snake", "/after-the-restore")

    async def has_both() -> bool:
        new = (await read_lines(ann, "snake"))[count:]
        is_asked = any(line["source"] == "access" and "/after-the-restore" in line["text"] for line in new)
        return is_asked and any("asked for" in line["text"] for line in new if line["source"] == "app")

    await until(has_both, within=10)


async def read_lines(ann: Developer, app: str) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    cursor = ""
    while True:
        query = f"limit=1000{f'&cursor={cursor}' if cursor else ''}"
        page = await ann.call("GET", f"apps/{app}/lines/?{query}", status=200)
        if not page["results"]:
            return lines
        lines += page["results"]
        cursor = page["cursor"]


async def answers(ann: Developer, app: str, text: str = "") -> bool:
    """Whether it answers, with this text if one is given."""
    answer = await ann.get(app)
    return answer.status == 200 and (not text or answer.text == text)


async def is_settled(ann: Developer) -> bool:
    """What was under way at the snapshot has come to its end."""
    try:
        await check_invariants(ann.platform)
    except AssertionError:
        return False
    return True


async def mark(ann: Developer, name: str) -> None:
    await ann.platform.add_user(name)
