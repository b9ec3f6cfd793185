"""Pods on a disk that is full to the last byte: nothing ends but what cannot go on, and all of it is told."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from drycc.backends.cluster.base import OneOff
from drycc.errors import NoSpace
from drycc.kit import process
from tests.backends.cluster.local.conftest import (
    WEB,
    Bench,
    kill_program,
    observed,
    pod_directory,
    rolled_out,
    route,
    spec,
    web,
)
from tests.smalldisk import Disk, small_disk
from tests.waiting import until

KIB = 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", 8) as disk:
        yield disk


@pytest.fixture
def bench(disk: Disk) -> Bench:
    made = Bench(disk.seen)
    made.add_image(1, {"web.py": WEB, "payload": "x" * 1024 * KIB})
    return made


async def test_pods_go_on_end_and_are_stopped_without_a_byte_of_space(bench: Bench, disk: Disk) -> None:
    async with bench.running() as cluster:
        await route(cluster)
        await cluster.workloads.apply(spec(1, web(2, replicas=2)))
        first, second = (pod.name for pod in (await rolled_out(cluster, 2, 2)).pods)
        disk.fill()
        await kill_program(pod_directory(bench, first))
        seen = await observed(cluster, lambda seen: seen.ready == 1 and seen.exits > 2)
        (lost,) = [pod for pod in seen.pods if pod.name == first]
        assert (lost.state, lost.last_exit and lost.last_exit.code) == ("crashed", 126)
        assert lost.last_exit
        assert "no space is left" in lost.last_exit.reason
        disk.fill()  # what the lost pod has given back
        with pytest.raises(NoSpace):
            await cluster.workloads.apply(spec(2, web(2, replicas=3)))
        assert bench.edge.serving().keys() == {second}
        disk.free()
        await cluster.workloads.apply(spec(2, web(2, replicas=3)))
        await rolled_out(cluster, 2, 3)
        disk.fill()


async def test_a_copy_that_finds_no_space_is_removed_and_made_again(bench: Bench, disk: Disk) -> None:
    async with bench.running() as cluster:
        disk.fill(leave=600 * KIB)  # for the record, and for half of the tree, whose size is not known
        await cluster.workloads.apply(spec(1, web(2)))
        seen = await observed(cluster, lambda seen: seen.exits > 0)
        assert seen.pods[0].last_exit
        assert "no space is left" in seen.pods[0].last_exit.reason
        directory = pod_directory(bench, seen.pods[0].name)
        await until(lambda: not (directory / "root").exists() or disk.left() > 400 * KIB)
        disk.free()
        await rolled_out(cluster, 2, 1)


async def test_an_end_is_noted_by_a_pod_whose_platform_is_gone(
    bench: Bench, disk: Disk, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    runs = tmp_path / "runs"
    command = f"touch {runs}; while [ ! -e {told} ]; do sleep 0.02; done; exit 7"
    async with bench.open() as cluster:
        await cluster.workloads.apply(spec(1, web(2, command=command, ptype="worker", ready_after=0)))
        await rolled_out(cluster, 2, 1, ptype="worker")
        await until(runs.exists)
    disk.fill()
    told.touch()
    for one in await process.find("DRYCC_INSTANCE", bench.instance):
        await asyncio.wait_for(process.ended(one), 10)
    async with bench.running() as cluster:
        (pod,) = await cluster.pods.list("blog")
        assert pod.last_exit
        assert (pod.last_exit.code, pod.last_exit.signal) == (7, None)


async def test_a_one_off_that_cannot_start_says_why_and_another_id_works_later(
    bench: Bench, disk: Disk
) -> None:
    async with bench.running() as cluster:
        await cluster.workloads.apply(spec(1, web(2)))
        await rolled_out(cluster, 2)
        disk.fill()
        await cluster.pods.run(step("first"))
        end = await cluster.pods.wait("first")
        assert end.code == 126
        assert "no space is left" in end.reason
        await cluster.pods.cancel("first")
        disk.free()
        await cluster.pods.forget("first")
        await cluster.pods.run(step("second"))
        assert (await cluster.pods.wait("second")).code == 0


def step(id: str) -> OneOff:
    return OneOff(id, "blog", "release", 2, "blog:1", "test -s payload", {}, generation=1)
