"""Config values through the API: set, unset, read back, sealed at rest, one release a change."""

import asyncio
from typing import Any

import sqlalchemy as sa

from drycc.api.schemas.releases import Config
from drycc.core import models as m
from tests.api.conftest import Api
from tests.core.test_configs import VERBATIM, item, own
from tests.platform import Answer

PATH = "/v2/apps/shop/config/"


async def set_values(api: Api, token: str, *items: Any, query: str = "", **more: Any) -> Answer:
    return await api.call("POST", PATH + query, {"values": list(items), **more}, token=token)


async def summaries(api: Api, token: str) -> list[str]:
    answer = await api.call("GET", "/v2/apps/shop/releases/", token=token)
    return [release["summary"] for release in answer.json()["results"]]


async def test_set_change_unset_and_what_each_release_says(api: Api, alice: str) -> None:
    await api.add_app(alice)
    first = await set_values(api, alice, item("A", "1"), item("B", "2"))
    assert first.status == 201
    config = Config.model_validate(first.json())
    assert (config.owner, config.app) == ("alice", "shop")
    assert config.values == [item("A", "1"), item("B", "2")]
    assert config.limits == {"web": "std1.large.c1m1", "run": "std1.large.c1m1"}
    assert (await api.call("GET", PATH, token=alice)).json() == first.json()

    same = await set_values(api, alice, item("A", "1"))
    assert (same.status, same.json()) == (409, {"detail": "alice changed nothing - release stopped"})
    absent = await set_values(api, alice, item("NOPE", None))
    assert absent.status == 409
    emptied = await set_values(api, alice, item("A", ""), own("C", "3", "web"))
    assert emptied.json()["values"] == [item("B", "2"), own("C", "3", "web")]

    groups = await api.call("POST", PATH, {"values_refs": {"web": ["db", "mail"]}}, token=alice)
    assert groups.json()["values_refs"] == {"web": ["db", "mail"]}
    dropped = await api.call("POST", PATH, {"values_refs": {"web": None}}, token=alice)
    assert dropped.json()["values_refs"] == {}
    again = await api.call("POST", PATH, {"values_refs": {"web": None}}, token=alice)
    assert (again.status, again.json()) == (422, {"detail": "web does not exist under values_refs"})

    assert await summaries(api, alice) == [
        "alice deleted values_refs web",
        "alice added values_refs web",
        "alice added values C, deleted values A",
        "alice added values A, B",
        "alice created initial release",
    ]
    old = (await api.call("GET", f"{PATH}?version=v2", token=alice)).json()
    assert old["values"] == config.values


async def test_cf01_to_cf08_values_come_back_as_they_went_in(api: Api, alice: str) -> None:
    await api.add_app(alice)
    answer = await set_values(api, alice, *(item(name, value) for name, value in VERBATIM.items()))
    assert answer.status == 201
    read = (await api.call("GET", PATH, token=alice)).json()["values"]
    assert {value["name"]: value["value"] for value in read} == VERBATIM


async def test_se02_values_are_sealed_at_rest(api: Api, alice: str) -> None:
    await api.add_app(alice)
    await set_values(api, alice, item("DATABASE_URL", "postgres://u:canary-in-the-mine@db/x"))
    rows = await api.db.read(
        sa.select(m.Config.uuid, m.Config.sealed_values, m.Release.summary).select_from(
            sa.join(m.Config, m.Release, m.Release.config_uuid == m.Config.uuid)
        )
    )
    for row in rows:
        assert b"canary" not in row.sealed_values
        assert b"DATABASE_URL" not in row.sealed_values
        assert "canary" not in row.summary
    # a sealed value moved to another row does not open
    (first, second) = (row.uuid for row in rows)

    async def swap(session: Any) -> None:
        theirs = sa.select(m.Config.sealed_values).where(m.Config.uuid == first).scalar_subquery()
        await session.execute(sa.update(m.Config).where(m.Config.uuid == second).values(sealed_values=theirs))

    await api.db.write(swap)
    statuses = {
        (await api.call("GET", f"{PATH}?version={version}", token=alice)).status for version in (1, 2)
    }
    assert statuses == {200, 500}


async def test_cf09_a_value_too_long_makes_no_release(api: Api, alice: str) -> None:
    app = await api.add_app(alice)
    await api.push(app, "alice", web="./web")
    for size in (131_072, 1_000_000):
        answer = await set_values(api, alice, item("BIG", "x" * size))
        assert answer.status == 400
        text = answer.json()["values"][0]
        assert str(size + 5) in text
        assert "131072" in text
    assert len(await summaries(api, alice)) == 2
    assert await api.count(m.Job, m.Job.state == "queued") == 0
    assert (await set_values(api, alice, item("BIG", "x" * (131_072 - 5)))).status == 201
    too_much = await set_values(api, alice, *(item(f"N{n}", "x" * 100_000) for n in range(10)))
    assert too_much.status == 400
    assert "1000000" in too_much.json()["values"][0]


async def test_what_is_not_there_yet_is_said_and_not_stored(api: Api, alice: str) -> None:
    await api.add_app(alice)
    for field in ("limits", "tags", "registry", "healthcheck", "termination_grace_period", "lifecycle"):
        body = {"values": [item("A", "1")], field: {"web": {"k": "v"}}}
        answer = await api.call("POST", PATH, body, token=alice)
        assert (answer.status, answer.json()) == (400, {field: ["not supported yet on this cluster"]})
    wrong = await api.call(
        "POST", PATH, {"values": [{"name": "A B", "value": "1", "group": "x"}]}, token=alice
    )
    assert wrong.json() == {"values": [r"Config key can only supports: ^[A-z0-9_\-\.]+$"]}
    assert len(await summaries(api, alice)) == 1


async def test_the_platforms_names_and_its_port(api: Api, alice: str) -> None:
    await api.add_app(alice)
    for name in ("DRYCC_POD", "DRYCC_INSTANCE"):
        answer = await set_values(api, alice, item(name, "x"))
        assert answer.status == 400
        assert name in answer.json()["values"][0]
    assert (await set_values(api, alice, item("PORT", "8000"))).status == 201
    assert "PORT: this cluster sets its own" in (await summaries(api, alice))[0]


async def test_merge_false_replaces_the_scopes_that_are_named(api: Api, alice: str) -> None:
    await api.add_app(alice)
    await set_values(api, alice, item("A", "1"), item("B", "2", "db"))
    replaced = await set_values(api, alice, item("X", "9"), query="?merge=false")
    assert replaced.json()["values"] == [item("B", "2", "db"), item("X", "9")]
    merged = await set_values(api, alice, item("Y", "8"), query="?merge=true")
    assert len(merged.json()["values"]) == 3
    missing = await api.call("POST", f"{PATH}?merge=false", {}, token=alice)
    assert (missing.status, missing.json()) == (400, {"values": ["This field is required."]})


async def test_a_change_rolls_out_when_there_is_a_build_and_builds_on_the_last_good_one(
    api: Api, alice: str
) -> None:
    app = await api.add_app(alice)
    await set_values(api, alice, item("A", "1"))
    assert await api.count(m.Job) == 0
    await api.push(app, "alice", web="./web")
    assert (await set_values(api, alice, item("A", "2"))).status == 201
    await api.work()
    assert api.cluster.apps["shop"]["web"].spec.env["A"] == "2"
    api.cluster.broken.add(("web", 5))
    await set_values(api, alice, item("A", "bogus"), item("B", "bogus"))
    await api.work()
    shown = (await api.call("GET", PATH, token=alice)).json()["values"]
    assert shown == [item("A", "2")]
    good = await set_values(api, alice, item("C", "3"))
    assert good.json()["values"] == [item("A", "2"), item("C", "3")]


async def test_two_changes_at_once_are_both_kept(api: Api, alice: str) -> None:
    await api.add_app(alice)
    answers = await asyncio.gather(*(set_values(api, alice, item(f"N{n}", "1")) for n in range(8)))
    assert [answer.status for answer in answers] == [201] * 8
    values = (await api.call("GET", PATH, token=alice)).json()["values"]
    assert {value["name"] for value in values} == {f"N{n}" for n in range(8)}
    assert len(await summaries(api, alice)) == 9
