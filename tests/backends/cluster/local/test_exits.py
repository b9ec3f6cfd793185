"""Programs that end, and programs that will not."""

import asyncio
import json
import os
import signal
from itertools import pairwise
from pathlib import Path

import pytest

from drycc.backends.cluster.base import Exit
from drycc.backends.cluster.local.cluster import LocalCluster
from drycc.backends.cluster.local.directory import PodDirectory
from tests.backends.cluster.local.conftest import (
    WEB,
    Bench,
    alive,
    ask,
    kill_program,
    observed,
    pod_directory,
    rolled_out,
    route,
    spec,
    web,
)


@pytest.fixture(autouse=True)
def images(bench: Bench) -> None:
    bench.add_image(1, {"web.py": WEB})


@pytest.mark.parametrize("code", [0, 1])
async def test_sv03_sv04_a_web_that_exits_is_started_again_with_a_growing_delay(
    bench: Bench, cluster: LocalCluster, code: int
) -> None:
    await route(cluster)
    command = f"date +%s.%N; touch only-once || exit 9; exit {code}"
    await cluster.workloads.apply(spec(1, web(2, command=command)))
    seen = await observed(cluster, lambda seen: seen.exits >= 6)
    pod = seen.pods[0]
    assert (pod.state, pod.is_ready, seen.serving) == ("crashed", False, 0)
    assert pod.restarts >= 5
    assert pod.last_exit is not None
    assert (pod.last_exit.code, pod.last_exit.signal) == (code, None)
    assert [listed.state for listed in await cluster.pods.list("blog")] == ["crashed"]

    lines = await cluster.pods.tail(pod.name, 100)
    assert f"web exited with code {code}" in lines
    times = [float(line) for line in lines if line[0].isdecimal()]
    delays = [after - before for before, after in pairwise(times)]
    for delay, least in zip(delays, [0.05, 0.1, 0.2, 0.4, 0.4], strict=False):
        assert delay >= least, "doubles up to the cap"
    assert max(delays[:5]) < 2, "and not beyond it"


async def test_sv05_each_end_has_its_code_or_signal_and_web_is_undisturbed(
    bench: Bench, cluster: LocalCluster
) -> None:
    await route(cluster)
    ends = {"a": "exit 0", "b": "exit 3", "c": "kill -SEGV $$", "d": "kill -KILL $$", "e": "exec sleep 600"}
    workers = [web(2, ptype=ptype, command=command, ready_after=60) for ptype, command in ends.items()]
    await cluster.workloads.apply(spec(1, web(2), *workers))
    seen = await rolled_out(cluster, 2)
    expected = {"a": (0, None), "b": (3, None), "c": (None, "SIGSEGV"), "d": (None, "SIGKILL")}
    for ptype, (code, name) in expected.items():
        ended = (await observed(cluster, lambda seen: seen.exits >= 2, ptype=ptype)).pods[0]
        assert ended.last_exit is not None
        assert (ended.last_exit.code, ended.last_exit.signal) == (code, name)
        said = f"was ended by signal {name}" if name else f"exited with code {code}"
        assert await cluster.pods.tail(ended.name, 1) == [f"{ptype} {said}"]
    assert (await rolled_out(cluster, 2)).pods == seen.pods


async def test_sv01_nothing_of_a_group_is_left_and_its_port_is_free(
    bench: Bench, cluster: LocalCluster
) -> None:
    await route(cluster)
    deaf = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True)"
    away = "import os; os.setsid();" + deaf
    command = (
        f'python3 web.py & python3 -c "{deaf}; time.sleep(600)" & python3 -c "{away}; time.sleep(600)" & wait'
    )
    await cluster.workloads.apply(spec(1, web(2, command=command, grace=0.3)))
    pod = (await rolled_out(cluster, 2)).pods[0].name
    async with asyncio.timeout(10):
        while (await cluster.pods.tail(pod, 9)).count("deaf") < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    before, port = await bench.processes(), bench.edge.serving()[pod]
    assert len(before) >= 5

    await cluster.workloads.apply(spec(2, web(3)))
    await rolled_out(cluster, 3)
    assert [pid for pid in before if alive(pid)] == []
    with pytest.raises(ConnectionRefusedError):
        await ask(port, "PORT")


async def test_a_program_that_leaves_its_children_behind_has_ended(
    bench: Bench, cluster: LocalCluster
) -> None:
    await cluster.workloads.apply(spec(1, web(2, command="sleep 600 & sleep 601 & exit 4")))
    seen = await observed(cluster, lambda seen: seen.exits == 1)
    assert seen.pods[0].last_exit is not None
    assert seen.pods[0].last_exit.code == 4
    assert await bench.processes() == []


async def test_an_old_pod_that_crashes_meanwhile_is_started_again(
    bench: Bench, cluster: LocalCluster
) -> None:
    await route(cluster)
    await cluster.workloads.apply(spec(1, web(2, env={"X": "old"})))
    await rolled_out(cluster, 2)
    old = next(iter(bench.edge.serving()))
    await cluster.workloads.apply(spec(2, web(3, command="exec sleep 600")))
    await observed(cluster, lambda seen: seen.release == 3 and seen.updated == 1)
    for restarts in (1, 2):
        await kill_program(pod_directory(bench, old))

        def is_back(seen: object, restarts: int = restarts) -> bool:
            return any(pod.restarts == restarts and pod.is_ready for pod in seen.pods)  # type: ignore[attr-defined]

        seen = await observed(cluster, is_back)
        assert (seen.old, seen.exits) == (1, 0)
        assert await ask(bench.edge.serving()[old], "X") == "old"


async def test_a_killed_leader_takes_its_pod_with_it(bench: Bench, cluster: LocalCluster) -> None:
    await cluster.workloads.apply(spec(1, web(2)))
    pod = (await rolled_out(cluster, 2)).pods[0]
    before = await bench.processes()
    record = json.loads((pod_directory(bench, pod.name) / "spec.json").read_text())
    os.kill(record["pid"], signal.SIGKILL)
    seen = await observed(cluster, lambda seen: any(pod.restarts == 1 and pod.is_ready for pod in seen.pods))
    assert seen.pods[0].last_exit is not None
    assert seen.pods[0].last_exit.signal == "SIGKILL"
    assert [pid for pid in before if alive(pid)] == []


@pytest.mark.parametrize(
    ("image", "env", "text"),
    [
        ("blog:99", {}, "this cluster runs only images built from a push; there is no image blog:99"),
        ("nginx:latest", {}, "there is no image nginx:latest"),
        ("shop:1", {}, "there is no image shop:1"),
        ("../blog:1", {}, "there is no image ../blog:1"),
        ("blog:1", {"BIG": "x" * 200_000}, "the pod cannot be started: Argument list too long"),
        ("blog:1", {"NUL": "\0"}, "the pod cannot be started: embedded null byte"),
    ],
)
async def test_what_cannot_start_says_why_and_the_old_pods_serve(
    bench: Bench, cluster: LocalCluster, image: str, env: dict[str, str], text: str
) -> None:
    bench.add_image(1, {"web.py": WEB}, app="shop")
    await route(cluster)
    await cluster.workloads.apply(spec(1, web(2)))
    await rolled_out(cluster, 2)
    serving = bench.edge.serving()
    await cluster.workloads.apply(spec(2, web(3, image=image, env=env)))
    seen = await observed(cluster, lambda seen: seen.exits >= 3)
    failed = next(pod for pod in seen.pods if pod.is_current)
    assert failed.last_exit is not None
    assert failed.last_exit.code == 126
    assert any(line.endswith(text) for line in await cluster.pods.tail(failed.name, 10))
    assert bench.edge.serving() == serving


async def test_sv02_bad_bytes_are_shown_as_such(bench: Bench, cluster: LocalCluster) -> None:
    command = "printf 'ok\\n\\216\\377\\nstill here\\n'; exec sleep 600"
    await cluster.workloads.apply(spec(1, web(2, command=command, ready_after=0.2)))
    pod = (await rolled_out(cluster, 2)).pods[0].name
    assert await cluster.pods.tail(pod, 10) == ["ok", "\ufffd\ufffd", "still here"]
    assert await cluster.pods.tail(pod, 1) == ["still here"]
    assert await cluster.pods.tail(pod, 0) == []
    assert await cluster.pods.tail("nobody", 10) == []


async def test_output_of_ended_pods_is_kept_until_it_was_read(bench: Bench, cluster: LocalCluster) -> None:
    await route(cluster)
    for release in range(2, 10):
        command = f"echo hello from v{release}; exec python3 web.py"
        await cluster.workloads.apply(spec(release, web(release, command=command)))
        await rolled_out(cluster, release)
    files = await cluster.pods.files()
    assert files[0].path == bench.edge.access_file
    ended = [file for file in files if file.is_over]
    assert [file.release for file in ended] == [4, 5, 6, 7, 8], "the newest five"
    assert [file.release for file in files if file.ptype == "web" and not file.is_over] == [9]
    assert await cluster.pods.tail(ended[0].pod, 9) == ["hello from v4"]
    await cluster.pods.forget(ended[0].pod)
    assert not ended[0].path.exists()
    assert await cluster.pods.tail(ended[0].pod, 9) == []
    living = files[-1]
    await cluster.pods.forget(living.pod)
    assert living.path.exists()


def test_the_tail_of_a_long_output_is_bounded(tmp_path: Path) -> None:
    directory = PodDirectory(tmp_path)
    directory.out.write_bytes(b"".join(b"line %d\r\n" % n for n in range(100_000)) + b"no newline")
    assert directory.tail(3) == ["line 99998", "line 99999", "no newline"]
    assert len(directory.tail(1_000_000)) < 10_000
    directory.append("ours")
    assert directory.tail(2) == ["no newline", "ours"]


@pytest.mark.parametrize(
    ("status", "code", "name"),
    [
        ("0\n", 0, None),
        ("128\n", 128, None),
        ("139\n", None, "SIGSEGV"),
        ("192\n", None, "SIGRTMAX"),
        ("255\n", 255, None),
    ],
)
def test_a_status_is_a_code_or_a_signal(tmp_path: Path, status: str, code: int, name: str) -> None:
    (tmp_path / "status").write_text(status)
    exit = PodDirectory(tmp_path).read_exit()
    assert isinstance(exit, Exit)
    assert (exit.code, exit.signal) == (code, name)
