"""From a queued build to a release that serves, with a cluster that fails on command, on both databases."""

import asyncio
from pathlib import Path

import pytest

from drycc.backends.db import Database
from drycc.core import builds, jobs, pipeline, releases, workloads
from drycc.core.models import App, Job
from drycc.errors import Conflict, Invalid
from tests.cluster import Finished
from tests.core.story import Story
from tests.waiting import until


@pytest.fixture
async def story(db: Database, tmp_path: Path) -> Story:
    return await Story.begin(db, tmp_path)


async def test_a_push_goes_live_and_says_so_line_by_line(story: Story) -> None:
    id = await story.push(web="./serve", worker="./work", release="./migrate")
    await story.work()
    assert await story.releases() == [(1, "created", False), (2, "succeed", False)]
    assert await story.pointers() == {"web": (2, 1), "worker": (2, 0)}
    assert await story.lines(id) == [
        "Starting build... but first, coffee!",
        "built",
        "Build complete.",
        "-----> Releasing v2",
        "Launching App...",
        "-----> Running release step: ./migrate",
        "migrated",
        "-----> Deploying web, worker",
        "Done, shop:v2 deployed to Workflow",
        "-----> shop v2 is live at http://shop.localhost:8080",
    ]
    assert (await builds.outcome(story.db, id)).has_succeeded
    applied = story.cluster.apps["shop"]["web"].spec
    assert (applied.command, applied.image) == ("./serve", f"shop:{id}")
    assert applied.env["WORKFLOW_RELEASE"] == "v2"
    assert story.cluster.routes.tables["shop"].hosts == ("shop.localhost",)
    assert await story.objects.list("sources/") == []


async def test_a_failed_build_makes_no_release_and_says_why(story: Story) -> None:
    story.cluster.builds = Finished(b"no such module\n", code=1)
    id = await story.push(web="./serve")
    await story.work()
    assert await story.releases() == [(1, "created", False)]
    outcome = await builds.outcome(story.db, id)
    assert (outcome.is_over, outcome.has_succeeded) == (True, False)
    assert outcome.text == "the build failed with exit code 1"
    assert await story.objects.list("sources/") == []
    assert (await story.lines(id))[-1] == "no such module"
    assert await story.pointers() == {}


async def test_bd11_a_build_whose_process_vanished_is_abandoned(story: Story) -> None:
    story.cluster.builds = Finished(b"half\n", code=None)
    id = await story.push(web="./serve")
    await story.work()
    build = await story.build(id)
    assert build.state == "abandoned"
    assert "its process is gone" in build.reason
    assert await story.lines(id) == ["Starting build... but first, coffee!", "half"]
    story.cluster.builds = Finished()
    again = await story.push(web="./serve")
    await story.work()
    assert (await builds.outcome(story.db, again)).has_succeeded


@pytest.mark.parametrize(
    ("procfile", "pointers"),
    [({"worker": "./work", "run": "./shell"}, {"worker": (2, 0)}), ({"run": "./shell"}, {})],
)
async def test_an_app_without_web_is_not_told_a_url_and_run_is_no_process_type(
    story: Story, procfile: dict[str, str], pointers: dict[str, tuple[int, int]]
) -> None:
    id = await story.push(**procfile)
    await story.work()
    assert await story.pointers() == pointers
    assert (await story.lines(id))[-1] == "-----> shop v2 is deployed; it has no web process"
    with pytest.raises(Invalid, match="process type run is not exists"):
        await releases.deploy(story.db, story.nudges, story.app, ["run"], force=False)
    id = await story.push(web="./serve")
    await story.work()
    assert await story.pointers() == {"web": (3, 1)}
    assert (await story.lines(id))[-1].endswith("is live at http://shop.localhost:8080")
    id = await story.push(worker="./work")
    await story.work()
    assert (await story.lines(id))[-1] == "-----> shop v4 is deployed; it has no web process"


async def test_a_crashed_pods_last_lines_show_no_value_of_the_config(story: Story) -> None:
    await story.push(web="./serve")
    await story.work()
    await story.set_config(PASSWORD="last line of shop", SHORT="web")
    await story.work()
    story.cluster.broken.add(("web", 4))
    id = await story.push(web="./bad")
    await story.work()
    assert "       web: [masked]-web-4-0" in await story.lines(id)


@pytest.mark.parametrize("fault", ["broken", "never"])
async def test_rl02_a_failed_deploy_leaves_the_old_pods_and_scale_acts_on_them(
    story: Story, fault: str
) -> None:
    await story.push(web="./serve")
    await story.work()
    getattr(story.cluster, fault).add(("web", 3))
    id = await story.push(web="./bad")
    await story.work()
    assert (await story.releases())[-1] == (3, "crashed", True)
    outcome = await builds.outcome(story.db, id)
    assert not outcome.has_succeeded
    assert outcome.text.startswith("v3 failed: ")
    assert "       web: last line of shop-web-3-0" in await story.lines(id)
    assert await story.pointers() == {"web": (2, 1)}
    await workloads.scale(story.db, story.nudges, story.app, {"web": 5})
    await story.work()
    assert await story.pointers() == {"web": (2, 5)}
    seen = (await story.cluster.observe("shop")).workloads["web"]
    assert (seen.release, seen.serving) == (2, 5)


async def test_a_scale_in_mid_roll_out_is_told_at_once(story: Story) -> None:
    story.cluster.never.add(("web", 2))
    id = await story.push(web="./serve")
    async with story.working():
        await until(lambda: "web" in story.cluster.apps.get("shop", {}))
        story.cluster.never.clear()
        await workloads.scale(story.db, story.nudges, story.app, {"web": 3})
    assert (await builds.outcome(story.db, id)).has_succeeded
    assert (await story.cluster.observe("shop")).workloads["web"].serving == 3


async def test_a_failed_first_deploy_is_held_and_the_next_push_heals_it(story: Story) -> None:
    story.cluster.broken.add(("web", 2))
    await story.push(web="./bad")
    await story.work()
    assert story.cluster.apps["shop"]["web"].spec.is_held
    await pipeline.reconcile(story.ports)
    assert story.cluster.apps["shop"]["web"].spec.is_held
    id = await story.push(web="./good")
    await story.work()
    assert (await builds.outcome(story.db, id)).has_succeeded
    assert await story.pointers() == {"web": (3, 1)}


async def test_rl05_a_bad_config_fails_and_the_next_one_builds_on_the_good_one(story: Story) -> None:
    await story.push(web="./serve")
    await story.work()
    story.cluster.broken.add(("web", 3))
    await story.set_config(DATABASE_URL="bogus")
    await story.work()
    assert await story.pointers() == {"web": (2, 1)}
    await story.set_config(X="1")
    await story.work()
    assert (await story.releases())[-1] == (4, "succeed", False)
    env = story.cluster.apps["shop"]["web"].spec.env
    assert (env["X"], "DATABASE_URL" in env) == ("1", False)


async def test_only_process_types_that_differ_move_with_a_config(story: Story) -> None:
    await story.push(web="./serve", worker="./work")
    await story.work()
    await story.set_config()
    await story.work()
    assert (await story.releases())[-1] == (3, "succeed", False)
    assert await story.pointers() == {"web": (2, 1), "worker": (2, 0)}


async def test_the_same_push_again_rolls_out_again(story: Story) -> None:
    await story.push(web="./serve")
    await story.work()
    await story.push(web="./serve")
    await story.work()
    assert await story.pointers() == {"web": (3, 1)}


async def test_pf11_a_process_type_that_vanished_goes_after_the_deploy(story: Story) -> None:
    await story.push(web="./serve", worker="./work")
    await story.work()
    await story.push(web="./serve")
    await story.work()
    assert await story.pointers() == {"web": (3, 1)}
    assert set(story.cluster.apps["shop"]) == {"web"}


async def test_a_failed_release_step_moves_no_pointer(story: Story) -> None:
    await story.push(web="./serve")
    await story.work()
    story.cluster.releases = Finished(b"no such table\n", code=3)
    id = await story.push(web="./serve", release="./migrate")
    await story.work()
    assert "the release step ended with exit code 3" in (await builds.outcome(story.db, id)).text
    assert "no such table" in await story.lines(id)
    assert await story.pointers() == {"web": (2, 1)}


async def test_rollback_brings_back_code_and_config(story: Story) -> None:
    first = await story.push(web="./one")
    await story.work()
    await story.set_config(X="1")
    await story.work()
    await story.push(web="./two")
    await story.work()
    version = await releases.rollback(story.db, story.nudges, story.cluster, story.app, (1, "ann"), 2, ())
    await story.work()
    assert (version, (await story.releases())[-1]) == (5, (5, "succeed", False))
    spec = story.cluster.apps["shop"]["web"].spec
    assert (spec.release, spec.image, spec.command, "X" in spec.env) == (5, f"shop:{first}", "./one", False)


@pytest.mark.parametrize(
    ("version", "text"),
    [
        (0, "version cannot be below 0"),
        (-1, "version cannot be below 0"),
        (1, "Cannot roll back to initial release."),
        (99, "Release matching query does not exist."),
        (3, "Cannot roll back to failed release."),
    ],
)
async def test_rl07_bad_targets_of_a_rollback_are_refused_without_a_trace(
    story: Story, version: int, text: str
) -> None:
    await story.push(web="./serve")
    await story.work()
    story.cluster.broken.add(("web", 3))
    await story.push(web="./bad")
    await story.work()
    before = await story.releases()
    with pytest.raises(Invalid) as refused:
        await releases.rollback(story.db, story.nudges, story.cluster, story.app, (1, "ann"), version, ())
    assert str(refused.value) == text
    assert await story.releases() == before


async def test_rl07_a_target_whose_image_is_gone_is_refused_before_anything_stops(story: Story) -> None:
    first = await story.push(web="./one")
    await story.work()
    await story.push(web="./two")
    await story.work()
    story.cluster.missing.add(f"shop:{first}")
    with pytest.raises(Invalid, match="image of v2 is gone"):
        await releases.rollback(story.db, story.nudges, story.cluster, story.app, (1, "ann"), 2, ())
    assert (await story.releases())[-1] == (3, "succeed", False)
    assert await story.pointers() == {"web": (3, 1)}


async def test_a_newer_push_supersedes_one_that_waits(story: Story) -> None:
    first, second, third = [await story.push(web=f"./{n}") for n in (1, 2, 3)]
    assert (await builds.outcome(story.db, first)).text == f"superseded by build {second}"
    await story.work()
    assert [(await story.build(id)).state for id in (first, second, third)] == [
        "superseded",
        "superseded",
        "succeeded",
    ]


async def test_gp04_a_cancel_ends_the_build_and_the_next_push_runs(story: Story) -> None:
    story.cluster.hanging = True
    id = await story.push(web="./serve")
    async with story.working():
        await until(lambda: story.cluster.one_offs)
        await builds.cancel(story.db, story.nudges, id, "the client has gone")
    build = await story.build(id)
    assert (build.state, build.reason) == ("cancelled", "the client has gone")
    story.cluster.hanging = False
    again = await story.push(web="./serve")
    await story.work()
    assert (await builds.outcome(story.db, again)).has_succeeded
    with pytest.raises(Conflict, match="has become v2: it is too late to cancel it"):
        await builds.cancel(story.db, story.nudges, again, "too late")


async def test_a_push_overtaken_by_a_config_of_its_own_build_waits_for_that_one(story: Story) -> None:
    id = await story.push(web="./serve", release="./migrate")
    build = await jobs.claim(story.db, "story", 30, ("build",))
    assert build
    await pipeline.run(story.ports, build)
    await story.set_config(X="1")
    await story.work()
    assert await story.releases() == [(1, "created", False), (2, "created", False), (3, "succeed", False)]
    assert (await builds.outcome(story.db, id)).has_succeeded
    lines = await story.lines(id)
    assert "migrated" in lines
    assert "Done, shop:v3 deployed to Workflow" in lines


async def test_a_queued_build_is_cancelled_at_once(story: Story) -> None:
    id = await story.push(web="./serve")
    await builds.cancel(story.db, story.nudges, id, "the client has gone")
    assert (await builds.outcome(story.db, id)).text == "the client has gone"
    await story.work()
    assert await story.releases() == [(1, "created", False)]


async def test_a_deploy_that_runs_twice_ends_the_same(story: Story) -> None:
    """Die after the pointers moved: the next attempt neither moves them again nor says anything twice."""
    id = await story.push(web="./serve")
    build = await jobs.claim(story.db, "story", 30, ("build",))
    assert build
    await pipeline.run(story.ports, build)
    deploy = await jobs.claim(story.db, "story", 0, ("deploy",))
    assert deploy
    story.cluster.never.add(("web", 2))
    dying = asyncio.create_task(pipeline.run(story.ports, deploy))
    await until(lambda: "shop" in story.cluster.apps)
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    story.cluster.never.clear()
    await story.work()
    assert await story.pointers() == {"web": (2, 1)}
    lines = await story.lines(id)
    assert len(lines) == len(set(lines))
    assert lines[-1].endswith("is live at http://shop.localhost:8080")


async def test_with_autodeploy_off_a_release_waits_for_a_deploy_by_hand(story: Story) -> None:
    async def switch(session: object) -> None:
        (await session.get_one(App, story.app)).autodeploy = False  # type: ignore[attr-defined]

    await story.db.write(switch)
    id = await story.push(web="./serve")
    await story.work()
    assert (await builds.outcome(story.db, id)).has_succeeded
    assert await story.pointers() == {}
    await releases.deploy(story.db, story.nudges, story.app, [], force=False)
    await story.work()
    assert await story.pointers() == {"web": (2, 1)}


async def test_a_restart_touches_only_what_runs(story: Story) -> None:
    await story.push(web="./serve", worker="./work")
    await story.work()
    await workloads.restart(story.db, story.nudges, story.app, [])
    await story.work()
    restarted = {p: r.spec.restarted_at for p, r in story.cluster.apps["shop"].items()}
    assert restarted["web"] is not None
    assert restarted["worker"] is None
    with pytest.raises(Invalid, match="process type nope is not included in procfile"):
        await workloads.restart(story.db, story.nudges, story.app, ["nope"])


async def test_scale_refuses_reserved_names_and_apps_without_a_build(story: Story) -> None:
    with pytest.raises(Invalid, match="No build associated with this release"):
        await workloads.scale(story.db, story.nudges, story.app, {"web": 2})
    await story.push(web="./serve")
    await story.work()
    for counts, text in (({"run": 1}, "reserved types"), ({"web": -1}, "Invalid scaling format")):
        with pytest.raises(Invalid, match=text):
            await workloads.scale(story.db, story.nudges, story.app, counts)
    await workloads.scale(story.db, story.nudges, story.app, {"nope": 3})
    assert await story.pointers() == {"web": (2, 1)}


async def test_destroy_leaves_no_row_pod_route_line_or_source(story: Story) -> None:
    await story.push(web="./serve")
    await story.work()

    async def ask(session: object) -> None:
        (await session.get_one(App, story.app)).is_destroyed = True  # type: ignore[attr-defined]
        await jobs.queue(session, "destroy", story.app)  # type: ignore[arg-type]

    await story.db.write(ask)
    await story.work()
    assert await story.rows(App) == []
    assert await story.rows(Job) == []
    assert (story.cluster.apps, story.cluster.routes.tables, story.log.lines) == ({}, {}, {})


async def test_se03_values_of_the_app_are_masked_in_the_kept_log(story: Story) -> None:
    await story.set_config(DATABASE_URL="postgres://u:secret@db/x")
    story.cluster.releases = Finished(b"connecting to postgres://u:secret@db/x\n")
    id = await story.push(web="./serve", release="./migrate")
    await story.work()
    lines = await story.lines(id)
    assert "connecting to [masked]" in lines
    assert not any("secret" in line for line in lines)
