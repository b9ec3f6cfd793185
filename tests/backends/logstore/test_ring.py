"""The store of this machine: what is durable, what a cursor promises, what is dropped."""

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from drycc.backends.logstore.base import LINE_BYTES, Filter, Line, Page, Reached
from drycc.backends.logstore.ring import LocalLogStore
from drycc.errors import Invalid, Unavailable
from drycc.kit.ids import now
from tests.backends.logstore.lines import BOUNDS, POD, SMALL, append, line, noise, numbers, read_all

WRITER = Path(__file__).with_name("writer.py")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalLogStore]:
    async with LocalLogStore(tmp_path, BOUNDS) as opened:
        yield opened


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[LocalLogStore]:
    async with LocalLogStore(tmp_path, replace(BOUNDS, app_bytes=SMALL)) as opened:
        yield opened


async def test_lines_come_back_as_they_were(store: LocalLogStore) -> None:
    at = datetime(2016, 10, 18, 20, 29, 38, 123456, UTC)
    lines = [
        Line(at, "app", "hello", "web", 2, POD),
        Line(at, "access", "GET / 200", ""),
        Line(at, "platform", "INFO admin created initial release"),
        Line(at, "app", "ünïcode \ufffd \x00 \r 100%", "worker", 13, "foo-worker-1-2"),
        Line(at, "app", "", "web", 2, POD),
    ]
    await store.append("foo", lines)
    assert (await store.read("foo")).lines == lines
    assert await store.read("bar") == Page([], (await store.read("bar")).cursor)


async def test_lg01_reading_consumes_nothing(store: LocalLogStore) -> None:
    await append(store, 0, 250)
    for count in (100, 100, 1, 250, 999, 0):
        assert (
            numbers(list((await store.read("foo", tail=count)).lines))
            == list(range(250))[250 - min(count, 250) :]
        )


async def test_a_long_tail_is_read_page_by_page(store: LocalLogStore) -> None:
    await append(store, 0, 300)
    page = await store.read("foo", tail=200, limit=50)
    assert numbers(list(page.lines)) == list(range(100, 150))
    assert numbers(await read_all(store, page.cursor)) == list(range(150, 300))


async def test_a_page_of_long_lines_is_bounded(store: LocalLogStore) -> None:
    for n in range(40):
        await store.append("foo", [line(f"{n} " + "x" * 16_000) for n in range(n * 10, n * 10 + 10)])
    page = await store.read("foo")
    assert sum(len(found.text) for found in page.lines) < 1_100_000
    assert numbers([*page.lines, *await read_all(store, page.cursor)]) == list(range(400))


async def test_one_pod_is_read_among_others(small: LocalLogStore) -> None:
    for n in range(200):
        pod = f"foo-web-{n % 7}"
        await small.append("foo", [line(noise(n), pod)], Reached(pod, n + 1) if n % 2 else None)
    expected = [n for n in range(200) if n % 7 == 3]
    assert numbers(await read_all(small, only=Filter("foo-web-3"))) == [
        n for n in expected if n >= expected[0]
    ]
    assert numbers(list((await small.read("foo", only=Filter("foo-web-3"), tail=5)).lines)) == expected[-5:]
    assert not (await small.read("foo", only=Filter("foo-web-9"), tail=5)).lines


async def test_sv02_lines_that_are_too_long_or_several_are_split(store: LocalLogStore) -> None:
    await store.append("foo", [line("one\ntwo"), line("x" * (LINE_BYTES + 10))])
    texts = [found.text for found in (await store.read("foo")).lines]
    assert texts[:2] == ["one", "two"]
    assert "".join(texts[2:]).replace("\u2026", "") == "x" * (LINE_BYTES + 10)
    assert all(len(text) <= LINE_BYTES for text in texts)


async def test_a_lone_surrogate_harms_no_other_line(store: LocalLogStore) -> None:
    await store.append("foo", [line("a"), line("\ud800"), line("b")])
    assert [found.text for found in (await store.read("foo")).lines] == ["a", "?", "b"]


async def test_appends_that_wait_share_one_sync(
    store: LocalLogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs: list[int] = []
    real = os.fdatasync

    def count(handle: int) -> None:
        syncs.append(handle)
        real(handle)

    await append(store, 0, 1)
    monkeypatch.setattr(os, "fdatasync", count)
    await append(store, 1, 1001, size=1000)
    assert len(syncs) == 1
    await asyncio.gather(*(append(store, n, n + 1) for n in range(1001, 1101)))
    assert len(syncs) == 2
    assert sorted(numbers(await read_all(store))) == list(range(1101))


async def test_a_restart_changes_nothing(tmp_path: Path) -> None:
    cursors: dict[int, str] = {0: ""}
    for n in range(10):
        async with LocalLogStore(tmp_path, BOUNDS) as store:
            await append(store, n * 50, n * 50 + 50)
            cursors[n * 50 + 50] = (await store.read("foo", tail=1)).cursor
    async with LocalLogStore(tmp_path, BOUNDS) as store:
        for after, cursor in cursors.items():
            assert numbers(await read_all(store, cursor or None)) == list(range(after, 500))


async def test_a_repeated_append_is_ignored(tmp_path: Path) -> None:
    reached = Reached(POD, 100)
    async with LocalLogStore(tmp_path, BOUNDS) as store:
        await store.append("foo", [line("a")], reached)
        await store.append("foo", [line("a")], reached)
        assert await store.reached("foo", POD) == 100
    async with LocalLogStore(tmp_path, BOUNDS) as store:
        assert await store.reached("foo", POD) == 100
        assert await store.reached("foo", "foo-web-0") == 0
        await store.append("foo", [line("a")], reached)
        await store.append("foo", [line("b")], Reached(POD, 102))
        assert [found.text for found in (await store.read("foo")).lines] == ["a", "b"]


async def test_a_quiet_pods_offset_outlives_retention(tmp_path: Path) -> None:
    async with LocalLogStore(tmp_path, replace(BOUNDS, app_bytes=SMALL)) as store:
        await store.append("foo", [line("quiet", "foo-quiet")], Reached("foo-quiet", 6))
        await append(store, 0, 2000)
        assert "quiet" not in [found.text for found in await read_all(store)]
    async with LocalLogStore(tmp_path, replace(BOUNDS, app_bytes=SMALL)) as store:
        assert await store.reached("foo", "foo-quiet") == 6


async def test_lg02_kill_at_any_instant_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Wraps over rotation and retention several times; the writer goes on where the store says."""
    choose = random.Random(2)
    accepted = 0
    for _ in range(12):
        writer = await asyncio.create_subprocess_exec(
            sys.executable, WRITER, tmp_path, str(SMALL), "0", "7", stdout=asyncio.subprocess.PIPE
        )
        assert writer.stdout
        for _ in range(choose.randrange(1, 400)):
            accepted = int(await writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        rest = (await writer.stdout.read()).split(b"\n")[:-1]
        await writer.wait()
        accepted = int(rest[-1]) if rest else accepted
        async with LocalLogStore(tmp_path, replace(BOUNDS, app_bytes=SMALL)) as store:
            found = [int(kept.text.split()[1]) for kept in await read_all(store)]
            reached = await store.reached("foo", "foo-web-1")
        assert found == list(range(found[0], reached)), "none cut, none twice, in order"
        assert reached in (accepted, accepted + 7)


@pytest.mark.parametrize("cut", range(1, 120, 7))
async def test_a_torn_block_is_cut_off(tmp_path: Path, cut: int) -> None:
    async with LocalLogStore(tmp_path, BOUNDS) as store:
        await store.append("foo", [line("whole")], Reached(POD, 6))
        await store.append("foo", [line("torn")], Reached(POD, 11))
    (file,) = (tmp_path / "foo").glob("*.log")
    os.truncate(file, file.stat().st_size - cut)
    async with LocalLogStore(tmp_path, BOUNDS) as store:
        assert await store.reached("foo", POD) == 6
        cursor = (await store.read("foo")).cursor
        await store.append("foo", [line("again")], Reached(POD, 12))
        assert [found.text for found in (await store.read("foo", cursor=cursor)).lines] == ["again"]
    async with LocalLogStore(tmp_path, BOUNDS) as store:
        assert [found.text for found in await read_all(store)] == ["whole", "again"]


async def test_garbage_behind_the_last_block_is_cut_off(tmp_path: Path) -> None:
    async with LocalLogStore(tmp_path, BOUNDS) as store:
        await append(store, 0, 20)
    (file,) = (tmp_path / "foo").glob("*.log")
    for garbage in (b"\0" * 4096, b"\xff" * 50, random.Random(3).randbytes(5000)):
        with file.open("ab") as handle:
            handle.write(garbage)
        async with LocalLogStore(tmp_path, BOUNDS) as store:
            count = len(await read_all(store))
            await append(store, count, count + 10)
            assert numbers(await read_all(store)) == list(range(count + 10))


async def test_lg03_a_follower_reads_over_the_roll(small: LocalLogStore) -> None:
    async with aclosing(small.follow("foo", (await small.read("foo")).cursor)) as pages:
        writing = asyncio.create_task(append(small, 0, 3000, size=3))
        seen: list[Line] = []
        async for page in pages:
            seen += page.lines
            if writing.done() and page.cursor == (await small.read("foo", tail=0)).cursor:
                break
        await writing
    marks = [found for found in seen if found.source == "platform"]
    assert not marks, "a follower that keeps up meets no retention"
    assert numbers(seen) == list(range(3000))


async def test_lg03_what_retention_dropped_is_one_line_that_counts_it(small: LocalLogStore) -> None:
    await append(small, 0, 20)
    cursor = (await small.read("foo", limit=15)).cursor
    await append(small, 20, 3000)
    mark, *kept = await read_all(small, cursor)
    first = numbers(kept)[0]
    assert first > 20
    assert (mark.source, mark.text) == ("platform", f"WARN {first - 15} lines are no longer kept")
    assert numbers(kept) == list(range(first, 3000)), "one mark, then everything"
    assert (await small.read("foo")).lines[0].source == "app", "who begins anew misses nothing"


async def test_retention_bounds_the_disk(tmp_path: Path, small: LocalLogStore) -> None:
    await append(small, 0, 5000)
    size = sum(file.stat().st_size for file in (tmp_path / "foo").iterdir())
    assert SMALL / 2 < size <= SMALL + 16 * 1024


async def test_lines_that_came_one_by_one_take_little_space(tmp_path: Path) -> None:
    """Closed segments are rewritten; cursors and offsets of before stay what they were."""
    text = (
        "10.0.0.1 - - GET /path/{n} HTTP/1.1 200 some-user-agent/1.0 with a few more words in it, 140 bytes"
    )
    cursors = []
    async with LocalLogStore(tmp_path, BOUNDS) as store:
        for n in range(12_000):
            pod = "foo-web-1" if n % 1000 else "foo-web-2"
            await store.append("foo", [line(f"{n} {text.format(n=n):<130}", pod)], Reached(pod, n + 1))
            if n % 900 == 0:
                cursors.append((n + 1, (await store.read("foo", tail=0)).cursor))
        closed = sorted((tmp_path / "foo").glob("*.log"))[:-1]
        lines = int(sorted((tmp_path / "foo").glob("*.log"))[-1].name.split("-")[0], 16)
        assert closed
        assert sum(file.stat().st_size for file in closed) / lines < 80
    async with LocalLogStore(tmp_path, BOUNDS) as store:
        assert await store.reached("foo", "foo-web-1") == 12_000
        assert await store.reached("foo", "foo-web-2") == 11_001
        assert numbers(await read_all(store, only=Filter("foo-web-2"))) == list(range(0, 12_000, 1000))
        for number, cursor in cursors:
            assert numbers(await read_all(store, cursor)) == list(range(number, 12_000))


def cuts(count: int) -> Iterator[int]:
    choose = random.Random(4)
    return (choose.randrange(1, 40) for _ in range(count))


async def test_lg04_a_follower_that_is_cut_200_times_reads_each_line_once(store: LocalLogStore) -> None:
    """Many lines share one timestamp, and the writer goes on meanwhile."""
    at = now()
    stop = asyncio.Event()
    written = 0

    async def write() -> None:
        nonlocal written
        while not stop.is_set():
            await store.append("foo", [line(f"{n}", at=at) for n in range(written, written + 20)])
            written += 20

    writing = asyncio.create_task(write())
    cursor = (await store.read("foo")).cursor
    seen: list[Line] = []
    for lines in cuts(200):
        async with aclosing(store.follow("foo", cursor)) as pages:
            wanted = len(seen) + lines
            while len(seen) < wanted:
                page = await anext(pages)
                seen += page.lines
                cursor = page.cursor
    stop.set()
    await writing
    seen += await read_all(store, cursor)
    assert numbers(seen) == list(range(written))


async def test_a_follower_of_a_pod_ends_with_it(store: LocalLogStore) -> None:
    await store.append("foo", [line("one")], Reached(POD, 4))
    async with aclosing(store.follow("foo", (await store.read("foo", tail=0)).cursor, pod=POD)) as pages:
        await store.append("foo", [line("other", "foo-web-2")], Reached("foo-web-2", 6, is_last=True))
        await store.append("foo", [line("two")], Reached(POD, 7, is_last=True))
        last = await anext(pages)
        assert ([found.text for found in last.lines], last.is_over) == (["two"], True)
        with pytest.raises(StopAsyncIteration):
            await anext(pages)
    assert (await store.read("foo", cursor=last.cursor, only=Filter(POD))).is_over


async def test_a_forgotten_app_is_gone_with_what_comes_late(tmp_path: Path, store: LocalLogStore) -> None:
    await store.append("foo", [line("old")], Reached(POD, 4))
    cursor = (await store.read("foo")).cursor
    then = now()
    await store.forget("foo")
    await store.forget("foo")
    await store.append("foo", [line("late")], Reached(POD, 9))
    await store.append("foo", [Line(then, "access", "late")], Reached("edge", 9))
    await store.append("foo", [], Reached(POD, 9, is_last=True))
    assert not (await store.read("foo")).lines
    assert not list(tmp_path.iterdir())
    new = line("new", "foo-web-0")
    request = Line(now(), "access", "GET /")
    await store.append("foo", [new, request], Reached("edge", 20))
    assert (await store.read("foo", cursor=cursor)).lines == [new, request]


async def test_a_follower_sees_an_app_come_back(store: LocalLogStore) -> None:
    await store.append("foo", [line("old")])
    async with aclosing(store.follow("foo", (await store.read("foo")).cursor)) as pages:
        waiting = asyncio.ensure_future(anext(pages))
        await store.forget("foo")
        await store.append("foo", [line("new", "foo-web-0")])
        async with asyncio.timeout(5):
            assert [found.text for found in (await waiting).lines] == ["new"]


async def test_a_full_disk_is_unavailable_and_leaves_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sync fails after the block was written: the repeat is kept once."""

    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    async with LocalLogStore(tmp_path, BOUNDS) as store:
        await store.append("foo", [line("a")], Reached(POD, 2))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", fail)
            with pytest.raises(Unavailable, match="no space is left"):
                await store.append("foo", [line("b")], Reached(POD, 4))
        assert [found.text for found in (await store.read("foo")).lines] == ["a"]
        await store.append("foo", [line("b")], Reached(POD, 4))
        assert [found.text for found in (await store.read("foo")).lines] == ["a", "b"]
    async with LocalLogStore(tmp_path, BOUNDS) as store:
        assert [found.text for found in (await store.read("foo")).lines] == ["a", "b"]


async def test_foreign_cursors_and_names_are_refused(tmp_path: Path, store: LocalLogStore) -> None:
    for cursor in ("", "x", "12345678-", "12345678-x", "12345678--1", "\u0663"):
        with pytest.raises(Invalid, match="cursor"):
            await store.read("foo", cursor=cursor)
    for app in ("../etc", ".", "_", "a/b", "A"):
        with pytest.raises(Invalid, match="no name of an app"):
            await store.append(app, [line("x")])
    assert not list(tmp_path.iterdir())


async def test_memory_holds_the_newest_of_few_apps(store: LocalLogStore) -> None:
    for n in range(300):
        await store.append(f"app{n}", [line(noise(n), "")])
    held = sum(bool(log.segments.view.recent) for log in store._logs.values())
    assert held <= 4 * 32
    for n in range(300):
        assert numbers(list((await store.read(f"app{n}", tail=1)).lines)) == [n]
