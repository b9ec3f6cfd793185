"""Pods follow what is applied: new ones first, then the requests, then the end of the old ones."""

import asyncio
import socket
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from drycc.backends.cluster.base import ObservedWorkload, Stale
from drycc.backends.cluster.local import controller
from drycc.backends.cluster.local.cluster import LocalCluster
from tests.backends.cluster.local.conftest import (
    WEB,
    Bench,
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
    bench.add_image(1, {"web.py": WEB, "static/page": "one"})
    bench.add_image(2, {"web.py": WEB, "static/page": "two"})


async def test_a_first_deploy_serves_with_its_environment(bench: Bench, cluster: LocalCluster) -> None:
    assert (await cluster.workloads.observe("blog")).workloads == {}
    await route(cluster)
    env = {"COLOR": "blue", "PORT": "1", "DRYCC_POD": "mine", "HOME": "/elsewhere"}
    await cluster.workloads.apply(spec(1, web(2, replicas=2, env=env)))
    seen = await rolled_out(cluster, 2, 2)

    assert bench.edge.snapshot.hosts == {"blog.localhost": "blog"}
    assert bench.edge.serving().keys() == {pod.name for pod in seen.pods}
    pod, port = next(iter(bench.edge.serving().items()))
    directory = pod_directory(bench, pod)
    assert [await ask(port, name) for name in ("COLOR", "PORT", "CONTAINER_IP", "HOME", "DRYCC_POD")] == [
        "blue",
        str(port),
        "127.0.0.1",
        "/elsewhere",
        directory.name,
    ]
    assert await ask(port, "TMPDIR") == str(directory / "tmp")
    assert await ask(port, "PWD") == str(directory / "root")
    assert (directory / "root/static/page").read_text() == "one"
    assert "blue" not in (directory / "spec.json").read_text(), "config values are secrets"
    assert (directory / "spec.json").stat().st_mode & 0o777 == 0o600
    assert pod.startswith("blog-web-")
    listed = await cluster.pods.list("blog")
    assert {(pod.state, pod.release, pod.restarts, pod.is_current) for pod in listed} == {("up", 2, 0, True)}


async def test_new_pods_serve_before_old_ones_stop(bench: Bench, cluster: LocalCluster) -> None:
    await route(cluster)
    await cluster.workloads.apply(spec(1, web(2, replicas=2)))
    old = {pod.name for pod in (await rolled_out(cluster, 2, 2)).pods}
    bench.edge.journal.clear()
    await cluster.workloads.apply(spec(2, web(3, image="blog:2", replicas=2)))
    seen = await rolled_out(cluster, 3, 2)

    new = {pod.name for pod in seen.pods}
    turned = f"apply {' '.join(sorted(new))}"
    assert bench.edge.journal[0] == turned, "requests go to all of the new pods at once"
    assert set(bench.edge.journal[1:]) == {f"drained {pod}" for pod in old}
    assert (pod_directory(bench, min(new)) / "root/static/page").read_text() == "two"
    for pod in old:
        assert not (pod_directory(bench, pod) / "root").exists(), "of an ended pod only the output is kept"


async def test_nothing_stops_before_the_edge_has_turned(
    bench: Bench, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller, "ASK_AGAIN", 0.1)
    await route(cluster)
    await cluster.workloads.apply(spec(1, web(2)))
    old = (await rolled_out(cluster, 2)).pods[0]
    bench.edge.is_away = True
    await cluster.workloads.apply(spec(2, web(3)))
    seen = await observed(cluster, lambda seen: seen.ready == 1)
    assert (seen.release, seen.serving, seen.old) == (3, 0, 1)
    assert [pod.state for pod in seen.pods if pod.name == old.name] == ["up"]
    bench.edge.is_away = False
    await rolled_out(cluster, 3)


async def test_a_restart_replaces_pods_of_the_same_release(cluster: LocalCluster) -> None:
    await cluster.workloads.apply(spec(1, web(2)))
    first = (await rolled_out(cluster, 2)).pods[0]
    await cluster.workloads.apply(spec(2, web(2, restarted_at=datetime(2026, 1, 1, tzinfo=UTC))))
    second = await observed(cluster, lambda seen: [pod.name for pod in seen.pods] != [first.name])
    second = await rolled_out(cluster, 2)
    assert second.pods[0].name != first.name


async def test_bd08_a_template_that_never_listens_leaves_the_old_one_serving(
    bench: Bench, cluster: LocalCluster
) -> None:
    await route(cluster)
    await cluster.workloads.apply(spec(1, web(2)))
    await rolled_out(cluster, 2)
    serving = bench.edge.serving()
    with socket.create_server(("127.0.0.1", 0)) as server:
        elsewhere = server.getsockname()[1]
    command = f"PORT={elsewhere} exec python3 web.py"
    await cluster.workloads.apply(spec(2, web(3, command=command)))
    seen = await observed(cluster, lambda seen: any(pod.listens for pod in seen.pods))
    assert [pod.listens for pod in seen.pods if pod.is_current] == [(elsewhere,)]
    assert (seen.release, seen.ready, seen.serving, seen.updated, seen.old) == (3, 0, 0, 1, 1)
    assert bench.edge.serving() == serving

    # Held: what serves goes on, and an end of it is repaired; the held one is not started again.
    await cluster.workloads.apply(spec(3, web(3, command=command, is_held=True)))
    victim = pod_directory(bench, next(iter(serving)))
    assert await cluster.pods.tail(next(iter(serving)), 5) == []
    await kill_program(victim)
    seen = await observed(cluster, lambda seen: any(pod.restarts == 1 and pod.is_ready for pod in seen.pods))
    assert bench.edge.serving().keys() == serving.keys()
    await kill_program(pod_directory(bench, _current(seen)))
    seen = await observed(cluster, lambda seen: seen.exits == 1)
    assert {pod.state for pod in seen.pods if pod.is_current} == {"crashed"}

    # Back to the former template: nothing new is started, the failed pod goes.
    await cluster.workloads.apply(spec(4, web(2)))
    seen = await rolled_out(cluster, 2)
    assert {pod.name for pod in seen.pods} == serving.keys()


async def test_scaling_adds_and_removes_pods_of_the_template(bench: Bench, cluster: LocalCluster) -> None:
    await route(cluster)
    await cluster.workloads.apply(spec(1, web(2)))
    first = (await rolled_out(cluster, 2)).pods[0]
    await cluster.workloads.apply(spec(2, web(2, replicas=3)))
    three = await rolled_out(cluster, 2, 3)
    assert len(bench.edge.serving()) == 3
    bench.edge.journal.clear()
    await cluster.workloads.apply(spec(3, web(2, replicas=1)))
    one = await rolled_out(cluster, 2, 1)
    assert one.pods[0].name == first.name, "the youngest go first"
    gone = {pod.name for pod in three.pods} - {first.name}
    drained = [bench.edge.journal.index(f"drained {pod}") for pod in gone]
    assert bench.edge.journal.index(f"apply {first.name}") < min(drained), "no requests first, then the end"
    await cluster.workloads.apply(spec(4, web(2, replicas=0)))
    await rolled_out_to_none(cluster)
    assert bench.edge.serving() == {}
    assert await bench.processes() == []
    await cluster.workloads.apply(spec(5, web(2, replicas=2)))
    await rolled_out(cluster, 2, 2)


async def rolled_out_to_none(cluster: LocalCluster) -> None:
    while (await cluster.workloads.observe("blog")).workloads["web"].pods:
        await anext(cluster.workloads.changes())


async def test_rl04_of_a_superseded_template_nothing_is_left(bench: Bench, cluster: LocalCluster) -> None:
    await route(cluster)
    await cluster.workloads.apply(spec(1, web(2)))
    await rolled_out(cluster, 2)
    await cluster.workloads.apply(spec(2, web(3, command="exec sleep 600", replicas=2)))
    await observed(cluster, lambda seen: seen.release == 3 and seen.updated == 2)
    await cluster.workloads.apply(spec(3, web(4, image="blog:2", replicas=2, env={"X": "1"})))
    await rolled_out(cluster, 4, 2)
    assert [await ask(port, "X") for port in bench.edge.serving().values()] == ["1", "1"]
    assert len(bench.edge.serving()) == 2


async def test_process_types_are_apart(bench: Bench, cluster: LocalCluster) -> None:
    await route(cluster)
    worker = web(2, ptype="worker", command="echo $PORT; exec sleep 600", ready_after=0.2)
    await cluster.workloads.apply(spec(1, web(2), worker))
    await rolled_out(cluster, 2)
    first = (await rolled_out(cluster, 2, ptype="worker")).pods[0]
    serving = bench.edge.serving()
    assert len(serving) == 1, "requests go to web alone"
    # SV-06: every process type has a port, in every release.
    ports = await cluster.pods.tail(first.name, 10)
    assert ports[0].isdecimal()
    assert int(ports[0]) not in serving.values()

    await cluster.workloads.apply(spec(2, web(2), replace(worker, release=3, command="exec sleep 601")))
    await rolled_out(cluster, 3, ptype="worker")
    assert bench.edge.serving() == serving
    await cluster.workloads.apply(spec(3, web(2)))
    async with asyncio.timeout(10):
        while "worker" in (await cluster.workloads.observe("blog")).workloads:
            await anext(cluster.workloads.changes())
    assert [pod.ptype for pod in await cluster.pods.list("blog")] == ["web"]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_sv07_an_app_on_either_loopback_address_is_ready(cluster: LocalCluster, address: str) -> None:
    server = WEB.replace("import http.server", "import http.server, socket").replace(
        "http.server.HTTPServer(", "type('S', (http.server.HTTPServer,), {'address_family': FAMILY})("
    )
    family = "socket.AF_INET6" if ":" in address else "socket.AF_INET"
    command = f"python3 -c {_quote(server.replace('FAMILY', family))}"
    await cluster.workloads.apply(spec(1, web(2, command=command, env={"BIND": address})))
    await rolled_out(cluster, 2)


async def test_the_generation_only_grows_also_after_a_restart(bench: Bench) -> None:
    async with bench.open() as cluster:
        await cluster.workloads.apply(spec(7, web(2, replicas=0)))
        with pytest.raises(Stale):
            await cluster.workloads.apply(spec(6, web(3)))
        await cluster.workloads.apply(spec(7, web(2, replicas=0)))
    async with bench.running() as cluster:
        assert (await cluster.workloads.observe("blog")).generation == 7
        with pytest.raises(Stale):
            await cluster.workloads.apply(spec(6, web(3)))
        assert (await cluster.workloads.observe("blog")).workloads == {}
        with pytest.raises(Stale):
            await cluster.workloads.remove("blog", 6)
        await cluster.workloads.remove("blog", 8)
        with pytest.raises(Stale):
            await cluster.workloads.apply(spec(7, web(2, replicas=0)))
        assert (await cluster.workloads.observe("blog")).generation == 0
        await cluster.workloads.apply(spec(9, web(2, replicas=0)))
        assert (await cluster.workloads.observe("blog")).generation == 9


async def test_removing_an_app_leaves_nothing(bench: Bench, cluster: LocalCluster) -> None:
    bench.add_image(1, {"web.py": WEB}, app="shop")
    for app in ("blog", "shop"):
        await route(cluster, app)
        await cluster.workloads.apply(spec(1, web(2, image=f"{app}:1", replicas=2), app=app))
    (bench.data / "venvs/blog/abc").mkdir(parents=True)
    for app in ("blog", "shop"):
        await rolled_out(cluster, 2, 2, app=app)
    await cluster.workloads.remove("blog", 2)
    await cluster.workloads.remove("blog", 2)

    left = [path for path in _all_paths(bench.data) if "blog" in path.read_text(errors="replace")]
    assert left == []
    assert not (bench.data / "images/blog").exists()
    assert not (bench.data / "venvs/blog").exists()
    assert bench.edge.snapshot.hosts == {"shop.localhost": "shop"}
    assert list(bench.edge.snapshot.apps) == ["shop"]
    assert (await cluster.workloads.observe("blog")).workloads == {}
    assert len(await cluster.pods.list("shop")) == 2
    assert not [file for file in await cluster.pods.files() if file.app == "blog"]


async def test_names_of_63_characters_are_cut_and_stay_different(bench: Bench, cluster: LocalCluster) -> None:
    app = "a" * 63
    bench.add_image(1, {"web.py": WEB}, app=app)
    worker = web(2, image=f"{app}:1", ptype="w" * 40, command="exec sleep 600", ready_after=0)
    await cluster.workloads.apply(spec(1, web(2, image=f"{app}:1"), worker, app=app))
    await rolled_out(cluster, 2, app=app)
    await rolled_out(cluster, 2, app=app, ptype="w" * 40)
    names = [pod.name for pod in await cluster.pods.list(app)]
    assert [len(name) for name in names] == [63, 63]
    assert any("-web-" in name for name in names)
    assert len({name.split("-")[-2] for name in names}) == 2


async def test_facts_say_as_whom_pods_run(bench: Bench, cluster: LocalCluster) -> None:
    facts = await cluster.workloads.facts()
    assert facts["images"] == "2"
    assert "platform's own user" in facts["pods run as"]
    assert facts["unsupported"] == "autoscale, exec, run"
    assert facts["python"] == "/usr/bin/python3"


def _all_paths(data: Path) -> list[Path]:
    return [path for path in data.rglob("*") if path.is_file()]


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _current(seen: ObservedWorkload) -> str:
    return next(pod.name for pod in seen.pods if pod.is_current)
