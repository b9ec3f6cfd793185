"""The tour of a platform's life, told as it goes: `make show` prints it, and a test runs the same."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

from tests.e2e import apps
from tests.e2e.developer import Developer
from tests.invariants import find_processes, settle
from tests.platform import Platform
from tests.waiting import until

Say = Callable[[str], None]
SHORT = {"DRYCC_DEPLOY_TIMEOUT": "10", "DRYCC_GRACE": "2"}


async def tell(platform: Platform, say: Say) -> None:
    """From the first login to an app that is gone without a trace."""
    say("the platform is ready")
    ann = await Developer.join(platform)
    say("ann has logged in and added a key")
    repository = await ann.create("shop")
    say("created shop")
    await _push_versions(ann, repository, say)
    await _push_broken(ann, repository, say)
    await _change(ann, say)
    await _roll_back(ann, say)
    await _clone(ann, say)
    await _destroy(ann, say)


async def _push_versions(ann: Developer, repository: Path, say: Say) -> None:
    for version in ("one", "two"):
        done = await ann.push(
            "shop", repository, apps.answering(f"'{version} ' + os.environ.get('COLOR', '-')")
        )
        answer = await ann.get("shop")
        assert (answer.status, answer.text) == (200, f"{version} -"), answer
        say(_told(done.err))
        say(f"GET / answers {answer.status}: {answer.text}")


async def _push_broken(ann: Developer, repository: Path, say: Say) -> None:
    done = await ann.push("shop", repository, apps.SILENT | {"app.py": ""}, code=1)
    assert "thinking about it" in done.err, done.err
    assert "nothing listens on PORT within 10 s" in done.err, done.err
    assert "pre-receive hook declined" in done.err, done.err
    say(_told(done.err))
    answer = await ann.get("shop")
    assert (answer.status, answer.text) == (200, "two -"), answer
    say(f"the push exited 1; GET / still answers {answer.status}: {answer.text}")


async def _change(ann: Developer, say: Say) -> None:
    values = [{"name": "COLOR", "value": "red", "group": "global"}]
    await ann.call("POST", "apps/shop/config/", {"values": values}, status=201)
    await ann.released("shop", 5)
    assert (await ann.get("shop")).text == "two red"
    say(f"config set COLOR=red: v5, GET / answers {(await ann.get('shop')).text}")
    await ann.call("POST", "apps/shop/ptypes/scale/", {"web": 3}, status=204)

    async def are_three() -> bool:
        return [pod["state"] for pod in await ann.pods("shop")] == ["up"] * 3

    await until(are_three)
    for pod in await ann.pods("shop"):
        say(f"scale web=3: {pod['name']} {pod['release']} {pod['state']}")


async def _roll_back(ann: Developer, say: Say) -> None:
    answer = await ann.call("POST", "apps/shop/releases/rollback/", {"version": 2}, status=201)
    assert answer == {"version": 6}
    await ann.released("shop", 6)
    answer = await ann.get("shop")
    assert answer.text == "one -", answer.text
    say(f"rollback to v2 is v6: GET / answers {answer.text}, the code and the config of v2")
    answer = await ann.call("POST", "apps/shop/releases/rollback/", {"version": 5}, status=201)
    await ann.released("shop", 7)
    assert (await ann.get("shop")).text == "two red"


async def _clone(ann: Developer, say: Say) -> None:
    platform = ann.platform
    await platform.git("clone", "-q", platform.remote("shop"), "cloned", cwd=platform.home, key=ann.key)
    source = (platform.home / "cloned" / "app.py").read_text()
    assert source == apps.answering("'two ' + os.environ.get('COLOR', '-')")["app.py"]
    say("git clone gives the tree of two")


async def _destroy(ann: Developer, say: Say) -> None:
    platform = ann.platform
    assert len(find_processes(platform)) > 1
    await ann.call("DELETE", "apps/shop/", status=204)
    answer = await platform.api("GET", "/v2/apps/shop/", None, ann.token)
    assert (answer.status, answer.json()) == (404, "No App matches the given query.")
    assert (await ann.get("shop")).status == 404
    assert [process for process in find_processes(platform) if "edge" not in process] == []
    await until(lambda: not _left(platform))
    await settle(platform)
    say("destroy leaves no process, no file, no row and no route")


def _left(platform: Platform) -> list[str]:
    """Files of an app below the data directory; logs of "_" are what is nobody's."""
    folders = ("pods", "images", "venvs", "objects", "repos", "logs", "apps")
    walks = (os.walk(platform.data / folder) for folder in folders)
    files = (f"{path}/{name}" for walk in walks for path, _, names in walk for name in names)
    return [file for file in files if "/logs/_/" not in file]


def _told(stderr: str) -> str:
    """What the platform said in a push."""
    lines = [line.removeprefix("remote: ").rstrip() for line in stderr.splitlines() if "remote: " in line]
    return "\n".join(f"    {line}" for line in lines)


async def main() -> None:
    async with Platform(environment=SHORT) as platform:
        await tell(platform, lambda line: print(line, flush=True))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
