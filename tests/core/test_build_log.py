"""A build's log: one number a line, one cursor from first to last, and a mark where lines are missing."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends.db import Database
from drycc.core import build_log, pods
from drycc.core.build_log import Page, Printed
from drycc.core.models import BuildLine
from drycc.errors import Invalid
from tests.cluster import Finished
from tests.core.story import Story


@pytest.fixture
async def story(db: Database, tmp_path: Path) -> Story:
    return await Story.begin(db, tmp_path)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten first and ten last lines."""
    monkeypatch.setattr(build_log, "HEAD_LINES", 10)
    monkeypatch.setattr(build_log, "TAIL_LINES", 10)
    monkeypatch.setattr(pods, "BATCH", 4)


async def read_all(story: Story, id: int, *, cursor: str = "", limit: int = 7) -> list[str]:
    found: list[str] = []
    while True:
        page = await build_log.read(story.db, id, cursor, limit)
        assert len(page.lines) <= limit
        found += [line.text for line in page.lines]
        if page.is_over:
            return found
        assert page.lines, "a page with neither lines nor an end"
        cursor = page.cursor


def numbered(count: int, start: int = 0) -> list[str]:
    return [f"line {number}" for number in range(start, count)]


async def add(story: Story, id: int, lines: Sequence[str], end: int = 0) -> None:
    async def body(session: AsyncSession) -> None:
        await build_log.add_output(session, id, "build", [Printed(line, end) for line in lines])

    await story.db.write(body)


async def test_pages_of_any_size_give_every_line_once_and_in_order(story: Story) -> None:
    story.cluster.builds = Finished("".join(f"{line}\n" for line in numbered(500)).encode())
    id = await story.push(web="./serve")
    await story.work()
    whole = await read_all(story, id, limit=1000)
    assert whole[1:501] == numbered(500)
    assert whole[-1].endswith("is live at http://shop.localhost:8080")
    choose = random.Random(3)
    for _ in range(5):
        found: list[str] = []
        page = Page((), "", is_over=False)
        while not page.is_over:
            page = await build_log.read(story.db, id, page.cursor, choose.randrange(1, 90))
            found += [line.text for line in page.lines]
        assert found == whole
    page = await build_log.read(story.db, id, page.cursor)
    assert (page.lines, page.is_over) == ([], True)


async def test_the_cursor_of_an_empty_page_stands_where_it_stood(story: Story) -> None:
    id = await story.push(web="./serve")
    page = await build_log.read(story.db, id)
    assert (page.lines, page.is_over) == ([], False)
    await add(story, id, numbered(3))
    page = await build_log.read(story.db, id, page.cursor, 2)
    assert [line.text for line in page.lines] == numbered(2)
    (line,) = (await build_log.read(story.db, id, page.cursor)).lines
    assert (line.seq, line.text) == (3, "line 2")


async def test_a_cursor_of_another_build_or_of_nobody_is_refused(story: Story) -> None:
    first, second = await story.push(web="./serve"), await story.push(web="./serve")
    await add(story, first, numbered(3))
    cursor = (await build_log.read(story.db, first)).cursor
    for strange in (cursor, cursor[:-1], "x", "é", "=", "A" * 10_000, "MS4x"):
        with pytest.raises(Invalid, match="none of this build's log"):
            await build_log.read(story.db, second, strange)


@pytest.mark.usefixtures("small")
async def test_the_first_and_the_last_lines_of_a_failed_build_survive(story: Story) -> None:
    output = "".join(f"{line}\n" for line in numbered(1000)) + "no such module\n"
    story.cluster.builds = Finished(output.encode(), code=1)
    id = await story.push(web="./serve")
    await story.work()
    first = ["Starting build... but first, coffee!", *numbered(9)]  # our own line has a number, too
    assert await read_all(story, id) == [
        *first,
        "… 982 lines left out",
        *numbered(1000, 991),
        "no such module",
    ]
    assert len(await story.rows(BuildLine)) == 20
    assert await read_all(story, id, limit=1) == await read_all(story, id, limit=11)


@pytest.mark.usefixtures("small")
async def test_lines_of_ours_are_never_left_out(story: Story) -> None:
    story.cluster.builds = Finished(b"b\n" * 100)
    story.cluster.releases = Finished(b"r\n" * 100)
    id = await story.push(web="./serve", release="./migrate")
    await story.work()
    lines = await read_all(story, id)
    for said in ("Build complete.", "-----> Releasing v2", "-----> Running release step: ./migrate"):
        assert said in lines
    assert lines[-1].endswith("is live at http://shop.localhost:8080")
    left_out = [int(line.split()[1]) for line in lines if line.endswith("left out")]
    assert left_out
    assert len(lines) - len(left_out) + sum(left_out) == 208


@pytest.mark.usefixtures("small")
async def test_who_stands_in_the_middle_is_told_what_was_left_out(story: Story) -> None:
    id = await story.push(web="./serve")
    await add(story, id, numbered(100), end=1)
    early = await build_log.read(story.db, id, limit=40)
    place = await build_log.find_place(story.db, id, "build")
    await story.db.write(lambda session: build_log.leave_out(session, id, "build", place))
    page = await build_log.read(story.db, id, early.cursor)
    assert [line.text for line in page.lines] == ["… 50 lines left out", *numbered(100, 90)]
    only_the_mark = await build_log.read(story.db, id, early.cursor, 1)
    assert [(line.seq, line.text) for line in only_the_mark.lines] == [(90, "… 50 lines left out")]
    rest = await build_log.read(story.db, id, only_the_mark.cursor)
    assert [line.text for line in rest.lines] == numbered(100, 90)


async def test_bytes_bound_a_log_as_lines_do(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_log, "HEAD_BYTES", 1000)
    monkeypatch.setattr(build_log, "TAIL_BYTES", 1000)
    monkeypatch.setattr(pods, "BATCH", 4)
    story.cluster.builds = Finished(b"".join(b"%099d\n" % number for number in range(500)), code=1)
    id = await story.push(web="./serve")
    await story.work()
    lines = await read_all(story, id)
    assert lines[1:11] == [f"{number:099d}" for number in range(10)]
    assert lines[11] == "… 480 lines left out"
    assert lines[12:] == [f"{number:099d}" for number in range(490, 500)]


async def test_what_no_text_can_hold_is_kept_nevertheless(story: Story) -> None:
    story.cluster.builds = Finished(b"a\0b\n\xff\n" + b"x" * 10_000_000 + b"\nhttps://u:p@host/r.git\n")
    id = await story.push(web="./serve")
    await story.work()
    lines = await read_all(story, id)
    assert lines[1:3] == ["a\ufffdb", "\ufffd"]
    assert lines[3].endswith("… (a line of 10,000,000 bytes)")
    assert lines[4] == "https://[masked]@host/r.git"
