"""Access lines: what they say, and what they must not."""

import asyncio
import json
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from drycc.backends.cluster.local.edge.access import MISSING, AccessLog, mask
from tests.backends.cluster.local.edge.rig import Pod, Rig, get, post
from tests.smalldisk import small_disk
from tests.waiting import until


@pytest.mark.parametrize(
    ("target", "masked"),
    [
        ("/x?token=abc123&page=2", "/x?token=***&page=2"),
        ("/callback?code=c&state=s", "/callback?code=***&state=***"),
        ("/x?page=2&q=a+b&tag=&empty", "/x?page=2&q=a+b&tag=&empty"),
        ("/x?ACCESS_TOKEN=1&accessToken=2&id-token=3", "/x?ACCESS_TOKEN=***&accessToken=***&id-token=***"),
        ("/x?api_key=1&apikey=2&X-Amz-Signature=3&X-Amz-Credential=4",
         "/x?api_key=***&apikey=***&X-Amz-Signature=***&X-Amz-Credential=***"),
        ("/x?p%61ssword=a&user%5Bpassword%5D=b", "/x?p%61ssword=***&user%5Bpassword%5D=***"),
        ("/x?password=a=b==&next=/y?token=t", "/x?password=***&next=/y?token=***"),
        ("/x;jsessionid=1234?keyword=k&monkey=m&decoder=d", "/x;jsessionid=***?keyword=k&monkey=m&decoder=d"),
        ("/x?a=1;secret=2#token=3", "/x?a=1;secret=***#token=***"),
        ("/x?token=a?b&c=d", "/x?token=***&c=d"),
        ("/login?next=%2Fy%3Fcode%3D1&page=2", "/login?next=***&page=2"),
        ("/x?q=a%3Db&r=c=d", "/x?q=a%3Db&r=c=d"),
        ("/x?a=" + "b=" * 9000, "/x?a=b=b=b=***"),
        ("/token=abc", "/token=abc"),
    ],
)  # fmt: skip
def test_se01_secret_values_are_masked_and_others_kept(target: str, masked: str) -> None:
    assert mask(target) == masked


async def test_se01_no_secret_reaches_the_file(rig: Rig) -> None:
    secret = "s3cr3t-value"
    async with Pod() as pod:
        await rig.route(pod)
        referer = f"Referer: http://app.localhost/login?token={secret}"
        answer = await rig.ask(get(f"/x?token={secret}&page=2", referer, f"Authorization: token {secret}"))
        assert pod.received[0].line == f"GET /x?token={secret}&page=2 HTTP/1.1"
        record = await rig.access(answer)
        assert record["app"] == "app"
        assert record["text"].startswith("GET /x?token=***&page=2 200 2 ")
        await rig.route()
        assert (await rig.access(await rig.ask(get(f"/?code={secret}"))))["text"].startswith(
            "GET /?code=*** 503 "
        )
    assert secret not in rig.control.access_file.read_text()


async def test_a_line_says_what_happened(rig: Rig) -> None:
    def respond(_: object) -> bytes:
        return b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"

    async with Pod(respond=respond) as pod:
        await rig.route(pod)
        answer = await rig.ask(post(b"abc", target='/quo"te'))
        record = await rig.access(answer)
        method, path, status, size, took, peer, request_id = record["text"].split()
        assert (method, path, status, size, peer) == ("POST", '/quo"te', "404", "5", "127.0.0.1")
        assert 0 < float(took.removesuffix("ms")) < 5000
        assert request_id == answer.get("x-request-id")
        assert len(record["at"]) == len("2026-01-01T00:00:00.000000+00:00")


async def test_a_full_disk_costs_lines_and_no_request() -> None:
    log = AccessLog(Path("/dev/full"))
    for number in range(1000):
        log.add("app", f"GET /{number} 200")
    await asyncio.sleep(0.1)
    log.add("app", "GET / 200")
    await asyncio.to_thread(log.close)


async def test_lines_that_a_full_disk_did_not_take_are_counted(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1) as disk:
        log = AccessLog(disk.seen / "access")
        disk.fill(leave=100 * 1024)
        for number in range(5000):
            log.add(f"app{number % 3}", f"GET /{number} {'x' * 100} 200")
            if number % 100 == 0:
                await asyncio.sleep(0.01)
        await until(lambda: disk.left() == 0)
        log.add("app0", "GET /in-vain 200")
        await asyncio.sleep(0.1)
        disk.free()
        log.add("app1", "GET /again 200")
        await asyncio.to_thread(log.close)
        kept: Counter[str] = Counter()
        for line in (disk.seen / "access").read_text().splitlines():
            with suppress(ValueError):  # the torn one
                record = json.loads(line)
                count, _, rest = record["text"].partition(" ")
                kept[record["app"]] += int(count) if rest == MISSING[3:] else 1
    assert kept == {"app0": 1668, "app1": 1668, "app2": 1666}


async def test_lines_are_whole_and_in_order(tmp_path: Path) -> None:
    log = AccessLog(tmp_path / "access")
    for number in range(5000):
        log.add("app", f"GET /{number} 200")
        if number % 1000 == 0:
            await asyncio.sleep(0.03)
    await asyncio.to_thread(log.close)
    lines = (tmp_path / "access").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == [f"GET /{number} 200" for number in range(5000)]
