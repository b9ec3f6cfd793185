"""Ten kills under constant load on two apps."""

from tests.e2e.test_kill import describe, kill_under_load
from tests.platform import Platform


async def drill_kill() -> None:
    async with Platform() as platform:
        answered, backs = await kill_under_load(platform, kills=10)
        print("10 x kill -9:", describe(answered, backs))
        assert sorted(backs)[5] <= 2, backs
        assert max(backs) <= 4, backs
