"""Builds as records, their logs by cursor, and their end, as clients see them."""

import asyncio
from typing import Any

import pytest

from drycc.api.role import make_app
from drycc.api.schemas.base import Listing
from drycc.api.schemas.builds import BuildRecord, LogPage
from tests.api.conftest import Api
from tests.cluster import Finished
from tests.waiting import until

BASE = "/v2/apps/shop/builds"


async def get(api: Api, token: str, path: str) -> Any:
    answer = await api.call("GET", f"{BASE}/{path}", token=token)
    assert answer.status == 200, answer
    return answer.json()


async def read_log(api: Api, token: str, id: int, query: str = "") -> LogPage:
    return LogPage.model_validate(await get(api, token, f"{id}/log?{query}"))


async def read_to(api: Api, token: str, text: str) -> LogPage:
    """The page of a running build's log on which this line stands."""
    page = await read_log(api, token, 1, "wait=30")
    while text not in [line.text for line in page.results]:
        page = await read_log(api, token, 1, f"cursor={page.cursor}&wait=30")
    assert not page.is_over
    return page


async def test_builds_are_listed_newest_first_whatever_became_of_them(api: Api, alice: str) -> None:
    app = await api.add_app(alice)
    await api.push(app, "alice", web="./one")
    api.cluster.builds = Finished(b"no such module\n", code=1)
    await api.push(app, "alice", web="./two")
    listed = Listing[BuildRecord].model_validate(await get(api, alice, ""))
    assert [(b.id, b.state, b.release, b.reason) for b in listed.results] == [
        (2, "failed", None, "the build failed with exit code 1"),
        (1, "succeeded", 2, ""),
    ]
    one = listed.results[1]
    assert (one.app, one.owner, one.stack, one.image, one.app_ahead) == (
        "shop",
        "alice",
        "buildpack",
        "shop:1",
        0,
    )
    assert one.duration is not None
    assert one.started <= one.ended  # type: ignore[operator]
    assert BuildRecord.model_validate(await get(api, alice, "1/")) == one
    page = await get(api, alice, "?limit=1")
    assert (page["count"], len(page["results"]), page["previous"]) == (2, 1, None)
    assert page["next"].endswith("/v2/apps/shop/builds/?limit=1&offset=1")


@pytest.mark.parametrize("number", ["0", "3", "2147483648", "9" * 5000])
async def test_a_build_that_is_not_there(api: Api, alice: str, bob: str, number: str) -> None:
    await api.add_app(alice)
    await api.push(await api.add_app(bob, "other"), "bob", web="./web")
    for method, path in (("GET", ""), ("GET", "/log"), ("POST", "/cancel")):
        for id in (number, "1"):  # of another app
            answer = await api.call(method, f"{BASE}/{id}{path}", token=alice)
            assert (answer.status, answer.json()) == (404, "No Build matches the given query."), (
                method,
                path,
            )


async def test_a_log_is_read_by_cursor_to_its_end(api: Api, alice: str) -> None:
    app = await api.add_app(alice)
    api.cluster.builds = Finished(b"cloning https://u:s3cret@host/r.git\n" + b"line\n" * 50)
    await api.push(app, "alice", web="./web")
    whole = await read_log(api, alice, 1)
    assert whole.is_over
    assert whole.results[1].text == "cloning https://[masked]@host/r.git"
    assert [line.seq for line in whole.results] == list(range(1, len(whole.results) + 1))
    found, page = [], await read_log(api, alice, 1, "limit=7")
    while not page.is_over:
        found += page.results
        page = await read_log(api, alice, 1, f"limit=7&cursor={page.cursor}")
    assert found + page.results == whole.results
    last = await read_log(api, alice, 1, f"cursor={whole.cursor}")
    assert (last.results, last.cursor, last.is_over) == ([], whole.cursor, True)
    for query in ("limit=0", "limit=1001", "limit=x", "wait=31", "wait=-1", "cursor=nobodys"):
        answer = await api.call("GET", f"{BASE}/1/log?{query}", token=alice)
        assert (answer.status, list(answer.json())) == (400, [query.partition("=")[0]]), query


async def test_a_reader_may_wait_for_the_first_line(api: Api, alice: str) -> None:
    app = await api.add_app(alice)
    api.cluster.hanging = True
    pushing = asyncio.create_task(api.push(app, "alice", web="./web"))
    await until(lambda: api.cluster.ended)
    page = await read_to(api, alice, "built")
    waiting = asyncio.create_task(read_log(api, alice, 1, f"cursor={page.cursor}&wait=30"))
    (ended,) = api.cluster.ended.values()
    ended.set()
    page = await asyncio.wait_for(waiting, 10)
    assert page.results[0].text == "Build complete."
    await pushing


async def test_a_reader_who_waits_holds_up_no_end_of_the_platform(api: Api, alice: str) -> None:
    app = await api.add_app(alice)
    api.cluster.hanging = True
    pushing = asyncio.create_task(api.push(app, "alice", web="./web"))
    await until(lambda: api.cluster.ended)
    page = await read_to(api, alice, "built")
    waiting = asyncio.create_task(read_log(api, alice, 1, f"cursor={page.cursor}&wait=30"))
    api.needs.health.is_ready = False
    page = await asyncio.wait_for(waiting, 5)
    assert (page.results, page.is_over) == ([], False)
    pushing.cancel()
    await asyncio.gather(pushing, return_exceptions=True)


async def test_bd10_a_build_is_cancelled_once_and_then_it_is_too_late(api: Api, alice: str) -> None:
    app = await api.add_app(alice)
    api.cluster.hanging = True
    pushing = asyncio.create_task(api.push(app, "alice", web="./web"))
    await until(lambda: api.cluster.ended)
    assert (await api.call("POST", f"{BASE}/1/cancel", token=alice)).status == 204
    await asyncio.wait_for(pushing, 10)
    record = BuildRecord.model_validate(await get(api, alice, "1/"))
    assert (record.state, record.reason) == ("cancelled", "cancelled by alice")
    again = await api.call("POST", f"{BASE}/1/cancel", token=alice)
    assert (again.status, again.json()) == (409, {"detail": "build 1 is over: cancelled"})
    api.cluster.hanging = False
    await api.push(app, "alice", web="./web")
    late = await api.call("POST", f"{BASE}/2/cancel", token=alice)
    text = "build 2 has become v2: it is too late to cancel it, but you can roll back"
    assert (late.status, late.json()) == (409, {"detail": text})


async def test_a_queued_build_says_how_many_are_ahead(api: Api, alice: str) -> None:
    """Two slots: the third of three apps waits for the node, a second build of one app for its app alone."""
    api.cluster.hanging = True
    tasks = []
    for name in ("one", "two"):
        tasks.append(asyncio.create_task(api.push(await api.add_app(alice, name), "alice", web="./web")))
        await until(lambda: len(api.cluster.ended) == len(tasks))
    await api.queue(await api.add_app(alice, "three"), "alice", web="./web")
    await api.queue(await api.add_app(alice, "four"), "alice", web="./web")
    four = BuildRecord.model_validate((await api.call("GET", "/v2/apps/four/builds/4/", token=alice)).json())
    assert (four.state, four.app_ahead, four.node_ahead) == ("queued", 0, 3)
    api.cluster.hanging = False
    for ended in api.cluster.ended.values():
        ended.set()
    await asyncio.gather(*tasks)


async def test_openapi_says_that_these_are_beyond_the_original(api: Api) -> None:
    paths = make_app(api.needs).openapi()["paths"]
    described = {path: item for path, item in paths.items() if path.startswith("/v2/apps/{app}/builds/")}
    assert set(described) == {
        f"/v2/apps/{{app}}/builds/{rest}" for rest in ("", "{build}/", "{build}/log/", "{build}/cancel/")
    }
    for item in described.values():
        for operation in item.values():
            assert operation["description"].startswith("Beyond the original.")
