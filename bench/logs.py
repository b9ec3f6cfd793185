"""What a log line costs: `python -m bench.logs` prints lines a second and bytes a line.

A line has 140 bytes: random words in the form of a request, which compress like real text.
"""

import asyncio
import random
import string
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

from tests.logs.printed import PrintedCluster

from drycc.backends.logstore.base import Line
from drycc.backends.logstore.retention import Bounds
from drycc.backends.logstore.ring import LocalLogStore
from drycc.kit.aio import cancel
from drycc.kit.ids import now
from drycc.logs.ingest import Ingest

LINES = 200_000
POD = "foo-web-123456789-abcde"


def make_texts(count: int) -> list[str]:
    choose = random.Random(1)
    words = ["".join(choose.choices(string.ascii_lowercase, k=choose.randrange(2, 9))) for _ in range(3000)]
    texts = []
    for _ in range(count):
        said = " ".join(choose.choices(words, k=25))
        address = f"10.0.{choose.randrange(256)}.{choose.randrange(256)}"
        texts.append(
            f'{address} "GET /{choose.choice(words)} HTTP/1.1" 200 {choose.randrange(99999)} {said}'[:140]
        )
    return texts


async def append_batches(root: Path, texts: list[str]) -> None:
    async with LocalLogStore(root, Bounds(2**30, 2**32, age=3600)) as store:
        for start in range(0, len(texts), 1000):
            at = now()
            await store.append(
                "foo", [Line(at, "app", text, "web", 2, POD) for text in texts[start : start + 1000]]
            )


async def ingest_file(root: Path, texts: list[str]) -> None:
    cluster = PrintedCluster(root)
    cluster.add(POD).write_text("".join(f"{text}\n" for text in texts))
    cluster.end(POD)
    async with LocalLogStore(root / "logs", Bounds(2**30, 2**32, age=3600)) as store:
        task = asyncio.create_task(Ingest(cluster, store).run())
        while POD not in cluster.forgotten:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await cancel(task)


async def read_back(root: Path, texts: list[str]) -> None:
    async with LocalLogStore(root / "logs", Bounds(2**30, 2**32, age=3600)) as store:
        cursor = None
        while (page := await store.read("foo", cursor=cursor)).lines:
            cursor = page.cursor


async def main() -> None:
    texts = make_texts(LINES)
    with TemporaryDirectory() as name:
        root = Path(name)
        (root / "pods").mkdir()
        for what, act in (
            ("append", append_batches),
            ("ingest a file", ingest_file),
            ("read back", read_back),
        ):
            home = root / ("appended" if act is append_batches else "pods")
            wall, cpu = perf_counter(), process_time()
            await act(home, texts)
            wall, cpu = perf_counter() - wall, process_time() - cpu
            print(f"{what:14} {LINES / wall:>9,.0f} lines/s {cpu / LINES * 1e6:>6.2f} µs CPU a line")
        size = sum(file.stat().st_size for file in (root / "appended").rglob("*.log"))
    print(f"on disk        {size / LINES:>9.1f} bytes a line of 140")


asyncio.run(main())
