"""The platform dies and comes back; no pod notices."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from drycc.backends.cluster.base import AppSpec, Pod
from drycc.backends.cluster.local.cluster import LocalCluster, open_local
from drycc.backends.cluster.local.environment import INSTANCE, POD
from drycc.kit import process
from tests.backends.cluster.local.conftest import (
    WEB,
    Bench,
    alive,
    kill_program,
    observed,
    pod_directory,
    rolled_out,
    route,
    spec,
    web,
)
from tests.platform import exchange
from tests.postgres import free_port

ROOT = Path(__file__).parents[4]


@pytest.fixture(autouse=True)
def images(bench: Bench) -> None:
    bench.add_image(1, {"web.py": WEB})
    bench.add_image(2, {"web.py": WEB})


async def start(bench: Bench, desired: AppSpec) -> list[Pod]:
    """Run it, then leave as a crash would: nothing is told to stop."""
    async with bench.open() as cluster:
        await route(cluster)
        await cluster.workloads.apply(desired)
        return list((await rolled_out(cluster, desired.workloads[0].release, 2)).pods)


async def test_adopted_pods_are_the_same_and_serve_before_anything_is_applied(bench: Bench) -> None:
    before = await start(bench, spec(3, web(2, replicas=2)))
    pids, serving = await bench.processes(), bench.edge.serving()
    async with bench.running() as cluster:
        assert {pod.name for pod in await cluster.pods.list("blog")} == {pod.name for pod in before}
        assert all(pod.is_ready and pod.restarts == 0 for pod in await cluster.pods.list("blog"))
        # Another app's change sends a new snapshot: it must name the pods and hosts of this one.
        await route(cluster, "shop")
        assert bench.edge.serving() == serving
        assert bench.edge.snapshot.hosts == {"blog.localhost": "blog", "shop.localhost": "shop"}
        await cluster.workloads.apply(spec(3, web(2, replicas=2)))
        after = await rolled_out(cluster, 2, 2)
        assert [pod.started for pod in after.pods] == [pod.started for pod in before]
        assert await bench.processes() == pids
        assert bench.edge.serving() == serving

        # They are ours as before: an exit is noticed and repaired, a new template replaces them.
        await kill_program(pod_directory(bench, before[0].name))
        await observed(cluster, lambda seen: any(pod.restarts == 1 and pod.is_ready for pod in seen.pods))
        await cluster.workloads.apply(spec(4, web(3, image="blog:2", replicas=2)))
        await rolled_out(cluster, 3, 2)
    assert [pid for pid in pids if alive(pid)] == []


async def test_an_exit_while_we_were_dead_is_known(bench: Bench) -> None:
    command = (
        "test -e ../was-here && exec python3 web.py; touch ../was-here; trap 'exit 7' TERM; exec python3 w.py"
    )
    bench.add_image(1, {"web.py": WEB, "w.py": WEB.replace("sys.exit(0)", "os._exit(7)")})
    before = await start(bench, spec(1, web(2, command=command, replicas=2)))
    directory = pod_directory(bench, before[0].name)
    record = json.loads((directory / "spec.json").read_text())
    leader = process.Process(record["pid"], record["start_time"])
    process.signal_group(leader, signal.SIGTERM)
    async with asyncio.timeout(10):
        await process.ended(leader)
    async with bench.running() as cluster:
        listed = {pod.name: pod for pod in await cluster.pods.list("blog")}
        dead = listed[before[0].name]
        assert dead.state == "crashed"
        assert dead.last_exit is not None
        assert dead.last_exit.code == 7
        assert listed[before[1].name].state == "up"
        await cluster.workloads.apply(spec(1, web(2, command=command, replicas=2)))
        after = await rolled_out(cluster, 2, 2)
        assert {pod.name: pod.restarts for pod in after.pods} == {before[0].name: 1, before[1].name: 0}


async def test_pods_of_an_unknown_template_are_old_ones(bench: Bench) -> None:
    """We died after the pointer moved and before the cluster heard of it."""
    before = await start(bench, spec(1, web(2, replicas=2)))
    async with bench.running() as cluster:
        await cluster.workloads.apply(spec(2, web(3, command="exec sleep 600", replicas=2)))
        seen = await observed(cluster, lambda seen: seen.updated == 2)
        assert (seen.old, seen.serving) == (2, 0)
        assert bench.edge.serving().keys() == {pod.name for pod in before}
        # Its environment died with us, so an old pod that exits cannot be started again.
        await kill_program(pod_directory(bench, before[0].name))
        await observed(cluster, lambda seen: seen.old == 1)
        assert bench.edge.serving().keys() == {before[1].name}
        await cluster.workloads.apply(spec(3, web(4, replicas=2)))
        await rolled_out(cluster, 4, 2)


async def test_what_nobody_wants_is_ended_with_its_whole_group(bench: Bench) -> None:
    before = await start(bench, spec(1, web(2, replicas=2)))
    lost = pod_directory(bench, before[0].name)
    (lost / "spec.json").write_text("{")
    sh = ("/bin/sh", "-c", "sleep 600 & exec sleep 601")
    env = {POD: "f" * 32, INSTANCE: bench.instance}
    stray = await process.spawn(sh, env, output=None)
    other = await process.spawn(sh, env | {POD: "e" * 32, INSTANCE: bench.instance + "2"}, output=None)
    edge = await process.spawn(sh, env | {POD: "edge"}, output=None)
    try:
        async with bench.running() as cluster:
            async with asyncio.timeout(10):
                await process.ended(stray)
            assert not lost.exists()
            assert [pod.name for pod in await cluster.pods.list("blog")] == [before[1].name]
            await cluster.workloads.apply(spec(1, web(2, replicas=2)))
            await rolled_out(cluster, 2, 2)
            assert process.is_alive(other)
            assert process.is_alive(edge)
            await process.stop(edge, 5)
    finally:
        for one in (other, edge, stray):
            await process.stop(one, 1)
            await process.ended(one)


async def test_an_app_that_was_removed_is_gone_after_a_crash_amid_it(bench: Bench) -> None:
    await start(bench, spec(1, web(2, replicas=2)))
    (bench.data / "apps/blog.json").unlink()
    async with bench.running() as cluster:
        async with asyncio.timeout(10):
            while await bench.processes():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert await cluster.pods.list("blog") == []
        assert list((bench.data / "pods").iterdir()) == []


async def test_stop_says_what_it_ends_and_a_later_start_begins_anew(bench: Bench) -> None:
    before = await start(bench, spec(1, web(2, replicas=2)))
    said: list[str] = []
    async with bench.open() as cluster:
        await cluster.stop(said.append)
        assert await bench.processes() == []
    assert said == [
        *(f"stopping {pod.name}" for pod in before),
        "stopping the edge",
        "nothing is left running",
    ]
    assert bench.edge.journal[-1] == "stop"
    async with bench.running() as cluster:
        await cluster.workloads.apply(spec(1, web(2, replicas=2)))
        after = await rolled_out(cluster, 2, 2)
        assert all(pod.restarts == 0 for pod in after.pods)


# ---- with a process that is really killed, and the real edge


@dataclass
class Machine:
    bench: Bench
    run: Path
    port: int

    @asynccontextmanager
    async def open(self) -> AsyncIterator[LocalCluster]:
        async with open_local(
            self.bench.data,
            self.run,
            instance=self.bench.instance,
            edge_listen=f"127.0.0.1:{self.port}",
            python="/usr/bin/python3",
            build_env={},
            grace=5,
            backoff=0.05,
            backoff_cap=0.4,
            idle_timeout=60,
        ) as cluster:
            yield cluster

    async def get(self, name: str) -> tuple[int, str]:
        headers = {"Host": "blog.localhost"}
        answer = await asyncio.to_thread(exchange, self.port, "GET", f"/{name}", headers, None, 10)
        return answer.status, answer.body.decode()

    async def serve_and_die(self, at: str = "") -> None:
        """Another process deploys the app and is killed while it serves, or dies at a named point."""
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.backends.cluster.local.driver", str(self.bench.data)),
            *(str(self.run), self.bench.instance, f"127.0.0.1:{self.port}"),
            cwd=ROOT,
            env=os.environ | {"DRYCC_CRASH": at},
            stdout=asyncio.subprocess.PIPE,
        )
        assert child.stdout is not None
        try:
            async with asyncio.timeout(30):
                assert await child.stdout.readline() == (b"" if at else b"serving\n")
                if at:
                    assert await child.wait() == 137
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()


@pytest.fixture
async def machine(bench: Bench) -> AsyncIterator[Machine]:
    with TemporaryDirectory(prefix="drycc-") as run:
        machine = Machine(bench, Path(run), free_port())
        yield machine
        async with machine.open() as cluster:
            await cluster.stop(lambda line: None)
        assert await bench.processes() == []


async def test_apps_serve_while_the_platform_is_dead(machine: Machine) -> None:
    await machine.serve_and_die()
    pids = sorted(await machine.bench.processes())
    assert (await machine.get("WHO")) == (200, "")
    for round in range(3):
        async with machine.open() as cluster:
            assert (await machine.get("WHO"))[0] == 200
            await cluster.workloads.apply(spec(2 + round, web(2, replicas=2)))
            await rolled_out(cluster, 2, 2)
        assert sorted(await machine.bench.processes()) == pids, "the same pods and the same edge"
    async with machine.open() as cluster:
        await cluster.workloads.apply(spec(9, web(3, replicas=2, env={"WHO": "new"})))
        await rolled_out(cluster, 3, 2)
        assert await machine.get("WHO") == (200, "new")
        await cluster.workloads.remove("blog", 9)
        assert (await machine.get("WHO"))[0] == 404


async def test_a_death_right_after_the_turn_is_nothing_to_the_app(machine: Machine) -> None:
    await machine.serve_and_die(at="rollout.turned")
    pids = await machine.bench.processes()
    assert await machine.get("WHO") == (200, "")
    async with machine.open() as cluster:
        for app in ("shop", "blog"):
            await route(cluster, app)
            assert await machine.get("WHO") == (200, "")
        await cluster.workloads.apply(spec(1, web(2, replicas=2)))
        await rolled_out(cluster, 2, 2)
        assert await machine.get("WHO") == (200, "")
        assert set(pids) <= set(await machine.bench.processes())


async def test_requests_lost_by_no_deploy(machine: Machine) -> None:
    """ED-12 as far as the cluster goes: constant load, three deploys, a scale down, and nothing fails."""
    answers: list[tuple[int, str]] = []
    async with machine.open() as cluster:
        await route(cluster)
        await cluster.workloads.apply(spec(1, web(2, env={"WHO": "v2"})))
        await rolled_out(cluster, 2)
        is_over = asyncio.Event()

        async def load() -> None:
            while not is_over.is_set():
                answers.append(await machine.get("WHO"))

        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(load())
            for release in (3, 4, 5):
                desired = spec(release, web(release, replicas=2, env={"WHO": f"v{release}"}))
                await cluster.workloads.apply(desired)
                await rolled_out(cluster, release, 2)
                reached = len(answers)
                # RL-03: done means done.
                assert await machine.get("WHO") == (200, f"v{release}")
            await cluster.workloads.apply(spec(9, web(5, env={"WHO": "v5"})))
            await rolled_out(cluster, 5)
            is_over.set()
    assert {status for status, _ in answers} == {200}
    assert reached > 50
    assert {text for _, text in answers[reached + 6 :]} <= {"v5"}
