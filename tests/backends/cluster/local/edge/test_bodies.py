"""Bodies in both directions: streamed, at the pace of the slower side, in flat memory."""

import asyncio
import hashlib
from collections.abc import Callable

import pytest

from drycc.kit.aio import within
from tests.backends.cluster.local.edge.rig import Pod, Rig, get, post, read_head, read_request

MB = 1024 * 1024
MOST_MEMORY = 40.0  # MB, of the edge, whatever goes through it


async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers an upload with its size and digest."""
    request = await read_head(reader)
    left, digest = int(request.get("content-length") or 0), hashlib.sha256()
    total = left
    while left:
        data = await reader.read(min(left, 65536))
        digest.update(data)
        left -= len(data)
    body = f"{total} {digest.hexdigest()}".encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    await writer.drain()


async def test_a_hundred_megabytes_up_in_flat_memory(own_rig: Rig) -> None:
    block = bytes(range(256)) * 4096
    digest = hashlib.sha256()
    async with Pod(handler=swallow) as pod:
        await own_rig.route(pod)
        async with own_rig.connect() as wire:
            wire.send(get(f"/{'x' * 50}", f"Content-Length: {100 * MB}", method="PUT"))
            for _ in range(100):
                wire.send(block)
                digest.update(block)
                await wire.writer.drain()
            assert (await wire.answer()).body == f"{100 * MB} {digest.hexdigest()}".encode()
    assert await own_rig.peak() < MOST_MEMORY


def plain(block: bytes) -> bytes:
    return block


def chunked(block: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(block), block) if block else b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("framing", "encode"),
    [
        (b"Content-Length: %d\r\n" % (100 * MB), plain),
        (b"Transfer-Encoding: chunked\r\n", chunked),
        (b"Connection: close\r\n", plain),
    ],
)
async def test_a_hundred_megabytes_down_in_flat_memory(
    own_rig: Rig, framing: bytes, encode: Callable[[bytes], bytes]
) -> None:
    block = bytes(range(256)) * 4096

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n")
        for _ in range(100):
            writer.write(encode(block))
            await writer.drain()
        writer.write(encode(b""))

    async with Pod(handler=pour) as pod:
        await own_rig.route(pod)
        answer = await own_rig.ask(get())
        assert hashlib.sha256(answer.body).digest() == hashlib.sha256(block * 100).digest()
    assert await own_rig.peak() < MOST_MEMORY


async def test_a_client_that_does_not_read_stops_the_pod(own_rig: Rig) -> None:
    sent = 0
    has_stopped = asyncio.Event()

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (300 * MB))
        for _ in range(300):
            writer.write(b"x" * MB)
            if not await within(1, writer.drain()):
                has_stopped.set()
                await writer.drain()
            sent += MB

    async with Pod(handler=pour) as pod:
        await own_rig.route(pod)
        async with own_rig.connect() as wire:
            wire.send(get())
            await wire.head()
            async with asyncio.timeout(20):
                await has_stopped.wait()
            assert sent < 30 * MB  # what the kernel's buffers hold
            assert len(await wire.take(300 * MB)) == 300 * MB
    assert await own_rig.peak() < MOST_MEMORY


async def test_a_pod_that_does_not_read_stops_the_client(own_rig: Rig) -> None:
    may_read = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await may_read.wait()
        await swallow(reader, writer)

    async with Pod(handler=wait) as pod:
        await own_rig.route(pod)
        async with own_rig.connect() as wire:
            wire.send(get("/", f"Content-Length: {100 * MB}", method="PUT"))
            sent = MB
            wire.send(b"x" * MB)
            while await within(1, wire.writer.drain()):
                wire.send(b"x" * MB)
                sent += MB
            assert sent < 30 * MB
            may_read.set()
            while sent < 100 * MB:
                wire.send(b"x" * MB)
                sent += MB
                await wire.writer.drain()
            assert (await wire.answer()).body.startswith(b"%d " % (100 * MB))
    assert await own_rig.peak() < MOST_MEMORY


async def test_ed09_each_event_comes_at_once_and_as_it_was(rig: Rig) -> None:
    go_on = asyncio.Event()

    async def events(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_head(reader)
        assert request.get("accept-encoding") == "gzip"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for number in range(5):
            await go_on.wait()
            go_on.clear()
            writer.write(b"data: event no. %d\n\n\n" % number)
            await writer.drain()

    async with Pod(handler=events) as pod, rig.connect() as wire:
        await rig.route(pod)
        wire.send(get("/", "Accept-Encoding: gzip"))
        answer = await wire.head()
        assert answer.get("content-type") == "text/event-stream"
        assert answer.get("content-encoding") is None
        for number in range(5):
            async with asyncio.timeout(0.5):  # nothing but this one event can fill it
                go_on.set()
                assert (
                    await wire.reader.readuntil(b"\n\n\n\r\n")
                    == b"14\r\ndata: event no. %d\n\n\n\r\n" % number
                )


async def test_a_truncated_answer_looks_truncated(rig: Rig) -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        framing = b"Content-Length: 100" if "length" in request.line else b"Transfer-Encoding: chunked"
        writer.write(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n5\r\nabcde\r\n")
        await writer.drain()

    async with Pod(handler=break_off) as pod:
        await rig.route(pod)
        for target in ("/length", "/chunks"):
            async with rig.connect() as wire:
                wire.send(get(target))
                await wire.head()
                with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                    await wire.take(100 if "length" in target else 12)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 400_000,
        b"",
    ],
)
async def test_an_app_that_speaks_no_http_is_a_502(rig: Rig, nonsense: bytes) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(nonsense)
        await writer.drain()

    async with Pod(handler=speak) as pod, rig.connect() as wire:
        await rig.route(pod)
        for request in (get(), post(b"abc")):
            wire.send(request)
            answer = await wire.answer()
            assert (answer.status, answer.get("connection")) == (502, None)


async def test_what_an_app_does_not_read_of_a_body_begins_no_other_request(rig: Rig) -> None:
    async def read_heads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            target = (await read_head(reader)).line.split()[1].encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(target), target))

    async with Pod(handler=read_heads) as pod, rig.connect() as wire, rig.connect() as victim:
        await rig.route(pod)
        for _ in range(5):
            wire.send(post(b"GET /smuggled HTTP/1.1\r\nX: ", target="/own"))
            assert (await wire.answer()).body == b"/own"
            victim.send(get("/next"))
            assert (await victim.answer()).body == b"/next"
