"""From real processes' output to the store: each line once, whatever happens."""

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from drycc.backends.logstore.base import Filter, Line
from drycc.backends.logstore.retention import Bounds
from drycc.backends.logstore.ring import LocalLogStore
from drycc.errors import Unavailable
from drycc.kit.aio import cancel
from drycc.logs.ingest import Ingest
from tests.logs.printed import PrintedCluster

BOUNDS = Bounds(2**26, 2**32, age=3600)
ROOT = Path(__file__).parents[2]
COLLECTOR = (sys.executable, "-m", "tests.logs.collector")


@pytest.fixture
def cluster(tmp_path: Path) -> PrintedCluster:
    (tmp_path / "pods").mkdir()
    return PrintedCluster(tmp_path / "pods")


@asynccontextmanager
async def ingesting(cluster: PrintedCluster, root: Path) -> AsyncIterator[LocalLogStore]:
    async with LocalLogStore(root / "logs", BOUNDS) as store:
        task = asyncio.create_task(Ingest(cluster, store).run())
        try:
            yield store
        finally:
            await cancel(task)


async def wait_for(store: LocalLogStore, app: str, enough: Callable[[list[Line]], bool]) -> list[Line]:
    """The app's lines from the first on, once there are enough."""
    lines = list((await store.read(app, limit=100_000)).lines)
    cursor = (await store.read(app, limit=100_000)).cursor
    async with asyncio.timeout(30):
        while not enough(lines):
            page = await anext(store.follow(app, cursor))
            lines += page.lines
            cursor = page.cursor
    return lines


async def until_forgotten(cluster: PrintedCluster, pod: str) -> None:
    async with asyncio.timeout(20):
        while pod not in cluster.forgotten:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def texts(lines: list[Line]) -> list[str]:
    return [line.text for line in lines]


async def read(store: LocalLogStore, app: str = "foo") -> list[Line]:
    lines: list[Line] = []
    cursor = None
    while (page := await store.read(app, cursor=cursor)).lines:
        lines += page.lines
        cursor = page.cursor
    return lines


async def test_lg05_what_a_process_prints_becomes_lines(cluster: PrintedCluster, tmp_path: Path) -> None:
    script = r"printf 'ok\n\216\377\na\r\nb\n10%%\r20%%\r100%%\n'; echo err >&2; printf 'no newline at exit'"
    async with ingesting(cluster, tmp_path) as store:
        await cluster.run_to_end("foo-web-123456789-abcde", "sh", "-c", script)
        await until_forgotten(cluster, "foo-web-123456789-abcde")
        lines = await read(store)
        page = await store.read("foo", tail=1, only=Filter("foo-web-123456789-abcde"))
    expected = ["ok", "\ufffd\ufffd", "a", "b", "10%\r20%\r100%", "err", "no newline at exit"]
    assert texts(lines) == expected
    assert {(line.source, line.ptype, line.release, line.pod) for line in lines} == {
        ("app", "web", 2, "foo-web-123456789-abcde")
    }
    assert abs((lines[0].at - datetime.now(UTC)).total_seconds()) < 20
    assert page.is_over


async def test_a_line_arrives_while_its_process_runs(cluster: PrintedCluster, tmp_path: Path) -> None:
    async with ingesting(cluster, tmp_path) as store:
        process = await cluster.start("foo-web-1", "sh", "-c", "echo one; printf unfin; exec sleep 60")
        lines = await wait_for(store, "foo", lambda lines: len(lines) == 1)
        assert texts(lines) == ["one"], "an unfinished line waits"
        process.terminate()
        await process.wait()
        cluster.end("foo-web-1")
        lines = await wait_for(store, "foo", lambda lines: len(lines) == 2)
        assert texts(lines) == ["one", "unfin"]


async def test_a_line_of_ten_megabytes_takes_bounded_memory(cluster: PrintedCluster, tmp_path: Path) -> None:
    script = "import sys; sys.stdout.write('x' * 10_000_000); print(); print('after')"
    async with ingesting(cluster, tmp_path) as store:
        await cluster.run_to_end("foo-web-1", sys.executable, "-c", script)
        await until_forgotten(cluster, "foo-web-1")
        *pieces, after = texts(await read(store))
    assert after == "after"
    assert "".join(piece.rstrip("\u2026") for piece in pieces) == "x" * 10_000_000
    assert max(map(len, pieces)) <= 16 * 1024 + 1


async def test_a_pod_that_prints_without_end_starves_nobody(cluster: PrintedCluster, tmp_path: Path) -> None:
    async with ingesting(cluster, tmp_path) as store:
        chatty = await cluster.start("foo-web-1", "yes", "a line of the pod that never stops printing")
        try:
            await wait_for(store, "foo", lambda lines: len(lines) > 1000)
            for n in range(5):
                path = cluster.add(f"bar-web-{n}", app=f"bar{n}")
                path.write_text("quiet\n")
                async with asyncio.timeout(5):
                    await wait_for(store, f"bar{n}", lambda lines: texts(lines) == ["quiet"])
        finally:
            chatty.kill()
            await chatty.wait()
        size = cluster.listed["foo-web-1"].path.stat()
        assert size.st_blocks * 512 < 200 * 1024 * 1024


async def test_what_outruns_the_bound_is_one_line_that_counts_it(
    cluster: PrintedCluster, tmp_path: Path
) -> None:
    path = cluster.add("foo-web-1")
    with path.open("wb") as file:
        for _ in range(70):
            file.write((b"z" * 999 + b"\n") * 1049)
    size = path.stat().st_size
    cluster.end("foo-web-1")
    async with ingesting(cluster, tmp_path) as store:
        await until_forgotten(cluster, "foo-web-1")
        page = await store.read("foo")
        total = len(await read(store))
    mark = page.lines[0]
    skipped = size - (total - 1) * 1000
    assert mark.source == "platform"
    assert mark.text == f"WARN foo-web-1 prints faster than its log is kept: {skipped} bytes left out"


async def test_a_restart_in_order_neither_loses_nor_doubles(cluster: PrintedCluster, tmp_path: Path) -> None:
    script = "i=0; while [ $i -lt 6000 ]; do echo $i; i=$((i+1)); done"
    process = await cluster.start("foo-web-1", "sh", "-c", script)
    for _ in range(10):
        async with ingesting(cluster, tmp_path):
            await asyncio.sleep(random.uniform(0, 0.03))
    await process.wait()
    cluster.end("foo-web-1")
    async with ingesting(cluster, tmp_path) as store:
        await until_forgotten(cluster, "foo-web-1")
        assert texts(await read(store)) == [str(n) for n in range(6000)]


async def test_lg02_a_collector_killed_at_random_neither_loses_nor_doubles(tmp_path: Path) -> None:
    """Two pods print, the edge logs, and the collector is killed 12 times in the middle of its work."""
    choose = random.Random(6)
    names = ("foo-web-1", "foo-web-2")
    script = "import time\nfor n in range(20000):\n print(n, flush=n % 50 == 0)\n n % 50 or time.sleep(.004)"
    printing = []
    for name in names:
        with (tmp_path / f"{name}.out").open("wb") as output:
            printing.append(await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=output))
    with (tmp_path / "edge.out").open("wb", buffering=0) as edge:
        for n in range(12):
            collector = await asyncio.create_subprocess_exec(*COLLECTOR, tmp_path, cwd=ROOT)
            for _ in range(10):
                records = [record(choose.choice(["foo", "bar"]), f"GET /{n}") for _ in range(30)]
                edge.write("".join(records).encode())
                await asyncio.sleep(choose.uniform(0, 0.09))
            collector.send_signal(signal.SIGKILL)
            await collector.wait()
    for process in printing:
        assert await process.wait() == 0
    collector = await asyncio.create_subprocess_exec(*COLLECTOR, tmp_path, "over", cwd=ROOT)
    assert await collector.wait() == 0
    async with LocalLogStore(tmp_path / "logs", BOUNDS) as store:
        lines = await read(store)
        for name in names:
            assert [line.text for line in lines if line.pod == name] == [str(n) for n in range(20_000)]
        requests = [line for line in [*lines, *await read(store, "bar")] if line.source == "access"]
    assert sorted(int(line.text.removeprefix("GET /")) for line in requests) == sorted(list(range(12)) * 300)


def record(app: str, text: str) -> str:
    at = datetime.now(UTC).isoformat(timespec="microseconds")
    return json.dumps({"app": app, "at": at, "text": text}) + "\n"


async def test_access_records_go_to_their_apps(cluster: PrintedCluster, tmp_path: Path) -> None:
    path = cluster.add("edge", app="")
    at = "2016-10-18T20:29:38.000001+00:00"
    path.write_text(
        record("foo", "GET / 200")
        + '{"app": "foo", "te\n'
        + json.dumps({"app": "bar", "at": at, "text": "GET /ü\nX 404"})
        + "\n[1]\n"
        + json.dumps({"app": "../x", "at": at, "text": "no"})
        + "\n"
        + record("foo", "GET /2 200")
        + record("baz", "GET /" + "\xff" * 8000)
    )
    async with ingesting(cluster, tmp_path) as store:
        foo = await wait_for(store, "foo", lambda lines: len(lines) == 2)
        bar = await wait_for(store, "bar", lambda lines: len(lines) == 2)
        baz = await wait_for(store, "baz", lambda lines: len(lines) == 1)
    assert texts(baz) == ["GET /" + "\xff" * 8000]
    assert texts(foo) == ["GET / 200", "GET /2 200"]
    assert {line.source for line in [*foo, *bar]} == {"access"}
    assert (texts(bar), bar[0].at.isoformat()) == (["GET /ü", "X 404"], at)
    assert not (tmp_path / "x").exists()


async def test_a_store_that_cannot_write_holds_the_lines_up(
    cluster: PrintedCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def fail(handle: int) -> None:
        loop.call_soon_threadsafe(failed.set)
        raise OSError(28, "No space left on device")

    async with ingesting(cluster, tmp_path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", fail)
            cluster.add("foo-web-1").write_text("one\ntwo\n")
            async with asyncio.timeout(10):
                await failed.wait()
        lines = await wait_for(store, "foo", lambda lines: len(lines) >= 2)
        assert texts(lines) == ["one", "two"]


async def test_a_pod_that_cannot_be_forgotten_is_forgotten_later(
    cluster: PrintedCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = cluster.forget, iter([True, True])

    async def forget(id: str) -> None:
        if next(failures, False):
            raise Unavailable("the cluster does not answer")
        await real(id)

    monkeypatch.setattr(cluster, "forget", forget)
    cluster.add("foo-web-1").write_text("one\nlast")
    cluster.end("foo-web-1")
    async with ingesting(cluster, tmp_path) as store:
        await until_forgotten(cluster, "foo-web-1")
        assert texts(await read(store)) == ["one", "last"]


async def test_a_destroyed_app_leaves_nothing(cluster: PrintedCluster, tmp_path: Path) -> None:
    """Its pods printed until the end, and their files vanish under the reader."""
    async with ingesting(cluster, tmp_path) as store:
        process = await cluster.start("foo-web-1", "yes")
        await wait_for(store, "foo", lambda lines: len(lines) > 100)
        process.kill()
        await process.wait()
        cluster.listed.pop("foo-web-1").path.unlink()
        await store.forget("foo")
        cluster.add("bar-web-1", app="bar").write_text("other\n")
        await wait_for(store, "bar", lambda lines: len(lines) == 1)
        assert not await read(store)
        assert not (tmp_path / "logs" / "foo").exists()
