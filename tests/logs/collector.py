"""A process that collects the output files of a directory until it is killed, or until all are read.

Arguments: the directory; `over` when the pods have ended.
"""

import asyncio
import sys
from pathlib import Path

from drycc.backends.logstore.retention import Bounds
from drycc.backends.logstore.ring import LocalLogStore
from drycc.kit.aio import cancel
from drycc.logs.ingest import Ingest
from tests.logs.printed import PrintedCluster


async def collect(directory: Path, is_over: bool) -> None:
    cluster = PrintedCluster(directory)
    for path in directory.glob("*.out"):
        cluster.add(path.stem, "" if path.stem == "edge" else "foo", is_over=is_over)
    pods = set(cluster.listed)
    async with LocalLogStore(directory / "logs", Bounds(2**26, 2**32, age=3600)) as store:
        collecting = asyncio.create_task(Ingest(cluster, store).run())
        async with asyncio.timeout(60):
            while set(cluster.forgotten) != pods:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await cancel(collecting)


asyncio.run(collect(Path(sys.argv[1]), "over" in sys.argv))
