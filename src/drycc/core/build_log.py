"""The lines of a build: kept before anybody is sent one, and numbered once and for all.

Of an output that is too long its first and its last part are kept. The numbers of what was left out
are missing, so a reader that comes there, wherever it has stood before, is told how many lines it
does not get.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends.db import Database
from drycc.core.models import Build, BuildLine
from drycc.errors import Invalid
from drycc.kit.ids import now

HEAD_LINES = TAIL_LINES = 150_000  # kept of the beginning and of the end
HEAD_BYTES = TAIL_BYTES = 32 * 1024 * 1024  # of output, whichever is reached first
OURS = ""  # the source of lines that no one-off has printed; those are never left out
MOST_SEQ = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Printed:
    """A line of a one-off, and where in its output it ends."""

    text: str
    end: int


class Place(NamedTuple):
    """A line's number, and where in the one-off's output it ends."""

    seq: int
    end: int

    @property
    def is_beyond_head(self) -> bool:
        return self.seq > HEAD_LINES or self.end > HEAD_BYTES

    def is_far_from(self, earlier: "Place") -> bool:
        """Whether enough was kept since then to look again for what is to be left out."""
        return self.seq - earlier.seq > TAIL_LINES // 2 or self.end - earlier.end > TAIL_BYTES // 2


@dataclass(frozen=True, slots=True)
class Line:
    """A line as it is read; one that says how many were left out has the number of the last of these."""

    seq: int
    at: datetime
    text: str


@dataclass(frozen=True, slots=True)
class Page:
    lines: Sequence[Line]
    cursor: str  # stands after the last line; opaque
    is_over: bool  # no line follows, now or later


async def read(db: Database, id: int, cursor: str = "", limit: int = 200) -> Page:
    """At most `limit` lines after the cursor; "" stands at the beginning. Raises `Invalid` for a bad one."""
    seq = _parse_cursor(id, cursor)
    row = await db.read_one(_finished, id=id)
    rows = await db.read(_lines_after, id=id, seq=seq, limit=limit + 1)
    lines = list(_with_marks(rows, seq))
    is_over = (row is None or row.finished is not None) and len(lines) <= limit
    lines = lines[:limit]
    return Page(lines, _make_cursor(id, lines[-1].seq if lines else seq), is_over)


async def add_lines(session: AsyncSession, id: int, lines: Iterable[str]) -> None:
    """Add lines of the platform's own; one that stands there already is not said twice."""
    said = set(await session.scalars(_said, {"id": id}))
    await _insert(session, id, OURS, [Printed(line, 0) for line in lines if line not in said])


async def add_output(session: AsyncSession, id: int, source: str, lines: Sequence[Printed]) -> Place:
    """Add lines (one at least) that a one-off printed, a build or a release step; gives the last place."""
    return Place(await _insert(session, id, source, lines), lines[-1].end)


async def find_place(db: Database, id: int, source: str) -> Place:
    """How far the kept lines of that one-off reach."""
    row = await db.read_one(_last_of, id=id, source=source)
    return Place(*row) if row else Place(0, 0)


async def leave_out(session: AsyncSession, id: int, source: str, last: Place) -> None:
    """Remove what is neither of the first nor of the last part of that one-off's output, which ends there."""
    is_middle = sa.and_(
        sa.or_(BuildLine.seq > HEAD_LINES, BuildLine.offset > HEAD_BYTES),
        sa.or_(BuildLine.seq <= last.seq - TAIL_LINES, BuildLine.offset <= last.end - TAIL_BYTES),
    )
    of_it = (BuildLine.build_id == id, BuildLine.source == source)
    await session.execute(sa.delete(BuildLine).where(*of_it, is_middle))


async def _insert(session: AsyncSession, id: int, source: str, lines: Sequence[Printed]) -> int:
    """Gives the number of the last line."""
    last = await session.scalar(_last_seq, {"id": id}) or 0
    at = now()
    rows = [
        {"build_id": id, "seq": seq, "at": at, "text": line.text, "source": source, "offset": line.end}
        for seq, line in enumerate(lines, last + 1)
    ]
    if rows:
        await session.execute(_add, rows)
    return last + len(rows)


def _with_marks(rows: Iterable[Any], seq: int) -> Iterator[Line]:
    """The rows after the line `seq`, with a line in each place where numbers are missing."""
    for row in rows:
        if missing := row.seq - seq - 1:
            yield Line(row.seq - 1, row.at, f"… {missing:,} {'lines' if missing > 1 else 'line'} left out")
        yield Line(row.seq, row.at, row.text)
        seq = row.seq


def _make_cursor(id: int, seq: int) -> str:
    return urlsafe_b64encode(f"{id}.{seq}".encode()).decode().rstrip("=")


def _parse_cursor(id: int, cursor: str) -> int:
    if not cursor:
        return 0
    try:
        text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except ValueError:
        text = ""
    match = re.fullmatch(rf"{id}\.([0-9]{{1,10}})", text)
    if match is None or int(match[1]) > MOST_SEQ:
        raise Invalid("This cursor is none of this build's log.", field="cursor")
    return int(match[1])


_of_build = BuildLine.build_id == sa.bindparam("id")
_finished = sa.select(Build.finished).where(Build.id == sa.bindparam("id"))
_lines_after = (
    sa.select(BuildLine.seq, BuildLine.at, BuildLine.text)
    .where(_of_build, BuildLine.seq > sa.bindparam("seq"))
    .order_by(BuildLine.seq)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_said = sa.select(BuildLine.text).where(_of_build, BuildLine.source == OURS)
_last_seq = sa.select(sa.func.max(BuildLine.seq)).where(_of_build)
_last_of = (
    sa.select(BuildLine.seq, BuildLine.offset)
    .where(_of_build, BuildLine.source == sa.bindparam("source"))
    .order_by(BuildLine.seq.desc())
    .limit(1)
)
_add = sa.insert(BuildLine.metadata.tables["build_log"])  # as an entity each row costs a third more
