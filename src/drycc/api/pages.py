"""Lists: limit and offset as clients send them, one statement a page, the envelope around its rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode

import sqlalchemy as sa
from fastapi import Depends, Query, Request
from starlette.datastructures import URL

from drycc.backends.db import Database
from drycc.kit.http import Json

DEFAULT = 100
MOST = 2**31 - 1  # what both databases take as a number
TOTAL = sa.func.count().over().label("total")  # a column of every list's statement
LIMIT, OFFSET = sa.bindparam("limit", type_=sa.Integer), sa.bindparam("offset", type_=sa.Integer)

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Page:
    """The part of a list that was asked for, and the URL that asked."""

    limit: int
    offset: int
    url: URL

    async def fetch(
        self, db: Database, statement: sa.Select[*tuple[Any, ...]], **values: Any
    ) -> tuple[int, Rows]:
        """How many there are in all, and the rows of this page; a page beyond the end costs a second look."""
        rows = await db.read(statement, limit=self.limit, offset=self.offset, **values)
        if not rows and self.offset:
            first = await db.read(statement, limit=1, offset=0, **values)
            return (first[0].total if first else 0), ()
        plain = [dict(row._mapping) for row in rows]
        return (rows[0].total if rows else 0), [_without_total(row) for row in plain]

    async def answer(self, db: Database, statement: sa.Select[*tuple[Any, ...]], **values: Any) -> Json:
        return self.wrap(*await self.fetch(db, statement, **values))

    def wrap(self, total: int, results: Rows) -> Json:
        after, before = self.offset + self.limit, self.offset - self.limit
        return Json(
            {
                "count": total,
                "next": self._link(after) if after < total else None,
                "previous": self._link(before) if self.offset > 0 else None,
                "results": results,
            }
        )

    def _link(self, offset: int) -> str:
        query = dict(parse_qsl(self.url.query, keep_blank_values=True)) | {"limit": str(self.limit)}
        query.pop("offset", None)
        if offset > 0:
            query["offset"] = str(offset)
        return str(self.url.replace(query=urlencode(sorted(query.items()))))


async def parse_page(
    request: Request,
    limit: Annotated[str, Query(description="Rows of a page; 100 for anything but a positive number")] = "",
    offset: Annotated[str, Query(description="Rows to leave out; 0 for anything but a number")] = "",
) -> Page:
    return Page(_parse_number(limit) or DEFAULT, _parse_number(offset), request.url)


Paged = Annotated[Page, Depends(parse_page)]


def answer_all(results: Rows) -> Json:
    """The envelope of a list that knows no pages."""
    return Json({"results": results, "count": len(results)})


def _without_total(row: dict[str, Any]) -> dict[str, Any]:
    del row["total"]
    return row


def _parse_number(text: str) -> int:
    return min(int(text), MOST) if text.isascii() and text.isdigit() and len(text) < 4000 else 0
