"""Apps from create to destroy."""

import asyncio
import re
from uuid import UUID

import pytest
import sqlalchemy as sa

from drycc.api.schemas.apps import App, AppSettings
from drycc.api.schemas.base import Listing
from drycc.core import apps
from drycc.core import models as m
from tests.api.conftest import Api


async def test_a_new_app_has_all_that_a_client_asks_for(api: Api, alice: str) -> None:
    answer = await api.call("POST", "/v2/apps/", {"id": " shop ", "structure": {"web": 9}}, token=alice)
    assert answer.status == 201
    app = App.model_validate(answer.json())
    assert (app.id, app.owner, app.workspace, app.structure) == ("shop", "alice", "alice", {})
    assert app.uid >= 1000
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", app.created)
    assert (await api.call("GET", "/v2/apps/shop/", token=alice)).json() == answer.json()

    settings = AppSettings.model_validate(
        (await api.call("GET", "/v2/apps/shop/settings/", token=alice)).json()
    )
    assert (settings.routable, settings.autodeploy, settings.autorollback) == (True, True, True)
    assert (settings.app, settings.owner, settings.autoscale, settings.label) == ("shop", "alice", {}, {})
    domains = (await api.call("GET", "/v2/apps/shop/domains/?limit=1", token=alice)).json()
    assert domains == {"count": 0, "next": None, "previous": None, "results": []}
    release = (await api.call("GET", "/v2/apps/shop/releases/v1/", token=alice)).json()
    assert (release["summary"], release["state"]) == ("alice created initial release", "created")
    config = (await api.call("GET", "/v2/apps/shop/config/", token=alice)).json()
    assert config["limits"] == {"web": "std1.large.c1m1", "run": "std1.large.c1m1"}
    assert config["values"] == []


async def test_a_name_is_made_up_when_none_is_given(api: Api, alice: str) -> None:
    names = {(await api.call("POST", "/v2/apps/", token=alice)).json()["id"] for _ in range(5)}
    assert len(names) == 5
    for name in names:
        assert re.fullmatch("[a-z]{6}-[a-z]{8}", name)


async def test_apps_created_at_one_moment_have_different_uids(api: Api, alice: str) -> None:
    made = await asyncio.gather(*(api.call("POST", "/v2/apps/", token=alice) for _ in range(8)))
    assert [answer.status for answer in made] == [201] * 8
    assert len({answer.json()["uid"] for answer in made}) == 8
    assert await api.count(m.Workspace) == 1
    assert await api.count(m.Release) == 8


REFUSED = [
    ("x2021_02", [apps.RULE]),  # nm03
    ("Shop", [apps.RULE]),
    ("1shop", [apps.RULE]),
    ("shop-", [apps.RULE]),
    ("sho.p", [apps.RULE, apps.SLUG]),
    ("shop\nshop", [apps.RULE, apps.SLUG]),
    ("", ["This field may not be blank."]),
    (5, ["Not a valid string."]),
    ("billing", ["billing is a reserved name."]),
    ("drycc-builder", ["drycc-builder is a reserved name."]),
    ("kube-system", ["kube-system is a reserved name."]),
    ("default", ["default is a reserved name."]),
]


async def test_nm03_names_that_are_refused(api: Api, alice: str) -> None:
    for id, texts in REFUSED:
        made = await api.call("POST", "/v2/apps/", {"id": id}, token=alice)
        assert (made.status, made.json()) == (400, {"id": texts}), id
    assert await api.count(m.App) == 0
    assert (await api.call("POST", "/v2/apps/", {"id": None}, token=alice)).status == 201


async def test_nm02_a_name_has_at_most_63_characters(api: Api, alice: str) -> None:
    long = await api.call("POST", "/v2/apps/", {"id": "a" * 64}, token=alice)
    assert (long.status, long.json()) == (400, {"id": ["Ensure this field has no more than 63 characters."]})
    assert (await api.call("POST", "/v2/apps/", {"id": "a" * 63}, token=alice)).status == 201
    assert (await api.call("GET", f"/v2/apps/{'a' * 63}/", token=alice)).status == 200


async def test_a_name_is_taken_once(api: Api, alice: str, bob: str) -> None:
    await api.add_app(alice)
    for token in (alice, bob):
        answer = await api.call("POST", "/v2/apps/", {"id": "shop"}, token=token)
        assert (answer.status, answer.json()) == (400, {"id": ["Application with this id already exists."]})


async def test_a_workspace_may_be_named(api: Api, alice: str, bob: str) -> None:
    await api.add_app(alice)
    mine = await api.call("POST", "/v2/apps/", {"id": "two", "workspace": "alice"}, token=alice)
    assert (mine.status, mine.json()["workspace"]) == (201, "alice")
    unknown = await api.call("POST", "/v2/apps/", {"workspace": "nope"}, token=alice)
    assert unknown.json() == {"workspace": ["Object with id=nope does not exist."]}
    foreign = await api.call("POST", "/v2/apps/", {"workspace": "alice"}, token=bob)
    assert foreign.status == 403

    listed = (await api.call("GET", "/v2/apps/?workspace=alice", token=alice)).json()
    assert [app["id"] for app in listed["results"]] == ["shop", "two"]
    denied = await api.call("GET", "/v2/apps/?workspace=alice", token=bob)
    assert (denied.status, denied.json()) == (
        403,
        {"detail": "You are not a member of workspace 'alice'"},
    )
    assert (await api.call("GET", "/v2/apps/?workspace=nope", token=bob)).status == 404


async def test_a_list_comes_in_pages(api: Api, alice: str, bob: str) -> None:
    for id in ("blog", "shop", "shop-admin", "wiki"):
        await api.add_app(alice, id)
    await api.add_app(bob, "other")

    async def page(query: str, token: str = alice) -> Listing[App]:
        answer = await api.call("GET", f"/v2/apps/{query}", token=token)
        assert answer.status == 200
        return Listing[App].model_validate(answer.json())

    host = f"http://drycc.example:{api.port}/v2/apps/"
    first = await page("?limit=2")
    assert [app.id for app in first.results] == ["blog", "shop"]
    assert (first.count, first.next, first.previous) == (4, f"{host}?limit=2&offset=2", None)
    second = await page("?limit=2&offset=2")
    assert (second.count, second.next, second.previous) == (4, None, f"{host}?limit=2")
    third = await page("?offset=3&limit=1&search=")
    assert third.previous == f"{host}?limit=1&offset=2&search="
    for query in ("?limit=0", "?limit=-1", "?limit=x", "?limit=100000000000000000000", "?offset=x", ""):
        assert len((await page(query)).results) == 4, query
    beyond = await page("?offset=99999999999999999999999")
    assert (beyond.count, beyond.results, beyond.next) == (4, [], None)
    assert [app.id for app in (await page("?search=SHOP")).results] == ["shop", "shop-admin"]
    assert [app.id for app in (await page("?search=shop%20shop-")).results] == ["shop-admin"]
    assert (await page("?search=%25")).count == 0
    assert (await page("?search=%00sh_p")).count == 0
    assert [app.id for app in (await page("", bob)).results] == ["other"]
    root = await api.add_user("root", is_superuser=True)
    assert (await page("", root)).count == 5


async def test_a_page_counts_apps_and_not_their_process_types(api: Api, alice: str) -> None:
    app = await api.add_app(alice)
    await api.add_app(alice, "wiki")
    await api.push(app, "alice", web="./web", worker="./work", clock="./tick")
    listed = (await api.call("GET", "/v2/apps/?limit=2", token=alice)).json()
    assert listed["count"] == 2
    structures = {found["id"]: found["structure"] for found in listed["results"]}
    assert structures == {"shop": {"web": 1, "worker": 0, "clock": 0}, "wiki": {}}


async def test_destroy_answers_when_nothing_is_left(api: Api, alice: str) -> None:
    app = await api.add_app(alice)
    await api.push(app, "alice", web="./web")
    async with api.working():
        answer = await api.call("DELETE", "/v2/apps/shop/", token=alice)
    assert (answer.status, answer.body) == (204, b"")
    for model in (m.App, m.Release, m.Config, m.Build, m.BuildLine, m.Workload, m.Job):
        assert await api.count(model) == 0, model
    assert await api.cluster.list("shop") == []
    assert api.cluster.routes.tables == {}
    assert (await api.call("GET", "/v2/apps/shop/", token=alice)).status == 404
    assert (await api.call("DELETE", "/v2/apps/shop/", token=alice)).status == 404
    assert UUID(str(await api.add_app(alice))) != app


async def test_a_destroy_that_takes_long_can_be_asked_for_again(api: Api, alice: str, bob: str) -> None:
    await api.add_app(alice)
    found = await apps.find(api.db, "shop")
    with pytest.raises(Exception, match="Could not delete Kubernetes Namespace shop"):
        await apps.destroy(api.db, api.needs.nudges, found, deadline=0.1)
    assert (await api.call("GET", "/v2/apps/shop/", token=alice)).status == 404
    assert (await api.call("GET", "/v2/apps/", token=alice)).json()["count"] == 0
    taken = await api.call("POST", "/v2/apps/", {"id": "shop"}, token=bob)
    assert taken.json() == {"id": ["Application with this id already exists."]}
    assert (await api.call("DELETE", "/v2/apps/shop/", token=bob)).status == 403
    assert await api.count(m.Job, m.Job.kind == "destroy") == 1
    async with api.working():
        assert (await api.call("DELETE", "/v2/apps/shop/", token=alice)).status == 204


async def test_one_statement_reads_a_list(api: Api, alice: str) -> None:
    for _ in range(12):
        await api.call("POST", "/v2/apps/", token=alice)
    await api.call("GET", "/v2/apps/", token=alice)  # from here on the token is known
    said: list[str] = []
    engine = api.db.engines[0].sync_engine
    sa.event.listen(engine, "before_cursor_execute", lambda *args: said.append(args[2]))
    for limit in (1, 10, 100):
        said.clear()
        await api.call("GET", f"/v2/apps/?limit={limit}", token=alice)
        assert len(said) == 1, said
