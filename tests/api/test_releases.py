"""Builds, releases, pods and process types as clients see them."""

from drycc.api.schemas.base import Listing, ShortListing
from drycc.api.schemas.pods import Pod, ProcessType
from drycc.api.schemas.releases import Build, NewVersion, NoBuild, Release
from drycc.core import models as m
from tests.api.conftest import Api

BASE = "/v2/apps/shop"


async def list_releases(api: Api, token: str, query: str = "") -> list[Release]:
    answer = await api.call("GET", f"{BASE}/releases/{query}", token=token)
    return Listing[Release].model_validate(answer.json()).results


async def test_a_release_and_its_build(api: Api, alice: str) -> None:
    app = await api.add_app(alice)
    blank = await api.call("GET", f"{BASE}/build/", token=alice)
    assert blank.status == 200
    assert NoBuild.model_validate(blank.json())
    await api.push(app, "alice", web="./web", worker="./work --all")

    release = (await list_releases(api, alice))[0]
    assert (release.version, release.state, release.failed, release.exception) == (2, "succeed", False, None)
    assert (release.owner, release.app, release.summary) == ("alice", "shop", "alice deployed 0123456")
    assert release.deployed_ptypes == ["web", "worker"]
    condition = release.conditions[0]
    assert (condition["state"], condition["action"]) == ("succeed", "pipeline")
    assert condition["ptypes"] == ["web", "worker"]
    one = await api.call("GET", f"{BASE}/releases/v2/", token=alice)
    assert Release.model_validate(one.json()) == release

    build = Build.model_validate((await api.call("GET", f"{BASE}/build/", token=alice)).json())
    assert (build.uuid, build.owner, build.app, build.stack) == (release.build, "alice", "shop", "buildpack")
    assert build.procfile == {"web": "./web", "worker": "./work --all"}
    for query in ("?version=v2", "?version=2", "?version=latest", "?version="):
        assert (await api.call("GET", f"{BASE}/build/{query}", token=alice)).json()["uuid"] == build.uuid
    for version in ("v1", "1"):
        old = await api.call("GET", f"{BASE}/build/?version={version}", token=alice)
        assert NoBuild.model_validate(old.json())


NO_VERSIONS = ["0", "3", "99999999999", "9" * 5000]


async def test_rl06_a_release_that_is_not_there(api: Api, alice: str) -> None:
    await api.add_app(alice)
    for version in NO_VERSIONS:
        for path in (f"releases/v{version}/", f"build/?version=v{version}", f"config/?version={version}"):
            answer = await api.call("GET", f"{BASE}/{path}", token=alice)
            assert (answer.status, answer.json()) == (404, "No Release matches the given query."), path


async def test_releases_by_process_type(api: Api, alice: str) -> None:
    app = await api.add_app(alice)
    await api.push(app, "alice", web="./web")
    await api.push(app, "alice", web="./web2", **{"mail-sender": "./send"})
    assert [r.version for r in await list_releases(api, alice)] == [3, 2, 1]
    assert [r.version for r in await list_releases(api, alice, "?ptypes=web")] == [3, 2]
    assert [r.version for r in await list_releases(api, alice, "?ptypes=mail-sender,web")] == [3]
    assert await list_releases(api, alice, "?ptypes=we") == []
    assert await list_releases(api, alice, "?ptypes=%25,%00") == []
    page = (await api.call("GET", f"{BASE}/releases/?limit=1&offset=1", token=alice)).json()
    assert (page["count"], page["results"][0]["version"]) == (3, 2)


async def test_a_rollback_makes_a_release_of_the_same_build_and_config(api: Api, alice: str) -> None:
    app = await api.add_app(alice)
    await api.push(app, "alice", web="./one")
    await api.push(app, "alice", web="./two")
    body = {"version": 2, "ptypes": "web"}
    answer = await api.call("POST", f"{BASE}/releases/rollback/", body, token=alice)
    assert answer.status == 201
    assert NewVersion.model_validate(answer.json()).version == 4
    await api.work()
    newest, _, old, _ = await list_releases(api, alice)
    assert (newest.summary, newest.state) == ("alice rolled back to v2", "succeed")
    assert (newest.build, newest.config) == (old.build, old.config)
    assert (await api.call("POST", f"{BASE}/releases/rollback/", token=alice)).json() == {"version": 5}
    assert (await list_releases(api, alice))[0].summary == "alice rolled back to v3"
    same = await api.call("POST", f"{BASE}/releases/rollback/", {"version": "v5"}, token=alice)
    assert same.json() == {"version": 6}


NO_TARGETS: list[tuple[object, object]] = [
    (0, {"detail": "version cannot be below 0"}),
    (-1, {"detail": "version cannot be below 0"}),
    ("v0", {"detail": "version cannot be below 0"}),
    (1, {"detail": "Cannot roll back to initial release."}),
    (99, {"detail": "Release matching query does not exist."}),
    (10**30, {"detail": "Release matching query does not exist."}),
    (3, {"detail": "Cannot roll back to failed release."}),
    ("foo", {"version": ["A valid integer is required."]}),
    (1.5, None),
    ([2], None),
    (True, None),
]


async def test_rl01_rl06_rl07_a_rollback_that_cannot_be(api: Api, alice: str) -> None:
    app = await api.add_app(alice)
    await api.push(app, "alice", web="./one")
    api.cluster.broken.add(("web", 3))
    await api.push(app, "alice", web="./broken")
    before = await list_releases(api, alice)
    assert before[0].failed
    for version, answer in NO_TARGETS:
        refused = await api.call("POST", f"{BASE}/releases/rollback/", {"version": version}, token=alice)
        assert refused.status == 400, version
        assert answer is None or refused.json() == answer, version
    assert await list_releases(api, alice) == before
    assert await api.count(m.Job, m.Job.state == "queued") == 0
    await api.push(app, "alice", web="./next")
    assert (await list_releases(api, alice))[0].version == 4


async def test_a_deploy_by_hand(api: Api, alice: str) -> None:
    app = await api.add_app(alice)
    path = f"{BASE}/releases/deploy/"
    nothing = await api.call("POST", path, {"ptypes": "", "force": False}, token=alice)
    assert (nothing.status, nothing.json()) == (400, {"detail": "there are no builds available for deploy"})
    await api.push(app, "alice", web="./web")
    unknown = await api.call("POST", path, {"ptypes": "nope,web"}, token=alice)
    assert (unknown.status, unknown.json()) == (400, {"detail": "process type nope is not exists"})
    for body in (None, {"ptypes": "web, ", "force": True}, {"ptypes": None}):
        answer = await api.call("POST", path, body, token=alice)
        assert (answer.status, answer.body) == (204, b"")
        await api.work()
    odd = await api.call("POST", path, {"force": "maybe"}, token=alice)
    assert (odd.status, odd.json()) == (400, {"force": ["Must be a valid boolean."]})


async def test_pods_and_process_types(api: Api, alice: str) -> None:
    app = await api.add_app(alice)
    for noun in ("pods", "ptypes"):
        empty = (await api.call("GET", f"{BASE}/{noun}/?limit=1000", token=alice)).json()
        assert empty == {"results": [], "count": 0}
    await api.push(app, "alice", web="./web", worker="./work")
    scaled = await api.call("POST", f"{BASE}/ptypes/scale/", {"web": 2, "nope": 3}, token=alice)
    assert (scaled.status, scaled.body) == (204, b"")
    await api.work()

    pods = ShortListing[Pod].model_validate((await api.call("GET", f"{BASE}/pods/", token=alice)).json())
    assert [(p.state, p.release, p.type, p.ready, p.restarts) for p in pods.results] == [
        ("up", "v2", "web", "1/1", 0)
    ] * 2
    assert pods.count == 2
    types = ShortListing[ProcessType].model_validate(
        (await api.call("GET", f"{BASE}/ptypes/", token=alice)).json()
    )
    shown = {
        (t.name, t.release, t.ready, t.up_to_date, t.available_replicas, t.garbage) for t in types.results
    }
    assert shown == {("web", "v2", "2/2", 2, 2, False), ("worker", "v2", "0/0", 0, 0, False)}
    app_now = (await api.call("GET", f"{BASE}/", token=alice)).json()
    assert app_now["structure"] == {"web": 2, "worker": 0}
    assert len(await list_releases(api, alice)) == 2


NO_COUNTS: list[tuple[object, str]] = [
    ({"run": 1}, "Cannot set scale for reserved types, procfile type is: run"),
    ({"web": -1}, "Invalid scaling format: web=-1"),
    ({"web": "2"}, "Invalid scaling format: web=2"),
    ({"web": True}, "Invalid scaling format: web=True"),
    ({"web": None}, "Invalid scaling format: web=None"),
    ({"web": 10**12}, "Invalid scaling format: web="),
]


async def test_a_scale_that_cannot_be(api: Api, alice: str) -> None:
    app = await api.add_app(alice)
    await api.push(app, "alice", web="./web")
    for counts, text in NO_COUNTS:
        answer = await api.call("POST", f"{BASE}/ptypes/scale/", counts, token=alice)
        assert answer.status == 400, counts
        assert answer.json()["detail"].startswith(text), counts
    assert (await api.call("GET", f"{BASE}/", token=alice)).json()["structure"] == {"web": 1}


async def test_scale_and_restart_before_the_first_build(api: Api, alice: str) -> None:
    await api.add_app(alice)
    answer = await api.call("POST", f"{BASE}/ptypes/scale/", {"web": 2}, token=alice)
    assert (answer.status, answer.json()) == (400, {"detail": "No build associated with this release"})
    answer = await api.call("POST", f"{BASE}/ptypes/restart/", {"ptypes": "web"}, token=alice)
    assert answer.json() == {"detail": "process type web is not included in procfile"}


async def test_a_restart_makes_no_release(api: Api, alice: str) -> None:
    app = await api.add_app(alice)
    await api.push(app, "alice", web="./web", worker="./work")
    for body in (None, {"ptypes": ""}, {"ptypes": "web,worker"}):
        before = api.cluster.generations["shop"]
        answer = await api.call("POST", f"{BASE}/ptypes/restart/", body, token=alice)
        assert (answer.status, answer.body) == (204, b"")
        await api.work()
        assert api.cluster.generations["shop"] > before
    unknown = await api.call("POST", f"{BASE}/ptypes/restart/", {"ptypes": "web,nope"}, token=alice)
    assert (unknown.status, unknown.json()) == (
        400,
        {"detail": "process type nope is not included in procfile"},
    )
    assert len(await list_releases(api, alice)) == 2
