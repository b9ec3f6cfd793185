"""The log websockets through a real server, as the client speaks to them."""

import asyncio
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from drycc.backends.db import Database
from drycc.backends.logstore.base import Line, Reached
from drycc.errors import Unavailable
from drycc.kit.ids import now
from drycc.logs.streams import Streams
from tests.logs.door import POD, Door, line, messages, opened, serving


async def test_handshakes_are_refused_with_403(db: Database, tmp_path: Path) -> None:
    async with opened(db, tmp_path) as door:
        await check_handshakes(door)


async def check_handshakes(door: Door) -> None:
    for path in ("/v2/apps/foo/logs", "/v2/apps/foo/logs/", f"/v2/apps/foo/pods/{POD}/logs/"):
        assert await door.status(path) == 101
        assert await door.status(path, user="bob") == 403
        assert await door.status(path, user="") == 403
        for header in ("token unknown", "token", "token a b", "bearer x", "basic x", "token \xff"):
            assert await door.status(path, user=header) == 403
    assert await door.status("/v2/apps/nothere/logs") == 403
    assert await door.status("/v2/apps/fo%00o/logs") == 403
    assert await door.status("/v2/apps/nothere/pods/x/logs/") == 403


@pytest.mark.parametrize("path", ["/v2/apps/foo/logs", "/v2/apps/foo/logs/"])
async def test_the_last_lines_of_an_app(door: Door, path: str) -> None:
    await door.store.append("foo", [line(f"{n}") for n in range(150)])
    await door.store.append("foo", [Line(now(), "platform", "INFO ann deployed v2")])
    got, code = await door.read(path, {"lines": 100, "follow": False, "timeout": 300})
    lines = "".join(got).splitlines()
    assert (len(lines), code) == (100, 1000)
    assert lines[0].endswith(" foo[web.v2.abcde]: 51")
    assert lines[-1].endswith(" drycc[controller]: INFO ann deployed v2")
    assert all(isinstance(message, str) and message.endswith("\n") for message in got)


async def test_an_app_without_lines_gives_no_message(door: Door) -> None:
    assert await door.read("/v2/apps/foo/logs", {}) == ([], 1000)
    await door.store.append("foo", [line("one")])
    assert await door.read("/v2/apps/foo/logs", {"lines": 0}) == ([], 1000)


async def test_many_lines_come_in_whole_and_bounded_messages(door: Door) -> None:
    for start in range(0, 4000, 1000):
        await door.store.append("foo", [line(f"{n} {'x' * 200}") for n in range(start, start + 1000)])
    got, code = await door.read("/v2/apps/foo/logs", {"lines": -1})
    numbers = [int(found.split("]: ")[1].split()[0]) for found in "".join(got).splitlines()]
    assert (numbers, code) == (list(range(1000, 4000)), 1000)
    assert max(map(len, got)) < 70_000


async def test_following_an_app_ends_at_its_time(door: Door) -> None:
    await door.store.append("foo", [line("before")])
    async with door.open("/v2/apps/foo/logs", {"lines": 1, "follow": True, "timeout": 1}) as websocket:
        assert "before" in str(await websocket.recv())
        await websocket.send("ignored")
        for n in range(20):
            await door.store.append("foo", [line(f"new {n}")])
            assert str(await websocket.recv()).endswith(f": new {n}\n")
        assert [message async for message in messages(websocket)] == []
        assert websocket.close_code == 1000


async def test_lg04_a_follower_that_is_cut_goes_on_by_its_cursor(door: Door) -> None:
    """Many lines share one time. With a cursor, messages are JSON, the first comes at once."""
    path, at, seen = "/v2/apps/foo/logs", now(), []
    (first,), _ = await door.read(path, {"cursor": ""})
    cursor, choose = json.loads(first)["cursor"], random.Random(5)
    assert json.loads(first) == {"results": [], "cursor": cursor}
    for start in range(0, 3000, 100):
        await door.store.append("foo", [replace(line(f"{n}"), at=at) for n in range(start, start + 100)])
        async with door.open(path, {"cursor": cursor, "follow": True}) as websocket, asyncio.timeout(10):
            if choose.random() < 0.3:
                websocket.transport.abort()
                continue
            page = json.loads(await websocket.recv())
            seen += [found["text"] for found in page["results"]]
            cursor = page["cursor"]
            websocket.transport.abort()
    rest, code = await door.read(path, {"cursor": cursor})
    seen += [found["text"] for message in rest for found in json.loads(message)["results"]]
    assert (seen, code) == ([f"{n}" for n in range(3000)], 1000)


async def test_the_last_lines_come_as_json_with_an_empty_cursor(door: Door) -> None:
    await door.store.append("foo", [line(f"{n}") for n in range(1500)])
    got, code = await door.read("/v2/apps/foo/logs", {"cursor": "", "lines": 1200})
    pages = [json.loads(message) for message in got]
    assert [len(page["results"]) for page in pages] == [1000, 200]
    assert pages[0]["results"][0]["text"] == "300"
    assert await door.read("/v2/apps/foo/logs", {"cursor": "of nobody"}) == ([], 1008)
    assert code == 1000


async def test_a_client_that_leaves_costs_nothing(door: Door) -> None:
    for _ in range(20):
        async with door.open("/v2/apps/foo/logs", {"follow": True}) as websocket:
            await door.store.append("foo", [line("x")])
            await websocket.recv()
    async with asyncio.timeout(5):
        while any("_send_all" in repr(task) for task in asyncio.all_tasks()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("message", ["", "[]", "nonsense", b"\xff\x00"])
async def test_a_first_message_that_is_no_question_closes(door: Door, message: str | bytes) -> None:
    for path in ("/v2/apps/foo/logs", f"/v2/apps/foo/pods/{POD}/logs"):
        assert await door.read(path, message) == ([], 1008)


async def test_a_pods_lines_come_raw_in_one_message(door: Door) -> None:
    await door.store.append("foo", [line(f"{n}") for n in range(500)])
    await door.store.append("foo", [line("other", "foo-web-123456789-other")])
    path = f"/v2/apps/foo/pods/{POD}/logs/"
    ask = {"lines": 300, "follow": False, "container": "", "previous": False}
    assert await door.read(path, ask) == (["".join(f"{n}\n" for n in range(200, 500))], 1000)
    everything = ["".join(f"{n}\n" for n in range(500))]
    for lines in (0, -1, 9999):
        assert await door.read(path, {"lines": lines, "container": "foo-web"}) == (everything, 1000)
    assert await door.read("/v2/apps/foo/pods/unknown/logs/", ask) == ([], 1000)


async def test_options_that_a_pod_has_not_are_refused_in_words(door: Door) -> None:
    path = f"/v2/apps/foo/pods/{POD}/logs/"
    got, code = await door.read(path, {"container": "sidecar"})
    assert (got, code) == ([f"container sidecar is not valid for pod {POD}\n"], 1000)
    got, code = await door.read(path, {"previous": True})
    assert ("--previous" in got[0], code) == (True, 1000)


async def test_following_a_pod_ends_with_the_pod(door: Door) -> None:
    door.cluster.add(POD)
    path = f"/v2/apps/foo/pods/{POD}/logs/"
    await door.store.append("foo", [line("before")], Reached(POD, 7))
    async with door.open(path, {"lines": 10, "follow": True}) as websocket, asyncio.timeout(10):
        assert await websocket.recv() == b"before\n"
        await door.store.append("foo", [line("other", "foo-web-1")])
        await door.store.append("foo", [line("after")], Reached(POD, 13))
        assert await websocket.recv() == b"after\n"
        await door.store.append("foo", [line("last")], Reached(POD, 18, is_last=True))
        assert [message async for message in messages(websocket)] == [b"last\n"]
        assert websocket.close_code == 1000
    assert await door.read(path, {"follow": True, "lines": 1}) == ([b"last\n"], 1000)
    door.cluster.end(POD)
    assert await door.read(path, {"follow": True, "lines": 1}) == (["last\n"], 1000)


async def test_a_client_that_reads_nothing_is_left(door: Door) -> None:
    """Its messages stay unread until the sockets' buffers are full; the writer never waits for it."""
    streams = Streams(door.needs.db, door.needs.keyring, door.cluster, door.store, stall=0.5)
    ended = asyncio.Event()

    async def stream(websocket: WebSocket) -> None:
        await streams.stream_app(websocket)
        ended.set()

    async with serving(Starlette(routes=[WebSocketRoute("/v2/apps/{app}/logs", stream)])) as port:
        slow = replace(door, port=port)
        async with slow.open("/v2/apps/foo/logs", {"follow": True}) as websocket:
            websocket.transport.pause_reading()
            async with asyncio.timeout(30):
                while not ended.is_set():
                    await door.store.append("foo", [line(f"{n} {'x' * 16_000}") for n in range(20)])
            websocket.transport.abort()


async def test_a_store_that_does_not_answer_closes_with_its_sentence(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*arguments: object, **options: object) -> None:
        raise Unavailable("the log store does not answer")

    monkeypatch.setattr(door.store, "read", fail)
    async with door.open("/v2/apps/foo/logs", {}) as websocket:
        assert [message async for message in messages(websocket)] == []
        assert (websocket.close_code, websocket.close_reason) == (1013, "the log store does not answer")
