"""Upgraded connections: bytes both ways, and requests whose wish for an upgrade comes to nothing."""

import asyncio

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.typing import Subprotocol

from tests.backends.cluster.local.edge.rig import Message, Pod, Rig, get, post, read_head, running_rig
from tests.postgres import free_port

CHAT = Subprotocol("chat.v2")


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def test_a_websocket_with_protocol_and_compression_passes_end_to_end(rig: Rig) -> None:
    port = free_port()
    async with serve(echo, "127.0.0.1", port, subprotocols=[CHAT], max_size=None):
        await rig.route(Pod(port=port))
        url = f"ws://app.localhost:{rig.port}/socket?room=1"
        async with connect(url, host="127.0.0.1", subprotocols=[CHAT], max_size=None) as socket:
            assert socket.subprotocol == CHAT
            assert isinstance(socket.protocol.extensions[0], PerMessageDeflate)
            for message in ("hello", b"\x00\xff" * 100, "x" * 3_000_000):
                await socket.send(message)
                assert await socket.recv() == message
            socket_id = socket.response.headers["X-Request-Id"] if socket.response else ""
    record = await rig.access(Message("", [("X-Request-Id", socket_id)]))
    assert record["text"].startswith("GET /socket?room=1 101 ")


def shout(answer: bytes) -> Pod:
    """A pod that answers the head and then repeats every byte in capitals."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pod.received.append(await read_head(reader))
        writer.write(answer)
        while data := await reader.read(65536):
            writer.write(data.upper())
            await writer.drain()

    pod = Pod(handler=handle)
    return pod


SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %b\r\nX-Kept: 1\r\n\r\n"


@pytest.mark.parametrize(
    ("connection", "upgrade"),
    [
        ("Connection: keep-alive, UpGrade", "Upgrade: WebSocket"),
        ("connection: upgrade", "upgrade: TLS/1.2, raw"),
        ("Connection:close,\tUPGRADE", "Upgrade: echo/2"),
    ],
)
async def test_ed01_tokens_are_case_insensitive_and_come_in_lists(
    rig: Rig, connection: str, upgrade: str
) -> None:
    wanted = upgrade.partition(": ")[2]
    async with shout(SWITCH % wanted.encode()) as pod, rig.connect() as wire:
        await rig.route(pod)
        wire.send(get("/", connection, upgrade), b"sent ahead,")
        answer = await wire.head()
        assert (answer.status, answer.get("upgrade"), answer.get("connection")) == (101, wanted, "Upgrade")
        assert answer.get("x-kept") == "1"
        wire.send(b" and later")
        assert await wire.take(21) == b"SENT AHEAD, AND LATER"
        assert pod.received[0].get("upgrade") == wanted
        wire.writer.write_eof()
        assert await wire.rest() == b""


async def test_either_side_ends_the_tunnel(rig: Rig) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(SWITCH % b"x" + b"last words")

    async with Pod(handler=hang_up) as pod, rig.connect() as wire:
        await rig.route(pod)
        wire.send(get("/", "Connection: Upgrade", "Upgrade: x"))
        assert (await wire.head()).status == 101
        assert await wire.rest() == b"last words"

    is_gone = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(SWITCH % b"x")
        await reader.read()
        is_gone.set()

    async with Pod(handler=listen) as pod:
        await rig.route(pod)
        async with rig.connect() as wire:
            wire.send(get("/", "Connection: Upgrade", "Upgrade: x"))
            assert (await wire.head()).status == 101
        async with asyncio.timeout(5):
            await is_gone.wait()


async def test_an_upgrade_that_the_app_declines_keeps_the_connection(rig: Rig) -> None:
    async with Pod() as pod, rig.connect() as wire:
        await rig.route(pod)
        wire.send(get("/1", "Connection: Upgrade", "Upgrade: h2c"), get("/2"), post(b"abc", target="/3"))
        assert [(await wire.answer()).body for _ in range(3)] == [b"ok"] * 3
        wire.send(get("/4"))
        assert (await wire.answer()).body == b"ok"
        assert [request.line.split()[1] for request in pod.received] == ["/1", "/2", "/3", "/4"]


@pytest.mark.parametrize("framing", ["Content-Length: 5", "Transfer-Encoding: chunked"])
async def test_a_body_comes_whole_although_an_upgrade_was_asked_for(rig: Rig, framing: str) -> None:
    """Clients offer h2c with any request; one with a body is passed on without the offer."""
    body = b"abcde" if "Length" in framing else b"2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"
    lines = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AA", framing)
    async with Pod() as pod, rig.connect() as wire:
        await rig.route(pod)
        head = get("/1", *lines, method="POST")
        wire.send(head + body[:3])
        await asyncio.sleep(0.05)
        wire.send(body[3:], get("/2"), head + body + get("/3"))
        assert [(await wire.answer()).body for _ in range(4)] == [b"ok"] * 4
        first, second, third, fourth = pod.received
        assert first.body == third.body == b"abcde"
        assert {first.get("upgrade"), first.get("connection"), first.get("http2-settings")} == {None}
        assert (second.line, fourth.line) == ("GET /2 HTTP/1.1", "GET /3 HTTP/1.1")


async def test_a_request_cannot_hide_in_the_body_of_an_upgrade(rig: Rig) -> None:
    hidden = get("/hidden")
    async with Pod() as pod, rig.connect() as wire:
        await rig.route(pod)
        wire.send(get("/", "Connection: Upgrade", "Upgrade: x", f"Content-Length: {len(hidden)}"), hidden)
        assert (await wire.answer()).body == b"ok"
        wire.send(get("/2"))
        assert (await wire.answer()).body == b"ok"
        assert [request.line.split()[1] for request in pod.received] == ["/", "/2"]
        assert pod.received[0].body == hidden


async def test_ed11_silence_up_to_the_limit_is_fine(rig: Rig) -> None:
    port = free_port()
    async with running_rig(idle_timeout=1.0) as strict, serve(echo, "127.0.0.1", port):
        await strict.route(Pod(port=port))
        url = f"ws://app.localhost:{strict.port}/"
        async with connect(url, host="127.0.0.1", ping_interval=None) as socket:
            for _ in range(3):
                await asyncio.sleep(0.6)  # together longer than the limit
                await socket.send("still here")
                assert await socket.recv() == "still here"
            async with asyncio.timeout(5):
                with pytest.raises(ConnectionClosed):
                    await socket.recv()


async def test_ed11_an_app_that_is_silent_too_long_is_a_504(rig: Rig) -> None:
    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with running_rig(idle_timeout=0.5) as strict, Pod(handler=wait) as pod:
        await strict.route(pod)
        async with strict.connect() as wire:
            wire.send(get())
            assert (await wire.answer()).status == 504
            assert await wire.rest() == b""  # and so is a client without a request
