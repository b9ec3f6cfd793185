"""The tour that `make show` prints, as a test."""

import pytest

from tests.conftest import QUICK
from tests.e2e import show
from tests.platform import Platform

pytestmark = pytest.mark.e2e


async def test_the_tour_of_a_platforms_life(database_url: str | None) -> None:
    told: list[str] = []
    async with Platform(database_url, QUICK | show.SHORT) as platform:
        await show.tell(platform, told.append)
    assert told[-1] == "destroy leaves no process, no file, no row and no route"
