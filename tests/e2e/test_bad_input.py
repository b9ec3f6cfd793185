"""Bad input at the whole platform: the message says what to do, and nothing is lost."""

import asyncio
import os
import socket
from time import monotonic

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends.db import open_database
from tests.conftest import QUICK
from tests.e2e import apps
from tests.e2e.developer import Developer
from tests.invariants import find_processes, settle
from tests.platform import Platform, run
from tests.waiting import until

pytestmark = pytest.mark.e2e
ONE, TWO = apps.answering("'one'"), apps.answering("'two'")


async def test_who_may_not_push_is_told_before_any_data(platform: Platform) -> None:
    ann = await Developer.join(platform)
    bob = await Developer.join(platform, "bob")
    repository = await ann.create("shop")
    await platform.commit(repository, ONE)
    stranger = await platform.make_key("stranger")
    unknown = await platform.push("shop", repository, code=None, key=stranger)
    assert (unknown.code, "Permission denied (publickey)" in unknown.err) == (128, True), unknown
    foreign = await platform.push("shop", repository, code=128, key=bob.key)
    assert "fatal: remote error:" in foreign.err
    assert "may not change the app shop" in foreign.err
    nowhere = await platform.push("nowhere", repository, code=128, key=ann.key)
    assert "fatal: remote error:" in nowhere.err
    assert "nowhere" in nowhere.err
    await ann.push("shop", repository, ONE)
    clone = await platform.git(
        "clone", platform.remote("shop"), "stolen", cwd=platform.home, key=bob.key, code=128
    )
    assert "fatal: remote error:" in clone.err


async def test_what_cannot_be_built_is_refused_and_the_old_one_serves(platform: Platform) -> None:
    ann = await Developer.join(platform)
    repository = await ann.create("shop")
    await ann.push("shop", repository, ONE)
    cases: list[tuple[dict[str, str], str]] = [
        ({"Procfile": "web\n"}, "Procfile:1"),
        ({"Procfile": "invoice_out: ./w\n"}, "invoice-out"),
        ({"Procfile": "web: python3 app.py\n", "requirements.txt": "no such thing==\n"}, "build failed"),
    ]
    for files, text in cases:
        done = await ann.push("shop", repository, files, code=1)
        assert "pre-receive hook declined" in done.err
        assert text in done.err, done.err
    assert (await ann.get("shop")).text == "one"
    plain = await ann.create("notes")
    done = await ann.push("notes", plain, {"README.md": "hello\n", "notes.txt": "x\n"}, code=1)
    assert "Procfile" in done.err
    assert "notes.txt" in done.err
    assert (await ann.release("notes"))["version"] == 1
    await settle(platform)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (apps.CRASHING, ["cannot find my database", "exited 3 times, last with exit code 3"]),
        (apps.SILENT, ["thinking about it", "nothing listens on PORT within 3 s"]),
    ],
)
async def test_what_does_not_run_makes_the_push_fail_with_its_last_lines(
    database_url: str | None, files: dict[str, str], said: list[str]
) -> None:
    async with Platform(database_url, QUICK | {"DRYCC_DEPLOY_TIMEOUT": "3"}) as platform:
        ann = await Developer.join(platform)
        repository = await ann.create("shop")
        await ann.push("shop", repository, ONE)
        done = await ann.push("shop", repository, files, code=1)
        assert all(text in done.err for text in said), done.err
        assert (await ann.get("shop")).text == "one"
        assert (await ann.release("shop"))["state"] == "crashed"
        await until(lambda: len([p for p in find_processes(platform) if "sh" in p.split("/")[-1]]) >= 0)
        await settle(platform)
        await ann.push("shop", repository, TWO)
        assert (await ann.get("shop")).text == "two"


async def test_a_process_that_ignores_sigterm_is_killed_after_its_grace(platform: Platform) -> None:
    ann = await Developer.join(platform)
    repository = await ann.create("shop")
    await ann.push("shop", repository, apps.STUBBORN)
    await ann.push("shop", repository, TWO)
    assert (await ann.get("shop")).text == "two"
    await until(lambda: not any("stubborn" in process for process in find_processes(platform)))


async def test_gp08_deletions_tags_and_several_branches(platform: Platform) -> None:
    ann = await Developer.join(platform)
    repository = await ann.create("shop")
    await ann.push("shop", repository, ONE)

    async def git(*argv: str, code: int | None = 0) -> str:
        done = await platform.git(*argv, cwd=repository, key=ann.key, code=code)
        return done.out + done.err

    remote = platform.remote("shop")
    assert "remote ref does not exist" in await git("push", remote, ":main", code=1)
    await git("tag", "-a", "v1", "-m", "v1")
    said = await git("push", remote, "v1", code=1)
    assert "a tag is not deployed; push its commit" in said
    assert (await ann.release("shop"))["version"] == 2
    await git("branch", "topic")
    await platform.commit(repository, TWO)
    said = await git("push", remote, "main", "topic", "v1", code=None)
    assert (await ann.release("shop"))["version"] == 3, said
    assert (await ann.get("shop")).text == "two"
    await git("push", remote, "topic")
    assert (await ann.get("shop")).text == "one"


async def test_two_pushes_at_once_are_both_received(platform: Platform) -> None:
    ann = await Developer.join(platform)
    repository = await ann.create("shop")
    slow = {"Procfile": "release: sleep 2\nweb: exec python3 app.py\n", "app.py": ONE["app.py"]}
    await platform.commit(repository, slow)
    first = asyncio.create_task(platform.push("shop", repository, key=ann.key))
    await ann.released("shop", 2, "created")
    await platform.git("checkout", "-q", "-b", "other", cwd=repository)
    await platform.commit(repository, TWO)
    second = await platform.git("push", platform.remote("shop"), "other", cwd=repository, key=ann.key)
    assert "Done, shop:v3 deployed to Workflow" in second.err
    assert (await first).code == 0
    assert (await ann.get("shop")).text == "two"
    await settle(platform)


async def test_a_pack_over_the_cap_is_refused(database_url: str | None) -> None:
    async with Platform(database_url, QUICK | {"DRYCC_PUSH_LIMIT": "200000"}) as platform:
        ann = await Developer.join(platform)
        repository = await ann.create("shop")
        (repository / "blob").write_bytes(os.urandom(400_000))
        done = await ann.push("shop", repository, ONE, code=None)
        assert done.code != 0
        assert "exceeds maximum allowed size" in done.err, done.err
        (repository / "blob").unlink()
        await platform.git("commit", "-q", "--amend", "-a", "-m", "small", cwd=repository)
        await platform.push("shop", repository, key=ann.key)
        assert (await ann.get("shop")).text == "one"


async def test_a_client_that_goes_away_cancels_its_build(platform: Platform) -> None:
    ann = await Developer.join(platform)
    repository = await ann.create("shop")
    hanging = {"requirements.txt": "./slow\n", "slow/setup.py": "import time\ntime.sleep(600)\n"}
    await platform.commit(repository, ONE | hanging)
    process = await asyncio.create_subprocess_exec(
        *("git", "push", platform.remote("shop"), "main"),
        cwd=repository,
        env=platform.git_environment(ann.key),
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    await until(lambda: any("build-image" in process for process in find_processes(platform)))
    os.killpg(process.pid, 9)
    await process.communicate()
    await until(lambda: not any("build-image" in process for process in find_processes(platform)))
    (repository / "requirements.txt").unlink()
    await ann.push("shop", repository, ONE)
    assert (await ann.get("shop")).text == "one"
    assert (await ann.release("shop"))["version"] == 2
    await settle(platform)


@pytest.mark.parametrize("procfile", ["release: sleep 60\nweb: exec python3 app.py\n", "web: sleep 60\n"])
async def test_nm05_a_destroy_does_not_wait_for_a_deploy(platform: Platform, procfile: str) -> None:
    ann = await Developer.join(platform)
    repository = await ann.create("shop")
    await platform.commit(repository, ONE | {"Procfile": procfile})
    pushing = asyncio.create_task(platform.push("shop", repository, code=1, key=ann.key))
    await until(lambda: any("sleep 60" in process for process in find_processes(platform)), within=30)
    began = monotonic()
    await ann.call("DELETE", "apps/shop/", status=204)
    assert monotonic() - began < 10
    assert "the app was destroyed" in (await pushing).err
    await settle(platform)
    assert not any("sleep 60" in process for process in find_processes(platform))
    await ann.call("POST", "apps/", {"id": "shop"}, status=201)
    await ann.push("shop", repository, ONE)
    assert (await ann.get("shop")).text == "one"


async def test_a_second_dryccd_on_the_same_data_directory_is_refused(platform: Platform) -> None:
    done = await platform.dryccd("serve", seconds=20)
    assert done.code == 1
    assert f"{platform.data} belongs to a running dryccd (pid " in done.err
    assert "Traceback" not in done.err
    assert await platform.is_ready()


@pytest.mark.parametrize("setting", ["HTTP", "SSH", "EDGE"])
async def test_a_port_that_is_taken_is_named(database_url: str | None, setting: str) -> None:
    platform = Platform(database_url, QUICK)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        platform.settings[f"DRYCC_{setting}_LISTEN"] = address
        done = await platform.dryccd("serve", seconds=20)
    assert done.code == 1
    assert f"cannot listen on {address}" in done.err
    assert f"DRYCC_{setting}_LISTEN" in done.err
    assert "Traceback" not in done.err
    await platform.dryccd("stop")


async def test_db04_a_data_directory_of_a_newer_schema_is_refused(database_url: str | None) -> None:
    async with Platform(database_url, QUICK) as platform:
        await platform.stop()
        url = database_url or f"sqlite+aiosqlite:///{platform.data}/drycc.db"

        async def age(session: AsyncSession) -> None:
            await session.execute(sa.text("update alembic_version set version_num = '9999'"))

        async with open_database(url) as db:
            await db.write(age)
        for command in ("serve", "migrate"):
            done = await platform.dryccd(command, seconds=20)
            assert done.code == 1
            assert "schema (9999) is newer than this program's" in done.err
            assert "Traceback" not in done.err


async def test_a_keyring_that_is_missing_is_refused(platform: Platform) -> None:
    ann = await Developer.join(platform)
    await ann.create("shop")
    await platform.stop()
    keyring = platform.home / "data-keyring"
    kept = keyring.read_bytes()
    assert keyring.stat().st_mode & 0o777 == 0o600
    keyring.unlink()
    done = await platform.dryccd("serve", seconds=20)
    assert (done.code, "is missing, and apps or tokens need it" in done.err) == (1, True), done
    keyring.write_bytes(kept)
    await platform.start()


async def test_ssh_answers_ping_and_nothing_else(platform: Platform) -> None:
    ann = await Developer.join(platform)
    environment = platform.git_environment(ann.key)
    ssh = environment["GIT_SSH_COMMAND"].split()
    ping = await run(*ssh, "git@127.0.0.1", "ping", cwd=platform.home, environment=environment)
    assert (ping.code, ping.out) == (0, "pong")
    other = await run(*ssh, "git@127.0.0.1", "ls", cwd=platform.home, environment=environment)
    assert other.code != 0
