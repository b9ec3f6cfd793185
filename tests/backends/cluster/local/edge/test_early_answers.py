"""Answers that come before the request is complete, or before the answer itself."""

import asyncio

from tests.backends.cluster.local.edge.rig import OK, Message, Pod, Rig, get, read_head

MB = 1024 * 1024


def greedy(request: Message) -> bytes:
    body = b"%d" % len(request.body)
    return b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def test_ed04_one_continue_then_the_final_answer(rig: Rig) -> None:
    body = b"x" * (2 * MB)

    async def polite(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Says "continue" when it reads, as servers do."""
        head = await read_head(reader)
        assert head.get("expect") == "100-continue"
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await reader.readexactly(2 * MB) == body
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with Pod(handler=polite) as pod, rig.connect() as wire:
        await rig.route(pod)
        wire.send(get("/", f"Content-Length: {len(body)}", "Expect: 100-Continue", method="PUT"))
        assert (await wire.answer()).line == "HTTP/1.1 100 Continue"
        wire.send(body)
        answer = await wire.answer()
        assert (answer.line, answer.get("connection")) == ("HTTP/1.1 201 Created", None)


async def test_ed04_an_app_that_knows_no_continue_does_not_stall_the_client(rig: Rig) -> None:
    async with Pod(respond=greedy) as pod, rig.connect() as wire:
        await rig.route(pod)
        wire.send(get("/", "Content-Length: 3", "Expect: 100-continue", method="PUT"))
        assert (await wire.answer()).status == 100
        wire.send(b"abc", get("/next"))
        assert (await wire.answer()).body == b"3"
        assert (await wire.answer()).status == 201


async def test_ed05_a_refusal_reaches_the_client_without_the_upload(rig: Rig) -> None:
    got = b""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nno\n")
        await writer.drain()
        got += await reader.read()

    async with Pod(handler=refuse) as pod, rig.connect() as wire:
        await rig.route(pod)
        wire.send(get("/", f"Content-Length: {2 * MB}", "Expect: 100-continue", method="PUT"))
        answer = await wire.answer()
        assert (answer.status, answer.body, answer.get("connection")) == (413, b"no\n", "close")
        assert await wire.rest() == b""  # the edge waits for no upload
    assert got == b""


async def test_ed05_a_refusal_reaches_a_client_that_sends_on(rig: Rig) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n")
        await writer.drain()

    async with Pod(handler=refuse) as pod, rig.connect() as wire:
        await rig.route(pod)
        wire.send(get("/", f"Content-Length: {20 * MB}", method="PUT"))
        for _ in range(20):
            wire.send(b"x" * MB)
            await wire.writer.drain()
        answer = await wire.answer()
        assert (answer.status, answer.body) == (413, b"no\n")


async def test_ed05_http_1_0_gets_no_continue(rig: Rig) -> None:
    async with Pod(respond=greedy) as pod, rig.connect() as wire:
        await rig.route(pod)
        wire.send(
            b"PUT / HTTP/1.0\r\nHost: app.localhost\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        await asyncio.sleep(0)
        wire.send(b"abc")
        assert (await wire.rest()).startswith(b"HTTP/1.1 201 Created\r\n")
        assert pod.received[0].get("expect") is None


async def test_interim_answers_pass(rig: Rig) -> None:
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
    async with Pod(respond=lambda _: b"HTTP/1.1 100 Continue\r\n\r\n" + hint + OK) as pod:
        await rig.route(pod)
        async with rig.connect() as wire:
            wire.send(get())
            answer = await wire.answer()
            assert (answer.status, answer.get("link")) == (103, "</a.css>; rel=preload")
            assert (await wire.answer()).body == b"ok"
