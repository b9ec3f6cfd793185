"""A pod that does not answer: which requests are tried again, and which never."""

import asyncio
from collections import Counter

from tests.backends.cluster.local.edge.rig import OK, Pod, Rig, get, post, read_head, read_request


async def test_ed07_a_post_never_meets_a_connection_that_the_app_closes(rig: Rig) -> None:
    idle = 0.03  # seconds after which the app closes; the requests come just then
    ids: Counter[bytes] = Counter()

    async def impatient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                async with asyncio.timeout(idle):
                    head = await read_head(reader)
                ids[await reader.readexactly(int(head.get("content-length") or 0))] += 1
                writer.write(OK)
        except TimeoutError:
            return

    async def client(name: int) -> None:
        async with rig.connect() as wire:
            for number in range(40):
                wire.send(get() if number % 4 == 3 else post(b"%d-%d" % (name, number)))
                assert (await wire.answer()).status == 200
                await asyncio.sleep(idle + (number % 7 - 3) * 0.0005)

    async with Pod(handler=impatient) as pod:
        await rig.route(pod)
        await asyncio.gather(*(client(name) for name in range(12)))
    del ids[b""]
    assert len(ids) == 12 * 30
    assert set(ids.values()) == {1}


async def test_ed07_an_app_that_closes_without_saying_so(rig: Rig) -> None:
    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)

    async with Pod(handler=rude) as pod, rig.connect() as wire:
        await rig.route(pod)
        for number in range(100):
            wire.send(post(b"%d" % number) if number % 2 else get())
            assert (await wire.answer()).status == 200


async def test_ed08_a_get_goes_to_the_pod_that_is_left(rig: Rig) -> None:
    async with Pod("1") as first, Pod("2") as second, rig.connect() as wire:
        await rig.route(first, second, replicas=2)
        for _ in range(4):
            wire.send(get())
            assert (await wire.answer()).status == 200
        assert first.received
        assert second.received
        await first.die()  # and the edge is not told
        for request in (get(), post(b"whole"), get(), post(b"x", method="DELETE")) * 3:
            wire.send(request)
            assert (await wire.answer()).status == 200
        bodies = Counter(request.body for request in second.received)
        assert (bodies[b"whole"], bodies[b"x"]) == (3, 3)


async def test_ed08_a_post_that_is_half_sent_is_not_sent_again(rig: Rig) -> None:
    has_begun = asyncio.Event()

    async def read_some(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        has_begun.set()
        await reader.read()

    async with (
        Pod("1", handler=read_some) as first,
        Pod("2", handler=read_some) as second,
        rig.connect() as wire,
    ):
        await rig.route(first, second, replicas=2)
        wire.send(get("/", "Content-Length: 10", method="POST"), b"half")
        async with asyncio.timeout(5):
            await has_begun.wait()
        await (first if first.connections else second).die()
        answer = await wire.answer()
        assert (answer.status, answer.get("connection")) == (502, "close")
        assert first.connections + second.connections == 1


async def test_ed08_a_post_that_was_sent_and_not_answered_is_not_sent_again(rig: Rig) -> None:
    async def crash(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)

    async with Pod("1", handler=crash) as first, Pod("2", handler=crash) as second, rig.connect() as wire:
        await rig.route(first, second, replicas=2)
        for request in (post(b"abc"), get(), post(b"", method="PATCH"), post(b"abc", method="GET")):
            before = first.connections + second.connections
            wire.send(request)
            assert (await wire.answer()).status == 502
            assert first.connections + second.connections == before + 1


async def test_sv07_an_app_on_either_loopback_address_is_reached(rig: Rig) -> None:
    async with Pod(host="::1") as pod, rig.connect() as wire:
        await rig.route(pod)
        for request in (get(), post(b"abc"), get(), post(b"def")):
            wire.send(request)
            assert (await wire.answer()).status == 200
        assert len(pod.received) == 4


async def test_no_pod_that_answers_is_a_502(rig: Rig) -> None:
    async with rig.connect() as wire:
        await rig.route(Pod("1"), Pod("2"), replicas=2)
        for request in (get(), post(b"abc")):
            wire.send(request)
            answer = await wire.answer()
            assert (answer.status, answer.get("connection")) == (502, None)
            assert b"drycc logs" in answer.body


async def test_a_client_that_gives_up_is_not_served_on(rig: Rig) -> None:
    is_cut = asyncio.Event()

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 1000)
                await writer.drain()
                await asyncio.sleep(0.001)
        except ConnectionError:
            is_cut.set()

    async with Pod(handler=stream) as pod:
        await rig.route(pod)
        async with rig.connect() as wire:
            wire.send(get())
            await wire.take(5000)
        async with asyncio.timeout(5):
            await is_cut.wait()
        await rig.control.drained(pod.name, 5)
        async with rig.connect() as wire:
            wire.send(get("/", "Content-Length: 10", method="POST"), b"half")
        async with asyncio.timeout(5):
            await rig.control.drained(pod.name, 5)


async def test_a_server_that_takes_one_connection_at_a_time_is_not_blocked_by_us(rig: Rig) -> None:
    turn = asyncio.Lock()

    async def one_by_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with turn:
            while True:
                await read_request(reader)
                writer.write(OK)

    async with Pod(handler=one_by_one) as pod, rig.connect() as wire:
        await rig.route(pod)
        async with asyncio.timeout(2):
            for request in (get(), post(b"a"), get(), post(b"b")):
                wire.send(request)
                assert (await wire.answer()).status == 200
