"""A build numbers 200,000 lines; its reader is cut 1,000 times, the platform restarts twice."""

from time import monotonic

from tests.e2e import building
from tests.e2e.developer import Developer
from tests.e2e.test_builds import read_while_cutting
from tests.platform import Platform

LINES, SECONDS, CUTS = 200_000, 60.0, 1_000


async def drill_build_log() -> None:
    began = monotonic()
    async with Platform(environment=building.VERBOSE) as platform:
        ann = await Developer.join(platform)
        reader = await read_while_cutting(ann, lines=LINES, seconds=SECONDS, cuts=CUTS)
        record = await ann.call("GET", "apps/shop/builds/1/", status=200)
        print(
            f"{LINES:,} lines written, {LINES:,} read, in order, each once; build: {record['duration']:.0f} s"
        )
        print(f"{reader.done:,} answers cut, {reader.failed} requests found no platform, 2 restarts")
        print(f"{monotonic() - began:.0f} s in all")
