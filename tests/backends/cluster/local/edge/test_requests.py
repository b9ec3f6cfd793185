"""What of a request reaches the app, and what of its answer the client."""

import asyncio

import pytest

from drycc.backends.cluster.local.edge.snapshot import AppRoutes
from tests.backends.cluster.local.edge.rig import OK, Message, Pod, Rig, get, post


def echo(request: Message) -> bytes:
    body = "\n".join((request.line, *(f"{name}: {value}" for name, value in request.fields))).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize(
    "target",
    [
        "/api/q/%2F/x?y=%2F",
        "//double//slash/./../dots",
        "/a;b=c/%C3%BC%ff?x=1&x=2&&=&%20+",
        "/?",
        "/quo\"te|{}^`[]\\~'",
        "/x?next=http://other/%2e%2e",
    ],
)
async def test_ed03_the_target_reaches_the_app_byte_for_byte(rig: Rig, target: str) -> None:
    async with Pod() as pod:
        await rig.route(pod)
        assert (await rig.ask(get(target))).body == b"ok"
        assert pod.received[0].line == f"GET {target} HTTP/1.1"


async def test_a_target_with_an_authority_is_routed_by_it(rig: Rig) -> None:
    async with Pod() as pod:
        await rig.route(pod)
        answer = await rig.ask(get("http://APP.localhost:8080/x?y=%2F", host="elsewhere.localhost"))
        assert answer.body == b"ok"
        assert pod.received[0].line == "GET /x?y=%2F HTTP/1.1"
        assert pod.received[0].get("host") == "APP.localhost:8080"


FORGED = (
    "X-Forwarded-For: 10.9.9.9",
    "x-forwarded-for: 10.9.9.8",
    "X_Forwarded_For: 10.9.9.9",
    "X-Forwarded-Proto: https",
    "X-Forwarded_Proto: https",
    "X-Forwarded-Host: evil.example.com",
    "X-Forwarded-Port: 443",
    "X-Forwarded-Ssl: on",
    "X-Real-IP: 10.9.9.9",
    "X_REAL_IP: 10.9.9.9",
    "Forwarded: for=10.9.9.9;proto=https",
    "X-Request-Id: 10.9.9.9",
    "Proxy: http://10.9.9.9/",
    "X-Client-IP: 10.9.9.9",
    "x_cluster_client_ip: 10.9.9.9",
    "True-Client-IP: 10.9.9.9",
    "CF-Connecting-IP: 10.9.9.9",
    "X-Original-Forwarded-For: 10.9.9.9",
    "X-Forwarded-Anything_At-All: 10.9.9.9",
    "X_FORWARDED_USER: evil",
)


async def test_ed02_a_client_cannot_forge_who_it_is(rig: Rig) -> None:
    async with Pod() as pod:
        await rig.route(pod)
        answer = await rig.ask(get("/", *FORGED))
        request = pod.received[0]
        assert request.get("x-forwarded-for") == "127.0.0.1"
        assert request.get("x-real-ip") == "127.0.0.1"
        assert request.get("x-forwarded-proto") == "http"
        assert request.get("x-forwarded-host") == "app.localhost"
        assert request.get("x-forwarded-port") == str(rig.port)
        assert request.get("forwarded") == 'for=127.0.0.1;host="app.localhost";proto=http'
        assert request.get("x-request-id") == answer.get("x-request-id")
        told = str(request.fields).lower()
        assert "10.9.9" not in told
        assert "https" not in told
        assert "evil" not in told
        assert len([name for name, _ in request.fields if name.lower().startswith("x-forwarded")]) == 4
        line = (await rig.access(answer))["text"]
        assert line.split()[-2:] == ["127.0.0.1", answer.get("x-request-id")]


async def test_se05_naming_our_fields_in_connection_removes_none_of_them(rig: Rig) -> None:
    async with Pod() as pod:
        await rig.route(pod)
        named = "Connection: X-Forwarded-For, Host, X-Hop, Content-Length, Cookie"
        await rig.ask(post(b"abc", named, "X-Hop: 1", "Cookie: a=b", "X-Stays: 1"))
        request = pod.received[0]
        assert request.get("x-forwarded-for") == "127.0.0.1"
        assert request.get("host") == "app.localhost"
        assert request.get("cookie") == "a=b"
        assert request.get("x-stays") == "1"
        assert request.get("x-hop") is None
        assert request.body == b"abc"


async def test_fields_of_one_hop_are_not_passed_on(rig: Rig) -> None:
    def respond(request: Message) -> bytes:
        return (
            b"HTTP/1.1 200 Fine\r\nKeep-Alive: timeout=5\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\n"
            b"Proxy-Authenticate: Basic\r\nX-Kept: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
            b"X-Request-Id: the app's\r\nContent-Length: 2\r\n\r\nok"
        )

    async with Pod(respond=respond) as pod:
        await rig.route(pod)
        lines = ("Keep-Alive: 300", "TE: trailers", "Trailer: X-Sum", "Proxy-Authorization: Basic x")
        answer = await rig.ask(get("/", *lines, "Upgrade: h2c", "Connection: TE, X-Hop", "X-Hop: 1"))
        sent = {name.lower() for name, _ in pod.received[0].fields}
        assert not sent & {
            "keep-alive",
            "te",
            "trailer",
            "proxy-authorization",
            "upgrade",
            "connection",
            "x-hop",
        }
        assert answer.line == "HTTP/1.1 200 Fine"
        assert [name for name, _ in answer.fields] == [
            "X-Kept", "Set-Cookie", "Set-Cookie", "Content-Length", "X-Request-Id",
        ]  # fmt: skip
        assert answer.get("x-request-id") != "the app's"


@pytest.mark.parametrize(
    "host",
    [
        "WWW.Example.COM",
        "www.example.com:8080",
        "www.example.com.",
        "wWw.example.com.:80",
        "www.example.com:",
    ],
)
async def test_dm01_a_host_is_the_same_in_every_spelling(rig: Rig, host: str) -> None:
    async with Pod() as pod:
        routes = {"app": AppRoutes("web", True, 1, (pod.endpoint,))}
        await rig.apply(routes, **{"www.example.com": "app"})
        assert (await rig.ask(get(host=host))).status == 200
        assert pod.received[0].get("host") == host


async def test_requests_sent_ahead_are_answered_in_order(rig: Rig) -> None:
    async with Pod(respond=echo) as pod:
        await rig.route(pod)
        async with rig.connect() as wire:
            wire.send(*(post(b"x" * number, target=f"/{number}") + get(f"/{number}") for number in range(20)))
            for number in range(20):
                assert (await wire.answer()).body.startswith(b"POST /%d " % number)
                assert (await wire.answer()).body.startswith(b"GET /%d " % number)
        assert [len(request.body) for request in pod.received if request.line[0] == "P"] == list(range(20))


async def test_ed10_trailers_are_dropped_and_framing_survives(rig: Rig) -> None:
    async with Pod() as pod:
        await rig.route(pod)
        async with rig.connect() as wire:
            head = get("/", "Transfer-Encoding: chunked", "Trailer: X-Sum", method="POST")
            wire.send(head, b"3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\nHost: evil\r\n\r\n", get("/second"))
            assert (await wire.answer()).status == 200
            assert (await wire.answer()).status == 200
        first, second = pod.received
        assert first.body == b"abcde"
        assert first.get("x-sum") is None
        assert first.get("host") == "app.localhost"
        assert second.line == "GET /second HTTP/1.1"


async def test_ed10_trailers_of_an_answer_are_dropped(rig: Rig) -> None:
    def respond(request: Message) -> bytes:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        return head + b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nSet-Cookie: a=b\r\n\r\n"

    async with Pod(respond=respond) as pod:
        await rig.route(pod)
        async with rig.connect() as wire:
            wire.send(get(), get())
            for _ in range(2):
                answer = await wire.answer()
                assert answer.body == b"abc"
                assert answer.get("set-cookie") is None
        assert pod.connections == 1


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_answers_without_a_body_keep_the_connection(rig: Rig, status: bytes) -> None:
    async with Pod(respond=lambda _: b"HTTP/1.1 %b\r\nETag: x\r\n\r\n" % status) as pod:
        await rig.route(pod)
        async with rig.connect() as wire:
            for _ in range(3):
                wire.send(get())
                answer = await wire.answer()
                assert (answer.line, answer.get("transfer-encoding")) == (f"HTTP/1.1 {status.decode()}", None)
        assert pod.connections == 1


async def test_head_has_the_length_but_no_body(rig: Rig) -> None:
    def respond(request: Message) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" if request.line[0] == "H" else OK

    async with Pod(respond=respond) as pod:
        await rig.route(pod)
        async with rig.connect() as wire:
            wire.send(get(method="HEAD"))
            assert (await wire.answer("HEAD")).get("content-length") == "1000"
            wire.send(get())
            assert (await wire.answer()).body == b"ok"
        assert pod.connections == 1
        await rig.apply({})
        answer = await rig.ask(get(method="HEAD"), "HEAD")
        assert (answer.status, int(answer.get("content-length") or 0) > 0) == (404, True)


async def test_http_1_0_clients_are_understood(rig: Rig) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    async with Pod(respond=lambda request: chunked if "chunked" in request.line else OK) as pod:
        await rig.route(pod)
        async with rig.connect() as wire:
            wire.send(b"GET / HTTP/1.0\r\nHost: app.localhost\r\nConnection: keep-alive\r\n\r\n")
            assert (await wire.answer()).get("connection") == "keep-alive"
            wire.send(b"GET /chunked HTTP/1.0\r\nHost: app.localhost\r\nConnection: keep-alive\r\n\r\n")
            answer = await wire.answer()
            assert (answer.body, answer.get("transfer-encoding")) == (b"abc", None)
            assert answer.get("connection") == "close"
        async with rig.connect() as wire:
            wire.send(b"GET / HTTP/1.0\r\nHost: app.localhost\r\n\r\n")
            assert (await wire.rest()).endswith(b"ok")


async def test_ed13_a_client_that_closes_its_half_gets_the_whole_answer(rig: Rig) -> None:
    size = 3_000_000

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.1)  # the client's end comes first
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        writer.write(b"x" * size)
        await writer.drain()
        await reader.read()

    async with Pod(handler=slow) as pod:
        await rig.route(pod)
        async with rig.connect() as wire:
            wire.send(get())
            wire.writer.write_eof()
            assert len((await wire.rest()).split(b"\r\n\r\n", 1)[1]) == size


@pytest.mark.parametrize("size", [1, 3, 50])
async def test_requests_are_the_same_in_whatever_pieces_they_come(rig: Rig, size: int) -> None:
    chunked = (
        get("/2", "Transfer-Encoding: chunked", method="POST") + b"3;x=y\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"
    )
    offer = ("Connection: Upgrade", "Upgrade: h2c")
    stream = b"".join((get("/1"), chunked, get("/3", *offer), post(b"de", *offer, target="/4"), get("/5")))
    async with Pod() as pod, rig.connect() as wire:
        await rig.route(pod)
        for start in range(0, len(stream), size):
            wire.send(stream[start : start + size])
            await asyncio.sleep(0.0005)  # a segment of its own
        assert [(await wire.answer()).body for _ in range(5)] == [b"ok"] * 5
        assert [(request.line.split()[1], request.body) for request in pod.received] == [
            ("/1", b""), ("/2", b"abc"), ("/3", b""), ("/4", b"de"), ("/5", b""),
        ]  # fmt: skip
