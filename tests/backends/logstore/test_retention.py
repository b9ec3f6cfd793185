"""What goes by age and over all apps, and what a reader whose cursor stood there is told."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from drycc.backends.logstore.base import Line, Reached
from drycc.backends.logstore.retention import Bounds, Stored, choose_drops
from drycc.backends.logstore.ring import LocalLogStore
from drycc.backends.logstore.segments import Batch, Segments
from drycc.errors import Unavailable
from drycc.kit.ids import now
from tests.backends.logstore.lines import BOUNDS, POD, SMALL, append, line, noise, numbers, read_all

MONTH = Bounds(SMALL, 2**32, age=30 * 86400)
LATER = timedelta(days=31)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalLogStore]:
    async with LocalLogStore(tmp_path, MONTH) as opened:
        yield opened


def files(root: Path, app: str = "foo") -> list[Path]:
    return sorted((root / app).glob("*.log"))


def first_of(file: Path) -> int:
    return int(file.name.partition("-")[0], 16)


def make_older(file: Path, days: float) -> None:
    written = file.stat().st_mtime - days * 86400
    os.utime(file, (written, written))


def mark(count: int) -> str:
    return f"WARN {count} lines are no longer kept"


async def test_lg03_lines_older_than_the_age_go_and_are_counted(tmp_path: Path, store: LocalLogStore) -> None:
    await append(store, 0, 20)
    cursor = (await store.read("foo", limit=15)).cursor
    await append(store, 20, 300)
    old, (kept, *_) = files(tmp_path)[:3], files(tmp_path)[3:]
    for file in old:
        make_older(file, days=30.1)
    make_older(kept, days=29.9)
    await store.drop_old(now())
    assert files(tmp_path)[0] == kept
    first = first_of(kept)
    assert numbers(await read_all(store)) == list(range(first, 300)), "who begins anew misses nothing"
    told, *lines = await read_all(store, cursor)
    assert (told.source, told.text) == ("platform", mark(first - 15))
    assert numbers(lines) == list(range(first, 300))


async def test_a_silent_app_is_emptied_and_goes_on(tmp_path: Path, store: LocalLogStore) -> None:
    """Its only segment is the one it would write to next; offsets and cursors outlive it."""
    await store.append("foo", [line(f"{n}") for n in range(20)], Reached(POD, 99))
    early, end = [(await store.read("foo", limit=limit)).cursor for limit in (15, 20)]
    async with aclosing(store.follow("foo", early)) as behind, aclosing(store.follow("foo", end)) as in_time:
        await anext(behind)
        waiting = asyncio.create_task(anext(in_time))
        await store.drop_old(now() + LATER)
        left = files(tmp_path)
        await store.drop_old(now() + LATER)
        assert files(tmp_path) == left, "nothing more to drop"
        assert not await read_all(store)
        assert [found.text for found in await read_all(store, early)] == [mark(5)]
        assert not await read_all(store, end)
        async with LocalLogStore(tmp_path, MONTH) as again:
            assert await again.reached("foo", POD) == 99
            assert [found.text for found in await read_all(again, early)] == [mark(5)]
        await store.append("foo", [line("20")])
        assert [found.text for found in (await waiting).lines] == ["20"]
        assert [found.text for found in await read_all(store, early)] == [mark(5), "20"]
    text = b"".join(file.read_bytes() for file in files(tmp_path))
    assert len(text) < 1000


async def test_offsets_without_lines_take_little_space_and_outlive_every_age(tmp_path: Path) -> None:
    """As those of the edge's file, whose lines go to the apps that they name."""
    bounds = replace(MONTH, app_bytes=16 * 1024)
    async with LocalLogStore(tmp_path, bounds) as store:
        for n in range(300):
            await store.append("", [], Reached("edge", n))
        await store.drop_old(now() + LATER)
        await store.append("", [], Reached("edge", 300))
        assert len(store._logs[""].segments.view.segments) == 1
    (file,) = files(tmp_path, "_")
    assert file.stat().st_size < bounds.app_bytes / 4
    async with LocalLogStore(tmp_path, bounds) as store:
        assert await store.reached("", "edge") == 300


async def test_a_follower_that_waits_is_told_of_what_goes(tmp_path: Path, store: LocalLogStore) -> None:
    """Its next page was lost while it looked elsewhere."""
    await append(store, 0, 100)
    cursor = (await store.read("foo", limit=10)).cursor
    async with aclosing(store.follow("foo", cursor)) as pages:
        await store.drop_old(now() + LATER)
        page = await anext(pages)
        assert [found.text for found in page.lines] == [mark(90)]
        await append(store, 100, 101)
        assert numbers(list((await anext(pages)).lines)) == [100]


async def test_lines_that_trickle_go_in_time(tmp_path: Path) -> None:
    """A segment is closed after a part of the age, however small it is."""
    async with LocalLogStore(tmp_path, replace(BOUNDS, age=1600)) as store:
        await store.append("foo", [line("0", at=now() - timedelta(seconds=101))])
        await store.append("foo", [line("1", at=now() - timedelta(seconds=50))])
        await store.append("foo", [line("2")])
    assert [first_of(file) for file in files(tmp_path)] == [0, 1]
    async with LocalLogStore(tmp_path, replace(BOUNDS, age=640)) as store:
        await store.append("foo", [line("3")])
        assert numbers(await read_all(store)) == [0, 1, 2, 3]
    assert [first_of(file) for file in files(tmp_path)] == [0, 1, 3]


async def test_all_apps_together_keep_the_total(tmp_path: Path) -> None:
    """Those over their fair share give; the others keep everything, also across a restart."""
    bounds = Bounds(SMALL, 70_000, age=3600)
    counts = {"big": 400, "big-too": 400, "small": 100, "tiny": 1}
    cursors = {}
    async with LocalLogStore(tmp_path, bounds) as store:
        for app in counts:
            await append(store, 0, 1, app=app)
            cursors[app] = (await store.read(app)).cursor
        await asyncio.gather(*(append(store, 1, count, app=app) for app, count in counts.items()))
        assert sum(file.stat().st_size for file in tmp_path.rglob("*.log")) > bounds.total_bytes
        await store.drop_old(now())
    sizes = {app: sum(file.stat().st_size for file in files(tmp_path, app)) for app in counts}
    assert bounds.total_bytes * 0.8 < sum(sizes.values()) <= bounds.total_bytes
    async with LocalLogStore(tmp_path, bounds) as store:
        for app, count in counts.items():
            lines = await read_all(store, cursors[app], app=app)
            if app.startswith("big"):
                told = lines.pop(0)
                assert told.text == mark(count - 1 - len(lines))
            assert numbers(lines) == list(range(count - len(lines), count))
            assert app.startswith("big") or len(lines) == count - 1


def test_what_is_chosen_is_enough_and_no_more() -> None:
    choose = random.Random(7)
    at = now()
    for _ in range(300):
        count = choose.randrange(1, 8)
        stored = [
            Stored(f"app{n}", f"{k:016x}-0.log", choose.randrange(1, 100), at.timestamp() - 100 + k)
            for n in range(count)
            for k in range(choose.randrange(1, 12))
        ]
        bounds = Bounds(1000, choose.randrange(1, 3000), age=choose.choice([50.0, 95.0, 1000.0]))
        drops = choose_drops(stored, bounds, at)
        dropped = {(segment.app, segment.name) for chosen in drops.values() for segment in chosen}
        old = {(found.app, found.name) for found in stored if found.written < at.timestamp() - bounds.age}
        kept = [found for found in stored if (found.app, found.name) not in dropped]
        assert old <= dropped
        assert sum(found.size for found in kept) <= bounds.total_bytes or not kept
        young = [found for found in stored if (found.app, found.name) not in old]
        sizes: Counter[str] = Counter()
        for found in young:
            sizes[found.app] += found.size
        modest = {app for app, size in sizes.items() if size * len(sizes) <= bounds.total_bytes}
        assert not [name for app, name in dropped - old if app in modest], "a fair share is nobody's to take"
        if sum(sizes.values()) <= bounds.total_bytes:
            assert dropped == old
        for app in sizes:
            names = [found.name for found in stored if found.app == app]
            gone = [name for name in names if (app, name) in dropped]
            assert gone == names[: len(gone)], "the oldest of each app"


def test_a_segment_that_grew_since_it_was_chosen_stays(tmp_path: Path) -> None:
    segments = Segments(tmp_path / "foo", BOUNDS)
    segments.append([Batch([line("0")], None)])
    (chosen,) = [(file.name, file.stat().st_size) for file in files(tmp_path)]
    segments.append([Batch([line("1")], None)])
    segments.drop({chosen})
    assert segments.view.first == 0
    (chosen,) = [(file.name, file.stat().st_size) for file in files(tmp_path)]
    segments.drop({chosen})
    assert (segments.view.first, segments.view.end) == (2, 2)


async def test_one_app_that_cannot_drop_keeps_no_other_from_it(
    tmp_path: Path, store: LocalLogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.parent.name == "bar":
            raise OSError(5, "Input/output error")
        real(path, missing_ok)

    for app in ("bar", "foo"):
        await append(store, 0, 10, app=app)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        with pytest.raises(Unavailable, match="Input/output error"):
            await store.drop_old(now() + LATER)
    assert not await read_all(store, app="foo")
    await store.drop_old(now() + LATER)
    assert not await read_all(store, app="bar")


async def test_what_was_dropped_is_not_read_from_memory(store: LocalLogStore) -> None:
    await store.append("foo", [Line(now(), "app", noise(0))])
    assert (await store.read("foo")).lines
    await store.drop_old(now() + LATER)
    await store.append("foo", [Line(now(), "app", noise(1))])
    assert numbers(await read_all(store)) == [1]
