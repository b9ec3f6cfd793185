"""Builds and release steps: once ever for each id."""

import asyncio
import json
import os
import shlex
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from drycc.backends.cluster.base import OneOff
from drycc.backends.cluster.local import environment, one_offs
from drycc.backends.cluster.local.cluster import LocalCluster
from tests.backends.cluster.local.conftest import WEB, Bench, pod_directory, rolled_out, spec, web

PRINT_ENV = (
    "import json, os, pathlib, sys, tarfile; print('building', flush=True)\n"
    "image = pathlib.Path(os.environ['DRYCC_IMAGE_DIR'])\n"
    "image.mkdir(parents=True)\n"
    "source = pathlib.Path(os.environ['DRYCC_SOURCE']).read_text()\n"
    "result = {'digest': 'sha256:1', 'source': source, 'env': dict(os.environ), 'cwd': os.getcwd()}\n"
    "pathlib.Path(os.environ['DRYCC_RESULT']).write_text(json.dumps(result))\n"
    "print('built', file=sys.stderr)\n"
)


@pytest.fixture(autouse=True)
def image(bench: Bench) -> None:
    bench.add_image(1, {"web.py": WEB, "file": "in the image"})


def release_step(command: str, id: str = "release-1", *, timeout: float = 60) -> OneOff:
    return OneOff(id, "blog", "release", 2, "blog:1", command, {"WHO": "alice"}, timeout, generation=1)


async def read_all(cluster: LocalCluster, id: str, offset: int = 0) -> str:
    async with asyncio.timeout(20):
        return b"".join([output.data async for output in cluster.pods.output(id, offset)]).decode()


async def test_a_release_step_runs_in_a_copy_of_the_image(bench: Bench, cluster: LocalCluster) -> None:
    one_off = release_step("cat file; echo $WHO >file; cat file; test $PORT && exit 3")
    await cluster.pods.run(one_off)
    assert await read_all(cluster, "release-1") == "in the imagealice\n"
    assert await read_all(cluster, "release-1", offset=12) == "alice\n"
    exit = await cluster.pods.wait("release-1")
    assert (exit.code, exit.signal) == (3, None)
    assert (bench.data / "images/blog/1/tree/file").read_text() == "in the image"
    assert await cluster.pods.list("blog") == []
    assert [file.pod for file in await cluster.pods.files()] == ["edge"]

    # Again with the same id: it is not run a second time, also not by a successor.
    await cluster.pods.run(one_off)
    assert await read_all(cluster, "release-1") == "in the imagealice\n"
    await cluster.pods.forget("release-1")
    assert list((bench.data / "pods").iterdir()) == []
    exit = await cluster.pods.wait("release-1")
    assert (exit.code, exit.signal) == (None, None)
    assert await read_all(cluster, "release-1") == ""


async def test_a_build_sees_its_source_and_nothing_of_ours(
    bench: Bench, cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUR_SECRET", "hidden")
    monkeypatch.setattr(environment, "BUILDER", ("/usr/bin/python3", "-c", PRINT_ENV))
    source = tmp_path / "pushed.tar"
    source.write_text("the source")
    await cluster.pods.run(OneOff("build-7", "blog", "build", 0, "blog:7", "", {}, 60, source, generation=1))
    assert await read_all(cluster, "build-7") == "building\nbuilt\n"
    assert (await cluster.pods.wait("build-7")).code == 0
    raw = await cluster.pods.result("build-7")
    assert raw is not None
    result = json.loads(raw)
    pod = Path(result["cwd"]).parent
    env = result["env"]
    assert result["source"] == "the source"
    assert env["DRYCC_IMAGE_DIR"] == str(bench.data / "images/blog/7")
    assert env["DRYCC_VENVS_DIR"] == str(bench.data / "venvs/blog")
    assert env["DRYCC_PYTHON"] == "/usr/bin/python3"
    assert env["PIP_INDEX_URL"] == "http://index.example"
    assert "OUR_SECRET" not in env
    assert sorted(path.name for path in pod.iterdir()) == ["image.json", "out", "spec.json", "status"]
    assert await cluster.pods.result("build-8") is None


async def test_output_comes_while_it_is_printed(cluster: LocalCluster, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    command = f"echo one; until test -e {shlex.quote(str(gate))}; do sleep 0.02; done; printf two"
    await cluster.pods.run(release_step(command))
    outputs = cluster.pods.output("release-1")
    async with asyncio.timeout(10):
        first = await anext(outputs)
        assert (first.data, first.offset) == (b"one\n", 4)
        listed = await cluster.pods.list("blog")
        assert [(pod.state, pod.ptype, pod.release) for pod in listed] == [("up", "release", 2)]
        assert listed[0].name.startswith("blog-run-")
        gate.touch()
        second = await anext(outputs)
        assert (second.data, second.offset) == (b"two", 7)
        with pytest.raises(StopAsyncIteration):
            await anext(outputs)


async def test_much_output_comes_whole(cluster: LocalCluster) -> None:
    await cluster.pods.run(release_step("seq 200000"))
    text = await read_all(cluster, "release-1")
    assert text == "".join(f"{n}\n" for n in range(1, 200_001))


async def test_cancel_ends_the_whole_group(bench: Bench) -> None:
    bench = replace(bench, grace=0.3)
    async with bench.running() as cluster:
        await cluster.pods.run(release_step("trap '' TERM; echo up; sleep 600 & exec sleep 601"))
        outputs = cluster.pods.output("release-1")
        await anext(outputs)
        await outputs.aclose()  # type: ignore[attr-defined]
        async with asyncio.timeout(10):
            await asyncio.gather(cluster.pods.cancel("release-1"), cluster.pods.cancel("release-1"))
        assert await bench.processes() == []
        assert (await cluster.pods.wait("release-1")).signal == "SIGKILL"
        await cluster.pods.cancel("release-1")
        await cluster.pods.cancel("nobody")


async def test_a_build_that_ignores_its_end_is_not_waited_for_long(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubborn = ("/bin/sh", "-c", "trap '' TERM; echo up; sleep 600 & exec sleep 601")
    monkeypatch.setattr(environment, "BUILDER", stubborn)
    monkeypatch.setattr(one_offs, "BUILD_GRACE", 0.3)
    async with replace(bench, grace=60).running() as cluster:
        await cluster.pods.run(OneOff("build-7", "blog", "build", 0, "blog:7", "", {}, 60, generation=1))
        await anext(outputs := cluster.pods.output("build-7"))
        await outputs.aclose()  # type: ignore[attr-defined]
        async with asyncio.timeout(10):
            await cluster.pods.cancel("build-7")
        assert await bench.processes() == []


async def test_cancel_at_once_never_leaves_a_process(bench: Bench, cluster: LocalCluster) -> None:
    running = asyncio.create_task(cluster.pods.run(release_step("exec sleep 600")))
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await cluster.pods.cancel("release-1")
        await running
        exit = await cluster.pods.wait("release-1")
    assert exit.signal == "SIGTERM"
    assert await bench.processes() == []


async def test_a_deadline_ends_it_and_says_so(bench: Bench, cluster: LocalCluster) -> None:
    await cluster.pods.run(release_step("printf working; exec sleep 600", timeout=0.3))
    assert await read_all(cluster, "release-1") == "working\nstopped: it ran longer than 0 s\n"
    assert (await cluster.pods.wait("release-1")).signal == "SIGTERM"
    assert await bench.processes() == []


async def test_a_release_step_without_its_image_fails(cluster: LocalCluster) -> None:
    await cluster.pods.run(OneOff("release-9", "blog", "release", 2, "blog:9", "true", {}, generation=1))
    assert "there is no image blog:9" in await read_all(cluster, "release-9")
    assert (await cluster.pods.wait("release-9")).code == 126


async def test_removing_the_app_ends_its_one_offs(bench: Bench, cluster: LocalCluster) -> None:
    await cluster.pods.run(release_step("exec sleep 600"))
    await cluster.workloads.remove("blog", 1)
    assert await bench.processes() == []
    assert list((bench.data / "pods").iterdir()) == []


async def test_collect_keeps_what_is_named_used_or_made(
    bench: Bench, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    venvs = bench.data / "venvs/blog"
    for digest in ("used", "unused"):
        (venvs / digest / "bin").mkdir(parents=True)
    (venvs / "unused" / "bin").chmod(0o500)
    for build in (2, 3, 4):
        bench.add_image(build, {"web.py": WEB}, venv=str(venvs / "used") if build == 3 else None)
    (bench.data / "images/blog/5/tree").mkdir(parents=True)
    (bench.data / "images" / bench.add_image(6, {}).replace(":", "/") / "complete").touch()
    bench.add_image(1, {}, app="gone")
    bench.add_image(1, {}, app="busy")
    await cluster.workloads.apply(spec(1, web(2, image="blog:2")))
    await rolled_out(cluster, 2)
    monkeypatch.setattr(environment, "BUILDER", ("/bin/sleep", "600"))
    await cluster.pods.run(OneOff("build-1", "busy", "build", 0, "busy:2", "", {}, generation=1))

    await cluster.pods.collect({"blog": frozenset({3})})
    left = sorted(path.name for path in (bench.data / "images/blog").iterdir())
    assert left == ["2", "3", "6"], "2 is used, 3 named, 6 too young to be known"
    assert [path.name for path in venvs.iterdir()] == ["used"]
    assert list((bench.data / "images/gone").iterdir()) == []
    assert [path.name for path in (bench.data / "images/busy").iterdir()] == ["1"]
    await cluster.pods.cancel("build-1")


async def test_a_pod_gets_the_virtual_environment_of_its_image(bench: Bench, cluster: LocalCluster) -> None:
    venv = bench.data / "venvs/blog/abc"
    bench.add_image(2, {}, venv=str(venv))
    given = {"PYTHONUNBUFFERED": "", "PATH": "/bin"}
    step = OneOff("release-3", "blog", "release", 2, "blog:2", "env", given, generation=1)
    await cluster.pods.run(step)
    lines = (await read_all(cluster, "release-3")).splitlines()
    assert f"PATH={venv}/bin:/bin" in lines
    assert f"VIRTUAL_ENV={venv}" in lines
    assert "PYTHONUNBUFFERED=" in lines
    assert "LANG=C.UTF-8" in lines


async def test_a_one_off_outlives_us_and_its_end_is_known(bench: Bench, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    wait = f"until test -e {shlex.quote(str(gate))}; do sleep 0.02; done"
    async with bench.open() as cluster:
        await cluster.pods.run(release_step(f"echo begun; {wait}; exit 5", "waits"))
        await cluster.pods.run(release_step("echo done; exit 6", "ends"))
        await cluster.pods.run(release_step("exec sleep 600", "late", timeout=0.5))
        await cluster.pods.run(release_step("exec sleep 600", "vanishes"))
        directory = pod_directory(bench, next(iter(await cluster.pods.list("blog"))).name)
        assert await read_all(cluster, "ends") == "done\n"
    assert directory.exists()
    gate.touch()
    record = next(
        record
        for file in (bench.data / "pods").glob("*/spec.json")
        if (record := json.loads(file.read_text()))["one_off"] == "vanishes"
    )
    await _kill_group(record)
    async with bench.running() as cluster:
        assert (await cluster.pods.wait("ends")).code == 6
        assert await read_all(cluster, "ends") == "done\n"
        assert await read_all(cluster, "waits") == "begun\n"
        assert (await cluster.pods.wait("waits")).code == 5
        async with asyncio.timeout(10):
            assert (await cluster.pods.wait("late")).signal == "SIGTERM"
        await cluster.pods.run(release_step("echo again", "ends"))
        assert await read_all(cluster, "ends") == "done\n"


async def _kill_group(record: dict[str, int]) -> None:
    """As the out-of-memory killer might, while nobody looks."""
    os.killpg(record["pid"], signal.SIGKILL)


async def test_one_that_was_recorded_and_never_spawned_is_started(bench: Bench) -> None:
    async with bench.open() as cluster:
        await cluster.pods.run(release_step("echo hello"))
        await cluster.pods.wait("release-1")
    directory = next((bench.data / "pods").iterdir())
    for name in ("out", "status"):
        (directory / name).unlink()
    record = json.loads((directory / "spec.json").read_text())
    record |= {"pid": 0, "start_time": 0, "is_over": False}
    (directory / "spec.json").write_text(json.dumps(record))
    async with bench.running() as cluster:
        await cluster.pods.run(release_step("echo hello"))
        assert await read_all(cluster, "release-1") == "hello\n"
        assert (await cluster.pods.wait("release-1")).code == 0
    assert [path.name for path in (bench.data / "pods").iterdir()] == [directory.name]
