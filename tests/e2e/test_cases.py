"""Field cases that only the whole platform shows."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import QUICK
from tests.e2e import apps
from tests.e2e.developer import Developer
from tests.invariants import find_processes, settle
from tests.platform import PASSWORD, Platform
from tests.waiting import until

pytestmark = pytest.mark.e2e
ONE = apps.answering("'one'")
LONG = "a" + "b" * 61 + "c"  # 63 characters, the longest name


async def test_pf09_an_app_without_web_runs_and_its_url_says_so(platform: Platform) -> None:
    ann = await Developer.join(platform)
    repository = await ann.create("bot")
    await ann.push("bot", repository, {"Procfile": "worker: while :; do echo working; sleep 1; done\n"})
    assert await ann.pods("bot") == []
    answer = await ann.get("bot")
    assert answer.status == 503
    assert "no web process" in answer.text
    await ann.call("POST", "apps/bot/ptypes/scale/", {"worker": 1}, status=204)

    async def is_up() -> bool:
        return [(pod["type"], pod["state"]) for pod in await ann.pods("bot")] == [("worker", "up")]

    await until(is_up)


async def test_pf10_a_shell_expands_port_in_a_command(platform: Platform) -> None:
    ann = await Developer.join(platform)
    repository = await ann.create("shop")
    await ann.push("shop", repository, {"Procfile": "web: python3 -m http.server -b 127.0.0.1 $PORT\n"})
    assert (await ann.get("shop")).status == 200


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_sv07_an_app_on_one_loopback_address_answers_through_the_edge(
    platform: Platform, address: str
) -> None:
    ann = await Developer.join(platform)
    repository = await ann.create("shop")
    files = {"Procfile": f"web: python3 -m http.server -b {address} $PORT\n", "page": address}
    await ann.push("shop", repository, files)
    answer = await ann.get("shop", "/page")
    assert (answer.status, answer.text) == (200, address)


async def test_nm01_a_name_of_63_characters_works_to_the_end(platform: Platform) -> None:
    ann = await Developer.join(platform)
    repository = await ann.create(LONG)
    await ann.push(LONG, repository, ONE)
    assert (await ann.get(LONG)).text == "one"
    await ann.call("POST", f"apps/{LONG}/ptypes/scale/", {"web": 2}, status=204)

    async def are_two() -> bool:
        return [pod["state"] for pod in await ann.pods(LONG)] == ["up", "up"]

    await until(are_two)
    assert all(len(pod["name"]) <= 63 for pod in await ann.pods(LONG))
    await ann.call("DELETE", f"apps/{LONG}/", status=204)
    assert (await ann.get(LONG)).status == 404
    await settle(platform)


async def test_gp07_one_commit_on_top_of_a_large_repository_ends_cleanly(platform: Platform) -> None:
    ann = await Developer.join(platform)
    repository = await ann.create("shop")
    environment = platform.git_environment(ann.key)
    commits = "".join(
        f"commit refs/heads/main\ncommitter ann <ann@localhost> {n} +0000\ndata 1\nx\n"
        f"M 100644 inline file{n % 50}\ndata {len(str(n))}\n{n}\n"
        for n in range(4_000)
    )
    subprocess.run(["git", "fast-import", "--quiet"], input=commits.encode(), cwd=repository, check=True)
    subprocess.run(["git", "reset", "-q", "--hard"], cwd=repository, check=True, env=environment)
    await ann.push("shop", repository, ONE)
    done = await ann.push("shop", repository, apps.answering("'two'"))
    assert "unexpected disconnect" not in done.err
    assert (await ann.get("shop")).text == "two"

    def sessions() -> list[str]:
        listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        return [line for line in listed.splitlines() if str(platform.data / "repos") in line]

    await until(lambda: not sessions(), within=5)


async def test_se04_secrets_are_shown_as_set_or_unset_only(platform: Platform) -> None:
    ann = await Developer.join(platform)
    await ann.create("shop")
    canary = "canary-of-config-7Jd0q"
    await ann.call(
        "POST",
        "apps/shop/config/",
        {"values": [{"name": "KEY", "value": canary, "group": "global"}]},
        status=201,
    )
    shown = await platform.dryccd("settings")
    checked = await platform.dryccd("check")
    assert "DRYCC_ADMIN_PASSWORD\tstr\ttext\t-\t" in shown.out
    everything = shown.out + shown.err + checked.out + checked.err + platform.log()
    for secret in (PASSWORD, ann.token, canary):
        assert secret not in everything
    await platform.stop()
    walk = os.walk(platform.home)
    files = (Path(path, name) for path, _, names in walk for name in names)
    held = [str(file) for file in files if file.is_file() and _holds(file, canary, ann.token)]
    assert held == []


def _holds(file: Path, *secrets: str) -> bool:
    data = file.read_bytes()
    return any(secret.encode() in data for secret in secrets)


async def test_se04_a_crash_at_start_shows_no_secret(database_url: str | None) -> None:
    secret = "postgresql+asyncpg://ann:s3cr3t-canary@127.0.0.1:1/none"
    platform = Platform(secret, QUICK)
    done = await platform.dryccd("serve")
    assert done.code == 1
    assert "the database does not answer" in done.err
    assert "s3cr3t-canary" not in done.out + done.err
    assert "Traceback" not in done.err
    assert find_processes(platform) == []
