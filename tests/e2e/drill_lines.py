"""A writer numbers 200,000 lines; two readers are cut 1,000 times each, the platform is killed twice."""

from tests.e2e.test_lines import read_and_kill
from tests.platform import Platform


async def drill_lines() -> None:
    async with Platform() as platform:
        print(await read_and_kill(platform, lines=200_000, cuts=1_000, kills=2, pause=0.008))
