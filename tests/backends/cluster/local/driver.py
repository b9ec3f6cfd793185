"""A platform for tests to kill: holds the local cluster, applies one app, says when it serves, then waits."""

import asyncio
import sys
from pathlib import Path

from drycc.backends.cluster.base import RouteTable
from drycc.backends.cluster.local.cluster import open_local
from tests.backends.cluster.local.conftest import rolled_out, spec, web


async def main(data: Path, run: Path, instance: str, listen: str) -> None:
    async with open_local(
        data,
        run,
        instance=instance,
        edge_listen=listen,
        python="/usr/bin/python3",
        build_env={},
        grace=5,
        backoff=0.05,
        backoff_cap=0.4,
        idle_timeout=60,
    ) as cluster:
        await cluster.routes.apply(RouteTable("blog", ("blog.localhost",)))
        await cluster.workloads.apply(spec(1, web(2, replicas=2)))
        await rolled_out(cluster, 2, 2)
        print("serving", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]))
