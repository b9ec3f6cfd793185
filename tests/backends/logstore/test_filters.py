"""What readers ask for: parts of the lines, from a time on, the last of them, page by page."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from drycc.backends.logstore import reading
from drycc.backends.logstore.base import EVERY_LINE, Filter, Line, Reached
from drycc.backends.logstore.blocks import Block
from drycc.backends.logstore.ring import LocalLogStore
from drycc.kit.ids import now
from tests.backends.logstore.lines import BOUNDS, append, line, noise, numbers, read_all

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
PODS = {"": "", "foo-web-1": "web", "foo-web-2": "web", "foo-worker-1": "worker"}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalLogStore]:
    async with LocalLogStore(tmp_path, BOUNDS) as opened:
        yield opened


async def fill(store: LocalLogStore, count: int) -> list[Line]:
    """Lines of some pods and of the platform, a second apart, in appends of different kinds."""
    choose = random.Random(count)
    lines: list[Line] = []
    while len(lines) < count:
        size, pod = choose.randrange(1, 30), choose.choice(list(PODS))
        pods = [pod] * size if choose.random() < 0.7 else choose.choices(list(PODS), k=size)
        new = [make_line(len(lines) + n, name) for n, name in enumerate(pods)]
        lines += new
        await store.append("foo", new, Reached(pod, len(lines)) if pod else None)
    return lines


def make_line(n: int, pod: str) -> Line:
    at = BEGIN + timedelta(seconds=n)
    return Line(at, "app" if pod else "platform", f"{noise(n)} {n % 10}%", PODS[pod], 2 if pod else 0, pod)


FILTERS = [
    EVERY_LINE,
    Filter(pod="foo-web-1"),
    Filter(ptype="web"),
    Filter(text="7%"),
    Filter(since=BEGIN + timedelta(seconds=900)),
    Filter(pod="foo-web-2", text="3%"),
    Filter(ptype="worker", since=BEGIN + timedelta(seconds=1200)),
    Filter(pod="foo-web-1", ptype="worker"),
    Filter(text="nowhere"),
]


@pytest.mark.parametrize("only", FILTERS, ids=repr)
async def test_pages_and_tails_give_what_the_filter_takes(tmp_path: Path, only: Filter) -> None:
    """In small segments, of which the closed ones are joined; before and after a restart."""
    bounds = replace(BOUNDS, app_bytes=512 * 1024)
    async with LocalLogStore(tmp_path, bounds) as store:
        lines = await fill(store, 2000)
        wanted = [found for found in lines if only.takes(found)]
        assert await read_all(store, only=only, limit=7) == wanted
    async with LocalLogStore(tmp_path, bounds) as store:
        assert await read_all(store, only=only) == wanted
        assert await read_all(store, only=only, limit=13, scan=100) == wanted
        for count in (0, 1, 50, 9999):
            page = await store.read("foo", tail=count, only=only)
            assert list(page.lines) == wanted[max(len(wanted) - count, 0) :][:1000]


async def test_a_cursor_stands_after_the_last_line_given(store: LocalLogStore) -> None:
    """Whatever is asked with it next."""
    lines = await fill(store, 500)
    page = await store.read("foo", only=Filter(ptype="web"), limit=50)
    place = lines.index(page.lines[-1]) + 1
    assert page.has_more
    assert await read_all(store, page.cursor) == lines[place:]
    workers = [found for found in lines[place:] if found.ptype == "worker"]
    assert await read_all(store, page.cursor, only=Filter(ptype="worker")) == workers
    tail = await store.read("foo", cursor=page.cursor, tail=9999)
    assert list(tail.lines) == lines[place:], "a tail begins at the cursor at the earliest"
    tail = await store.read("foo", cursor=page.cursor, tail=3)
    assert list(tail.lines) == lines[-3:]


async def test_one_read_looks_at_a_bounded_number_of_lines(store: LocalLogStore) -> None:
    """Its cursor moves on though nothing matched."""
    lines = await fill(store, 1000)
    only, cursors = Filter(text="nowhere"), []
    page = await store.read("foo", only=only, scan=100)
    while page.has_more:
        assert not page.lines
        cursors.append(page.cursor)
        page = await store.read("foo", cursor=page.cursor, only=only, scan=100)
    assert 8 <= len(set(cursors)) == len(cursors) <= 10
    assert page.cursor == (await store.read("foo", tail=0)).cursor
    assert await read_all(store, cursors[4]) == lines[-len(await read_all(store, cursors[4])) :]
    page = await store.read("foo", tail=5, only=only, scan=100)
    assert not page.lines
    page = await store.read("foo", tail=5, only=Filter(text=lines[0].text), scan=100)
    assert not page.lines, "a tail is looked for near the end"


async def test_a_time_is_found_without_reading_what_is_long_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with LocalLogStore(tmp_path, replace(BOUNDS, app_bytes=512 * 1024)) as store:
        await append(store, 0, 3000)
    files = sorted((tmp_path / "foo").glob("*.log"))
    assert len(files) > 5
    for file in files[:-2]:
        os.utime(file, (BEGIN.timestamp(), BEGIN.timestamp()))
    read: list[int] = []
    real = reading.Segment.blocks

    def look(segment: reading.Segment) -> list[Block]:
        read.append(segment.first)
        return real(segment)

    async with LocalLogStore(tmp_path, replace(BOUNDS, app_bytes=512 * 1024)) as store:
        monkeypatch.setattr(reading.Segment, "blocks", look)
        found = numbers(await read_all(store, only=Filter(since=now() - timedelta(hours=3))))
    assert found == list(range(found[0], 3000))
    assert len(read) <= 2
    for extreme, count in (
        (datetime.min.replace(tzinfo=UTC), 3000),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))), 0),
    ):
        async with LocalLogStore(tmp_path, BOUNDS) as store:
            assert len(await read_all(store, only=Filter(since=extreme))) == count


async def test_a_follower_of_a_pod_crosses_more_foreign_lines_than_one_read_looks_at(
    store: LocalLogStore,
) -> None:
    async with aclosing(store.follow("foo", (await store.read("foo")).cursor, pod="foo-web-1")) as pages:
        for _ in range(51):
            await store.append("foo", [line("other", "foo-web-2") for _ in range(2000)])
        await store.append("foo", [line("mine", "foo-web-1")])
        async with asyncio.timeout(10):
            assert [found.text for found in (await anext(pages)).lines] == ["mine"]


async def test_a_broken_block_is_counted_and_passed(tmp_path: Path) -> None:
    """On disk it ends its segment; what is in memory or in later segments is read on."""
    async with LocalLogStore(tmp_path, BOUNDS) as store:
        await append(store, 0, 10)
    (file,) = (tmp_path / "foo").glob("*.log")
    size = file.stat().st_size
    async with LocalLogStore(tmp_path, BOUNDS) as store:
        await append(store, 10, 20)
        await append(store, 20, 3000, size=100)
        with file.open("r+b") as handle:
            handle.seek(size + 100)
            handle.write(b"\xff")
        told = [found for found in await read_all(store) if found.source == "platform"]
        lines = [found for found in await read_all(store) if found.source == "app"]
    (mark,) = told
    assert numbers(lines)[:10] == list(range(10))
    assert mark.text == f"WARN {3000 - len(lines)} lines are no longer kept"
    assert numbers(lines)[10:] == list(range(3000 - len(lines) + 10, 3000))
