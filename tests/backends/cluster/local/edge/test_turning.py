"""The edge's life: turning under load, dying, being adopted, ending."""

import asyncio
import os
import signal
import socket
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from drycc.backends.cluster.local.edge.control import Edge
from drycc.backends.cluster.local.edge.snapshot import EMPTY, AppRoutes, Endpoint, Snapshot, dump, load
from drycc.errors import Conflict, Invalid
from drycc.kit import process
from tests.backends.cluster.local.edge.load import constant_load, executed
from tests.backends.cluster.local.edge.rig import OK, Pod, Rig, get, post, read_head, until
from tests.backends.cluster.local.edge.test_limits import connected


def test_a_snapshot_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.json"
    assert load(path) == EMPTY
    routes = {"a": AppRoutes("web", True, 2, (Endpoint("a-web-1", 5000),)), "b": AppRoutes("", False, 0, ())}
    snapshot = Snapshot(7, {"a.localhost": "a", "www.example.com": "a"}, routes)
    dump(snapshot, path)
    assert load(path) == snapshot
    for broken in ('{"generation": 7', "[]", '{"generation": 1, "hosts": {}, "apps": {"a": {}}}'):
        path.write_text(broken)
        with pytest.raises(Invalid, match=r"snapshot\.json"):
            load(path)


async def test_ed12_turning_under_load_fails_no_request(own_rig: Rig) -> None:
    pods = [Pod(f"app-web-{number}") for number in range(4)]
    async with pods[0], pods[1], pods[2], pods[3], constant_load(own_rig) as load:
        await own_rig.route(pods[0])
        await load.more(50)
        load.failures.clear()  # of the time before the first snapshot
        for old, new in pairwise(pods):
            await own_rig.route(new)
            before = len(new.received)
            await own_rig.control.drained(old.name, 5)
            served = len(old.received)
            await old.die()  # nothing is in flight there any more
            await load.more(100)
            assert len(old.received) == served
            assert len(new.received) > before
    assert load.failures == []
    assert max(executed(*pods).values()) == 1
    assert set(load.sent) <= set(executed(*pods))


async def test_a_pod_is_held_from_the_moment_it_is_picked(tmp_path: Path) -> None:
    async with Pod() as pod, connected(tmp_path) as (server, wire):
        routes = {"app": AppRoutes("web", True, 1, (pod.endpoint,))}
        server.table.turn(Snapshot(1, {"app.localhost": "app"}, routes))
        wire.send(post(b"abc"))
        async with asyncio.timeout(5):
            while not any(client._current for client in server.clients):  # noqa: ASYNC110
                await asyncio.sleep(0)  # every turn of the loop: a connection is not even begun yet
        server.table.turn(Snapshot(2, {}, {}))
        await server.table.drain(pod.name)
        assert [request.body for request in pod.received] == [b"abc"]
        assert (await wire.answer()).status == 200


async def test_drained_waits_for_the_last_request_and_no_longer_than_told(rig: Rig) -> None:
    may_answer = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await may_answer.wait()
        writer.write(OK)

    async with Pod("old", handler=wait) as old, Pod("new") as new, rig.connect() as wire:
        await rig.route(old)
        wire.send(get())
        await until(lambda: old.connections)
        await rig.route(new)
        assert (await rig.ask(get())).status == 200  # new requests go to the new pod at once
        clock = asyncio.get_running_loop().time
        began = clock()
        await rig.control.drained("old", 0.3)
        assert 0.25 < clock() - began < 2
        drained = asyncio.create_task(rig.control.drained("old", 20))
        await asyncio.wait([drained], timeout=0.1)
        assert not drained.done()
        may_answer.set()
        assert (await wire.answer()).status == 200  # the old pod's request ends there
        async with asyncio.timeout(2):
            await drained
        await rig.control.drained("old", 20)
        await rig.control.drained("nobody", 20)


async def test_requests_go_to_the_pod_with_the_fewest(rig: Rig) -> None:
    may_answer = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await may_answer.wait()
        writer.write(OK)

    async with Pod("1", handler=wait) as slow, Pod("2") as second, Pod("3") as third, rig.connect() as wire:
        await rig.route(slow)
        wire.send(get())
        await until(lambda: slow.connections)
        await rig.route(slow, second, third, replicas=3)
        for _ in range(20):
            assert (await rig.ask(get())).status == 200
        assert (len(second.received), len(third.received)) == (10, 10)
        may_answer.set()
        assert (await wire.answer()).status == 200


async def test_a_killed_edge_is_replaced_and_nobody_is_refused(own_rig: Rig) -> None:
    async with Pod() as pod:
        await own_rig.route(pod)
        async with constant_load(own_rig) as load:
            for _ in range(3):
                await load.more(100)
                dead = await own_rig.process()
                os.kill(dead.pid, signal.SIGKILL)
                await load.more(100)  # by the successor, with the snapshot that it found
                assert (await own_rig.process()).pid != dead.pid
    assert "ConnectionRefusedError" not in load.failures
    assert len(load.failures) <= 3 * 6  # what was in flight
    assert max(executed(pod).values()) == 1
    assert set(load.sent) <= set(executed(pod))


async def test_a_snapshot_reaches_the_successor_of_an_edge_that_dies_meanwhile(own_rig: Rig) -> None:
    async with Pod() as pod:
        for _ in range(3):
            await own_rig.apply({})
            os.kill((await own_rig.process()).pid, signal.SIGKILL)
            await own_rig.route(pod)
            assert (await own_rig.ask(get())).status == 200


CONTROL = """\
import asyncio, os, sys
from pathlib import Path
from drycc.backends.cluster.local.edge.control import Edge

async def main(home, listen, instance):
    await Edge(Path(home) / "data", Path(home) / "run", listen, instance, 3600).start()
    os.kill(os.getpid(), 9)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_an_edge_outlives_the_platform_and_is_adopted(own_rig: Rig) -> None:
    await own_rig.control.stop()
    argv = (sys.executable, "-c", CONTROL, str(own_rig.home), f"127.0.0.1:{own_rig.port}", own_rig.instance)
    platform = await asyncio.create_subprocess_exec(*argv)
    assert await platform.wait() == -signal.SIGKILL
    edge = await own_rig.process()

    own_rig.control = own_rig.new_control()
    await own_rig.control.start()
    assert await own_rig.process() == edge
    async with Pod() as pod:
        await own_rig.route(pod)
        async with constant_load(own_rig) as load:
            await load.more(20)
            os.kill(edge.pid, signal.SIGKILL)  # the listening socket was fetched from it
            await load.more(50)
        assert "ConnectionRefusedError" not in load.failures
        await own_rig.control.leave()
        assert (await own_rig.ask(get())).status == 200  # the last snapshot, with nobody above
        await own_rig.control.start()


async def test_an_edge_that_hangs_is_replaced(own_rig: Rig) -> None:
    await own_rig.control.leave()
    hung = await own_rig.process()
    os.kill(hung.pid, signal.SIGSTOP)
    own_rig.control = own_rig.new_control()
    await own_rig.control.start()
    assert (await own_rig.process()).pid != hung.pid
    async with Pod() as pod:
        await own_rig.route(pod)
        assert (await own_rig.ask(get())).status == 200


async def test_an_edge_of_another_version_drains_beside_its_successor(
    own_rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_answer = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        if "slow" in head.line:
            await may_answer.wait()
        writer.write(OK)

    async with Pod(handler=wait) as pod, own_rig.connect() as wire:
        await own_rig.route(pod)
        wire.send(get("/slow"))
        await until(lambda: pod.connections)
        await own_rig.control.leave()
        monkeypatch.setattr("drycc.backends.cluster.local.edge.control.__version__", "99")
        old = await own_rig.process()
        own_rig.control = own_rig.new_control()
        await own_rig.control.start()
        assert (await own_rig.ask(get())).status == 200
        may_answer.set()
        answer = await wire.answer()
        assert (answer.body, answer.get("connection")) == (b"ok", "close")
        async with asyncio.timeout(5):
            await process.ended(old)


async def test_stopping_lets_requests_end_and_frees_the_address(own_rig: Rig) -> None:
    may_answer = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_head(reader):
            await may_answer.wait()
            writer.write(OK)

    async with Pod(handler=wait) as pod, own_rig.connect() as busy, own_rig.connect() as idle:
        await own_rig.route(pod)
        idle.send(get(host="nobody"))
        assert (await idle.answer()).status == 404
        busy.send(get())
        await until(lambda: pod.connections)
        stopping = asyncio.create_task(own_rig.control.stop())
        assert await idle.rest() == b""
        assert not stopping.done()
        may_answer.set()
        answer = await busy.answer()
        assert (answer.body, answer.get("connection")) == (b"ok", "close")
        await stopping
    with pytest.raises(ConnectionRefusedError):
        await own_rig.ask(get())


async def test_a_port_already_taken_is_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        edge = Edge(tmp_path / "data", tmp_path / "run", listen, "taken", 60)
        with pytest.raises(Conflict, match=rf"{listen}.*DRYCC_EDGE_LISTEN"):
            await edge.start()
    for listen in ("nonsense", "127.0.0.1:99999", "127.0.0.1:http"):
        with pytest.raises(Invalid, match="DRYCC_EDGE_LISTEN"):
            await Edge(tmp_path / "data", tmp_path / "run", listen, "none", 60).start()
