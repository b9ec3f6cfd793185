"""Log segments on a disk that is full to the last byte."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from drycc.backends.logstore.base import Reached
from drycc.backends.logstore.ring import LocalLogStore
from drycc.errors import NoSpace
from tests.backends.logstore.lines import BOUNDS, POD, line, noise, numbers, read_all
from tests.smalldisk import Disk, small_disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", 4) as disk:
        yield disk


async def test_an_append_without_space_is_refused_whole_and_can_be_made_again(disk: Disk) -> None:
    """Blocks of 30 lines; the file offset that goes with each tells a repeat from a new one."""
    async with LocalLogStore(disk.seen / "logs", BOUNDS) as store:

        async def append(block: int) -> None:
            lines = [line(noise(number)) for number in range(30 * block, 30 * (block + 1))]
            await store.append("foo", lines, Reached(POD, 30 * (block + 1)))

        async def append_all(block: int) -> int:
            """Until one is refused, for want of space."""
            while block < 1000:
                try:
                    await append(block)
                except NoSpace:
                    return block
                block += 1
            raise AssertionError("a full disk took 1000 blocks")

        block = 0
        for leave in (100_000, 0, 5_000, 50_000):
            disk.fill(leave)
            block = await append_all(block)
            assert numbers(await read_all(store)) == list(range(30 * block))
            assert await store.reached("foo", POD) == 30 * block
            disk.free()
            await append(block)
            block += 1
        disk.fill()
    async with LocalLogStore(disk.seen / "logs", BOUNDS) as store:
        assert numbers(await read_all(store)) == list(range(30 * block))
        assert await store.reached("foo", POD) == 30 * block
