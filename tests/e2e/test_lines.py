"""Lines of apps through the whole platform: each once and in order, whatever is cut or killed meanwhile."""

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from time import monotonic

import pytest
from websockets.asyncio.client import connect

from tests.conftest import QUICK
from tests.e2e.cut_lines import Follower, PageReader, Reader
from tests.e2e.developer import Developer
from tests.platform import Platform
from tests.waiting import until

pytestmark = pytest.mark.e2e

WRITER = {
    "Procfile": "writer: exec python3 writer.py\n",
    "writer.py": (
        "import os, sys, time\n"
        "count, pause = int(os.environ['COUNT']), float(os.environ['PAUSE'])\n"
        "for n in range(count):\n"
        "    sys.stdout.write(f'{n} {\"x\" * (n % 100)}\\n')\n"
        "    if n % 20 == 19:\n"
        "        sys.stdout.flush()\n"
        "        time.sleep(pause)\n"
        "sys.stdout.flush()\n"
        "time.sleep(86400)\n"
    ),
}
LONG = 10_000_000
NOISY = {
    "Procfile": "noisy: exec python3 noisy.py\n",
    "noisy.py": (
        "import sys, time\n"
        "out = sys.stdout.buffer\n"
        "out.write(b'ok\\n\\x8e\\xff\\nstill here\\n')\n"
        f"out.write(b'x' * {LONG} + b'\\n')\n"
        "out.write(b'after\\nno end \\xf0\\x9f\\x92\\xa9 \\xf0\\x9f')\n"
        "out.flush()\n"
        "time.sleep(86400)\n"
    ),
}


async def test_lg04_readers_that_are_cut_read_what_was_written(platform: Platform) -> None:
    print(await read_and_kill(platform, lines=20_000, cuts=60, kills=2, pause=0.008))


async def read_and_kill(platform: Platform, *, lines: int, cuts: int, kills: int, pause: float) -> str:
    """One writer, a reader of pages and a follower, while the platform is killed; says what happened."""
    ann = await Developer.join(platform)
    repository = await ann.create("shop")
    values = [{"name": name, "value": f"{value}"} for name, value in (("COUNT", lines), ("PAUSE", pause))]
    body = {"values": [value | {"group": "global"} for value in values]}
    await ann.call("POST", "apps/shop/config/", body, status=201)
    await ann.push("shop", repository, WRITER)
    await ann.call("POST", "apps/shop/ptypes/scale/", {"writer": 1}, status=204)
    readers: list[Reader] = [
        kind(ann, "shop", lines, cuts, seed) for seed, kind in enumerate((PageReader, Follower))
    ]
    began = monotonic()
    async with asyncio.TaskGroup() as group:
        for reader in readers:
            group.create_task(reader.run())
        for n in range(kills):
            part = lines * (2 * n + 1) // (2 * kills)
            await until(partial(_has_read, readers[1], part), within=600)
            await platform.kill()
            await platform.start()
    for reader in readers:
        assert reader.numbers == list(range(lines))
        assert reader.done == cuts
    assert min(reader.failed for reader in readers) > 0, "no kill was seen"
    cut = sum(reader.done for reader in readers)
    return f"{lines:,} lines, {cut:,} cuts, {kills} x kill -9: each line once, {monotonic() - began:.0f} s"


def _has_read(reader: Reader, count: int) -> bool:
    return len(reader.numbers) >= count


@pytest.fixture
async def ann(platform: Platform) -> Developer:
    return await Developer.join(platform)


async def read_all(ann: Developer, app: str, query: str = "") -> list[str]:
    texts: list[str] = []
    cursor = ""
    while True:
        path = f"apps/{app}/lines/?limit=1000&cursor={cursor}&{query}"
        page = await ann.call("GET", path, status=200)
        if cursor == (cursor := page["cursor"]):
            return texts
        texts += [line["text"] for line in page["results"]]


async def test_sv02_lines_that_are_no_text_have_no_end_or_ten_megabytes(ann: Developer) -> None:
    repository = await ann.create("shop")
    await ann.push("shop", repository, NOISY)
    before = find_memory(ann.platform)
    await ann.call("POST", "apps/shop/ptypes/scale/", {"noisy": 1}, status=204)

    async def has(text: str) -> bool:
        path = f"apps/shop/lines/?ptype=noisy&tail=1&text={text}"
        return bool((await ann.call("GET", path, status=200))["results"])

    await until(lambda: has("after"), within=30)
    (pod,) = await ann.pods("shop")
    await ann.call("POST", "apps/shop/ptypes/scale/", {"noisy": 0}, status=204)
    await until(lambda: has("end"), within=30)
    texts = await read_all(ann, "shop", "ptype=noisy")
    assert texts[:3] == ["ok", "\ufffd\ufffd", "still here"]
    assert texts[-2:] == ["after", "no end \U0001f4a9 \ufffd"]
    assert "".join(text.removesuffix("\u2026") for text in texts[3:-2]) == "x" * LONG
    shown = await follow_pod(ann, pod["name"])
    assert shown.endswith("\nafter\nno end \U0001f4a9 \ufffd\n")
    assert find_memory(ann.platform) - before < 64 * 1024, "KiB"


def find_memory(platform: Platform) -> int:
    """What the platform's process takes, in KiB."""
    assert platform.process
    status = Path(f"/proc/{platform.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


async def follow_pod(ann: Developer, pod: str) -> str:
    """As the client's `ps logs -f`."""
    url = f"ws://127.0.0.1:{ann.platform.http_port}/v2/apps/shop/pods/{pod}/logs/"
    headers = {"Authorization": f"token {ann.token}"}
    async with connect(url, additional_headers=headers, max_size=2**25, proxy=None) as websocket:
        await websocket.send(json.dumps({"lines": -1, "follow": True}))
        parts = [part if isinstance(part, str) else part.decode() async for part in websocket]
    return "".join(parts)


@pytest.fixture
async def forgetful(database_url: str | None) -> AsyncIterator[Platform]:
    async with Platform(database_url, QUICK | {"DRYCC_LOG_AGE": "2"}) as running:
        yield running


async def test_lg03_lines_older_than_the_setting_are_counted_and_gone(forgetful: Platform) -> None:
    ann = await Developer.join(forgetful)
    repository = await ann.create("shop")
    page = await ann.call("GET", "apps/shop/lines/?tail=0", status=200)
    await ann.push("shop", repository, {"Procfile": "worker: sleep 86400\n"})

    async def are_gone() -> bool:
        found = await ann.call("GET", f"apps/shop/lines/?cursor={page['cursor']}", status=200)
        return [line["text"].partition(" lines ")[2] for line in found["results"]] == ["are no longer kept"]

    await until(are_gone, within=20)
    assert await read_all(ann, "shop") == []
