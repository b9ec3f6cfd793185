"""What the edge answers itself, and what no app ever sees."""

import pytest

from tests.backends.cluster.local.edge.rig import Pod, Rig, get


@pytest.mark.parametrize(
    "host", ["nobody.localhost", "x.app.localhost", "localhost", "127.0.0.1", "[::1]:80"]
)
async def test_an_unknown_host_is_told_so(rig: Rig, host: str) -> None:
    async with Pod() as pod:
        await rig.route(pod)
        answer = await rig.ask(get(host=host))
        assert answer.status == 404
        assert b"no app" in answer.body
        assert not pod.received


async def test_apps_that_do_not_serve_say_why(rig: Rig) -> None:
    async def ask() -> tuple[int, bytes]:
        async with rig.connect() as wire:
            wire.send(get(), get())
            first, second = await wire.answer(), await wire.answer()  # the connection is kept
            assert first.body == second.body
            return first.status, first.body

    await rig.route(replicas=0)
    status, body = await ask()
    assert (status, b"no web process" in body) == (503, True)
    await rig.route(replicas=3)
    status, body = await ask()
    assert (status, b"starting" in body) == (503, True)
    async with Pod() as pod:
        await rig.route(pod, is_routable=False)
        status, body = await ask()
        assert (status, b"no app" in body) == (404, True)
        await rig.route(pod)
        assert (await ask())[0] == 200


POST = b"POST / HTTP/1.1\r\nHost: app.localhost\r\n"


GET = b"GET / HTTP/1.1\r\nHost: app.localhost\r\n"


BAD = {
    "two lengths": POST + b"Content-Length: 3\r\nContent-Length: 1\r\n\r\nabc",
    "length and chunks": POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a list of lengths": POST + b"Content-Length: 3, 3\r\n\r\nabc",
    "a signed length": POST + b"Content-Length: +3\r\n\r\nabc",
    "a blank before the colon": POST + b"Content-Length : 3\r\n\r\nabc",
    "a folded field": GET + b"X: a\r\n b\r\n\r\n",
    "a bare line feed": GET + b"X: a\nY: b\r\n\r\n",
    "a NUL": GET + b"X: a\0b\r\n\r\n",
    "two hosts": GET + b"Host: other.localhost\r\n\r\n",
    "an empty and another host": b"GET / HTTP/1.1\r\nHost:\r\nHost: app.localhost\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "a strange host": b'GET / HTTP/1.1\r\nHost: app.localhost"\r\n\r\n',
    "userinfo": b"GET http://app.localhost@evil/ HTTP/1.1\r\nHost: app.localhost\r\n\r\n",
    "no path": b"GET app HTTP/1.1\r\nHost: app.localhost\r\n\r\n",
    "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "an unknown method": b"FETCH / HTTP/1.1\r\nHost: app.localhost\r\n\r\n",
}


@pytest.mark.parametrize("case", BAD)
async def test_ed06_what_two_readers_could_read_differently_is_refused(rig: Rig, case: str) -> None:
    async with Pod() as pod:
        await rig.route(pod)
        async with rig.connect() as wire:
            wire.send(BAD[case])
            answer = await wire.answer()
            assert answer.status == 400
            assert answer.get("connection") == "close"
            assert await wire.rest() == b""
        assert pod.connections == 0


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (get("/", "Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n", 501),
        (b"POST / HTTP/1.0\r\nHost: app.localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
        (b"GET / HTTP/2.0\r\nHost: app.localhost\r\n\r\n", 505),
        (b"CONNECT app.localhost:80 HTTP/1.1\r\nHost: app.localhost\r\n\r\n", 405),
        (get("/", *(f"X-{number}: {'x' * 1000}" for number in range(33))), 431),
        (get("/" + "x" * 33_000), 431),
        (get("/", "X: " + "x" * 100_000)[:-4], 431),
        (get("/", "Transfer-Encoding: chunked") + b"1;" + b"x" * 100_000, 431),
        (get("/", "Transfer-Encoding: chunked") + b"0\r\nX: " + b"x" * 300_000, 431),
        (get() * 2000, 429),
    ],
)
async def test_what_the_edge_does_not_take(rig: Rig, request_bytes: bytes, status: int) -> None:
    async with Pod() as pod:
        await rig.route(pod)
        async with rig.connect() as wire:
            wire.send(request_bytes)
            while (answer := await wire.answer()).status == 200:
                pass
            assert answer.status == status
            assert answer.get("connection") == "close"


async def test_a_bad_request_waits_for_the_good_one_before_it(rig: Rig) -> None:
    async with Pod() as pod:
        await rig.route(pod)
        async with rig.connect() as wire:
            wire.send(get("/1"), get("/2"), BAD["a NUL"], get("/3"))
            assert [(await wire.answer()).status for _ in range(3)] == [200, 200, 400]
            assert await wire.rest() == b""
        assert [request.line.split()[1] for request in pod.received] == ["/1", "/2"]
