"""An edge for every test, and one that the whole run shares for tests that leave it as it was."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.backends.cluster.local.edge.rig import Rig, running_rig


@pytest.fixture(scope="session")
def shared_edge() -> Iterator[Rig]:
    """Each test starts and leaves it: the first one's `start` makes the process, later ones adopt it."""
    rig = Rig()
    yield rig

    async def end() -> None:
        await rig.control.start()
        await rig.control.stop()

    asyncio.run(end())
    rig.remove()


@pytest.fixture
async def rig(shared_edge: Rig) -> AsyncIterator[Rig]:
    shared_edge.control = shared_edge.new_control()
    await shared_edge.control.start()
    yield shared_edge
    await shared_edge.control.leave()


@pytest.fixture
async def own_rig() -> AsyncIterator[Rig]:
    """For tests that end or upset their edge."""
    async with running_rig() as rig:
        yield rig
