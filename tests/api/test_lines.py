"""Lines of an app over HTTP: pages by cursor, filters, wrong parameters."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from drycc.backends.logstore.base import Line
from tests.api.conftest import Api
from tests.platform import Answer

AT = datetime(2026, 3, 1, 12, 0, 0, 250_000, UTC)
WEB, WORKER = "shop-web-123456789-abcde", "shop-worker-123456789-fghjk"


async def fill(api: Api, count: int) -> None:
    """Every third line is the worker's; a tenth of a second apart."""
    await api.needs.logs.append("shop", [make_line(n) for n in range(count)])


def make_line(n: int) -> Line:
    ptype, pod = ("worker", WORKER) if n % 3 == 2 else ("web", WEB)
    return Line(AT + timedelta(seconds=n / 10), "app", f"{n} é", ptype, 2, pod)


async def get(api: Api, token: str, **query: Any) -> Answer:
    return await api.call("GET", f"/v2/apps/shop/lines/?{urlencode(query)}", token=token)


async def numbers(api: Api, token: str, **query: Any) -> list[int]:
    answer = await get(api, token, **query)
    assert answer.status == 200, answer
    return [int(line["text"].split()[0]) for line in answer.json()["results"]]


async def test_a_line_has_these_fields(api: Api, alice: str) -> None:
    await api.add_app(alice)
    await fill(api, 1)
    request = Line(AT, "access", "GET / 200")
    await api.needs.logs.append("shop", [request, Line(AT, "platform", "INFO alice deployed v2")])
    body = (await get(api, alice)).json()
    assert set(body) == {"results", "cursor"}
    at = "2026-03-01T12:00:00.250000Z"
    blank = {"at": at, "ptype": "", "pod": "", "stream": ""}
    assert body["results"] == [
        {"at": at, "source": "app", "ptype": "web", "pod": WEB, "stream": "stdout", "text": "0 é"},
        blank | {"source": "access", "text": "GET / 200"},
        blank | {"source": "platform", "text": "INFO alice deployed v2"},
    ]


async def test_pages_follow_each_other_by_cursor(api: Api, alice: str) -> None:
    """LG-01: reading consumes nothing; an answer without lines gives back the cursor."""
    await api.add_app(alice)
    await fill(api, 250)
    first = (await get(api, alice)).json()
    assert (await get(api, alice)).json() == first
    assert len(first["results"]) == 100
    assert await numbers(api, alice, cursor=first["cursor"], limit=1000) == list(range(100, 250))
    end = (await get(api, alice, tail=0)).json()
    assert end["results"] == []
    assert (await get(api, alice, cursor=end["cursor"])).json() == end
    await api.needs.logs.append("shop", [make_line(250)])
    assert await numbers(api, alice, cursor=end["cursor"]) == [250]
    assert await numbers(api, alice, cursor="", limit=2) == [0, 1]


async def test_filters_choose_lines(api: Api, alice: str) -> None:
    await api.add_app(alice)
    await fill(api, 90)
    workers = list(range(2, 90, 3))
    assert await numbers(api, alice, ptype="worker") == workers
    assert await numbers(api, alice, pod=WORKER, tail=5) == workers[-5:]
    assert await numbers(api, alice, text="8", ptype="worker") == [n for n in workers if "8" in str(n)]
    assert await numbers(api, alice, text="é", since="2026-03-01T12:00:08.25Z") == list(range(80, 90))
    assert await numbers(api, alice, since="2026-03-01T13:00:09.10+01:00") == [89]
    assert await numbers(api, alice, text="%00") == []
    nothing = (await get(api, alice, ptype="clock")).json()
    assert await numbers(api, alice, cursor=nothing["cursor"]) == []


async def test_an_app_without_lines_has_an_empty_page(api: Api, alice: str) -> None:
    await api.add_app(alice)
    answer = (await get(api, alice)).json()
    assert answer["results"] == []
    await fill(api, 1)
    assert await numbers(api, alice, cursor=answer["cursor"]) == [0]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("limit", ["0", "-1", "1001", "x", "", "1.5", "9" * 5000]),
        ("tail", ["-1", "1000001", "x"]),
        ("since", ["x", "2026-03-01T12:00:00", "12:00", "2026-13-01T00:00:00Z"]),
        ("cursor", ["x", "12345678-", "12345678-x", "-1", "12345678-" + "9" * 5000, "\0"]),
    ],
)
async def test_wrong_parameters_are_named(api: Api, alice: str, name: str, values: list[str]) -> None:
    await api.add_app(alice)
    for value in values:
        answer = await get(api, alice, **{name: value})
        assert (answer.status, list(answer.json())) == (400, [name]), (value, answer)
        assert all(isinstance(text, str) for text in answer.json()[name])


async def test_extreme_times_and_names_do_no_harm(api: Api, alice: str) -> None:
    await api.add_app(alice)
    await fill(api, 3)
    for since, count in (("0001-01-01T00:00:00Z", 3), ("9999-12-31T23:59:59-12:00", 0)):
        assert len(await numbers(api, alice, since=since)) == count
    for path in ("/v2/apps/none/lines/", "/v2/apps/sh%00op/lines/"):
        assert (await api.call("GET", path, token=alice)).status == 404
    assert (await api.call("GET", "/v2/apps/shop/lines", token=alice)).status == 200


async def test_it_stands_in_the_openapi_document(api: Api) -> None:
    path = (await api.call("GET", "/openapi.json")).json()["paths"]["/v2/apps/{app}/lines/"]["get"]
    names = {parameter["name"] for parameter in path["parameters"]}
    assert names == {"app", "cursor", "limit", "tail", "since", "ptype", "pod", "text"}
    assert set(path["responses"]) >= {"200", "400", "401", "403", "404"}
    assert "100,000" in path["description"]
