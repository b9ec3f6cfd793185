"""What every answer has: version headers, slashes, error shapes, limits."""

import asyncio
import json
import socket
from time import perf_counter

import pytest

from tests.api.conftest import Api

SLASHED = [
    ("GET", "/v2"),
    ("GET", "/v2/auth/whoami"),
    ("GET", "/v2/tokens"),
    ("GET", "/v2/keys"),
    ("GET", "/v2/apps"),
    ("GET", "/v2/apps/shop"),
    ("GET", "/v2/apps/shop/settings"),
    ("GET", "/v2/apps/shop/domains"),
    ("GET", "/v2/apps/shop/build"),
    ("GET", "/v2/apps/shop/builds"),
    ("GET", "/v2/apps/shop/config"),
    ("GET", "/v2/apps/shop/releases"),
    ("GET", "/v2/apps/shop/releases/v1"),
    ("GET", "/v2/apps/shop/pods"),
    ("GET", "/v2/apps/shop/ptypes"),
]


def assert_versions(headers: object) -> None:
    assert isinstance(headers, dict)
    assert headers["drycc_api_version"] == "2.3"
    assert headers["drycc_platform_version"] == "2.3.0"


async def test_a_login_finds_a_controller(api: Api) -> None:
    for path in ("/v2/", "/v2", "//v2/", "///v2/"):
        answer = await api.call("GET", path)
        assert answer.status == 401, path
        assert answer.json() == {"detail": "Authentication credentials were not provided."}
        assert answer.headers["www-authenticate"] == "token"
        assert_versions(answer.headers)


async def test_versions_stand_on_every_answer(api: Api, alice: str) -> None:
    for method, path, status in [
        ("GET", "/healthz", 200),
        ("POST", "/healthz", 405),
        ("GET", "/healthz/", 404),
        ("GET", "/readiness", 200),
        ("GET", "/v2/nothing/", 404),
        ("GET", "/", 404),
        ("PATCH", "/v2/apps/", 405),
        ("GET", "/v2/apps/none/", 404),
        ("POST", "/v2/keys/", 400),
        ("GET", "/openapi.json", 200),
        ("GET", "/docs", 200),
    ]:
        answer = await api.call(method, path, token=alice)
        assert answer.status == status, (method, path, answer)
        assert_versions(answer.headers)


async def test_readiness_follows_the_platform(api: Api) -> None:
    assert (await api.call("GET", "/healthz")).body == b"OK"
    assert (await api.call("GET", "/readiness")).body == b"OK"
    assert (await api.call("HEAD", "/readiness")).status == 200
    api.needs.health.is_ready = False
    answer = await api.call("GET", "/readiness")
    assert answer.status == 503
    assert_versions(answer.headers)
    assert (await api.call("GET", "/healthz")).status == 200


async def test_every_route_answers_with_and_without_the_final_slash(api: Api, alice: str) -> None:
    await api.add_app(alice)
    for method, path in SLASHED:
        with_slash = await api.call(method, path + "/", token=alice)
        without = await api.call(method, path, token=alice)
        many = await api.call(method, "//" + path.lstrip("/"), token=alice)
        assert with_slash.status == 200, path
        assert (without.status, without.body) == (200, with_slash.body), path
        assert many.body == with_slash.body, path
        head = await api.call("HEAD", path, token=alice)
        assert (head.status, head.body) == (200, b""), path
        assert (await api.call(method, path + "//", token=alice)).status == 404, path


async def test_bodies_of_errors(api: Api, alice: str) -> None:
    missing = await api.call("GET", "/v2/apps/none/", token=alice)
    assert missing.json() == "No App matches the given query."
    for path in ("/v2/nope/", "/v2/apps/UPPER/", "/v2/apps/shop/releases/vx/"):
        page = await api.call("GET", path, token=alice)
        assert page.status == 404
        assert page.headers["content-type"].startswith("text/html")
    wrong = await api.call("PATCH", "/v2/apps/", token=alice)
    assert wrong.json() == {"detail": 'Method "PATCH" not allowed.'}
    broken = await api.call("POST", "/v2/apps/", raw=b"{nope", token=alice)
    assert broken.status == 400
    assert broken.json()["detail"].startswith("JSON parse error - Expecting property name")
    for text in (b'"text"', b"[1]", b"3"):
        odd = await api.call("POST", "/v2/apps/", raw=text, token=alice)
        assert odd.status == 400
        assert odd.json()["non_field_errors"][0].startswith("Invalid data. Expected a dictionary")
    other = await api.call(
        "POST", "/v2/apps/", raw=b"id=x", headers={"Content-Type": "text/plain"}, token=alice
    )
    assert other.status == 415
    assert other.json() == {"detail": 'Unsupported media type "text/plain" in request.'}


async def test_an_empty_body_is_an_empty_object(api: Api, alice: str) -> None:
    answer = await api.call("POST", "/v2/apps/", token=alice)
    assert answer.status == 201
    assert answer.json()["owner"] == "alice"
    parts = {"Content-Type": "application/json; charset=utf-8"}
    assert (await api.call("POST", "/v2/apps", raw=b"", headers=parts, token=alice)).status == 201


CREDENTIALS = [
    ("token", "Invalid token header. No credentials provided."),
    ("Token a b", "Invalid token header. Token string should not contain spaces."),
    ("token caf\xe9", "Invalid token header. Token string should not contain invalid characters."),
    ("TOKEN unknown", "Invalid token."),
    ("Basic YTpi", "Authentication credentials were not provided."),
    ("bearer some", "Verify token fail."),
]


async def test_credentials_that_do_not_hold(api: Api) -> None:
    for header, detail in CREDENTIALS:
        answer = await api.call("GET", "/v2/apps/", headers={"Authorization": header})
        assert (answer.status, answer.json()) == (401, {"detail": detail})
        assert answer.headers["www-authenticate"] == ("bearer" if header.startswith("bearer") else "token")


async def test_any_origin_may_ask(api: Api) -> None:
    origin = {"Origin": "https://console.example"}
    answer = await api.call("GET", "/healthz", headers=origin)
    assert answer.headers["access-control-allow-origin"] == "*"
    exposed = answer.headers["access-control-expose-headers"]
    assert exposed == "DRYCC_API_VERSION, DRYCC_PLATFORM_VERSION"
    asked = {
        "Access-Control-Request-Method": "DELETE",
        "Access-Control-Request-Headers": "authorization, content-type",
    }
    preflight = await api.call("OPTIONS", "/v2/apps/", headers=origin | asked)
    assert preflight.status == 200
    assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
    assert_versions(preflight.headers)


async def test_a_body_of_a_gigabyte_is_refused_before_it_comes(api: Api, alice: str) -> None:
    def send() -> tuple[float, bytes]:
        with socket.create_connection(("127.0.0.1", api.port), timeout=10) as connection:
            head = f"POST /v2/apps/ HTTP/1.1\r\nHost: x\r\nAuthorization: token {alice}\r\n"
            connection.sendall(f"{head}Content-Length: {2**30}\r\n\r\n".encode() + b"x" * 65536)
            started = perf_counter()
            answer = connection.recv(65536)
            return perf_counter() - started, answer

    took, answer = await asyncio.to_thread(send)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"drycc_api_version: 2.3" in answer.lower()
    assert took < 0.1


async def test_a_body_without_a_length_is_counted(api: Api, alice: str) -> None:
    def send() -> bytes:
        with socket.create_connection(("127.0.0.1", api.port), timeout=10) as connection:
            head = f"POST /v2/apps/ HTTP/1.1\r\nHost: x\r\nAuthorization: token {alice}\r\n"
            connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            for _ in range(40):
                connection.sendall(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
            return connection.recv(65536)

    assert (await asyncio.to_thread(send)).startswith(b"HTTP/1.1 413 ")


async def test_headers_have_a_limit(api: Api) -> None:
    answer = await api.call("GET", "/v2/", headers={"X-Long": "x" * 40_000})
    assert answer.status == 431
    assert_versions(answer.headers)


async def test_a_bug_shows_an_id_and_no_trace(api: Api, alice: str, caplog: pytest.LogCaptureFixture) -> None:
    await api.add_app(alice)

    async def fail(app: str) -> None:
        raise ZeroDivisionError("secret detail")

    api.cluster.list = fail  # type: ignore[method-assign, assignment]
    answer = await api.call("GET", "/v2/apps/shop/pods/?token=abc", token=alice)
    assert answer.status == 500
    assert answer.json() == {"detail": "Server Error"}
    assert_versions(answer.headers)
    (record,) = [record for record in caplog.records if "internal error" in record.getMessage()]
    assert answer.headers["x-error-id"] in record.getMessage()
    assert "abc" not in caplog.text
    assert record.exc_info


async def test_openapi_tells_the_whole_story(api: Api) -> None:
    document = json.loads((await api.call("GET", "/openapi.json")).body)
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    assert len(operations) > 25
    for path, method, operation in operations:
        assert operation["summary"], (path, method)
        assert any(int(status) < 300 for status in operation["responses"]), (path, method)
        if path.startswith("/v2/"):
            assert operation["responses"]["401"]["content"], (path, method)
        if method == "post" and not path.endswith("/cancel/"):
            assert operation["requestBody"], (path, method)
