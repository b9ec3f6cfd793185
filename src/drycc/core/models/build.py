"""Builds and their output."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from drycc.core.models.base import Base, Dated


class Build(Dated, Base):
    __tablename__ = "builds"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(primary_key=True)  # never used twice: images and refs are named by it
    uuid: Mapped[UUID] = mapped_column(unique=True, default=uuid4)
    app_uuid: Mapped[UUID] = mapped_column(sa.ForeignKey("apps.uuid", ondelete="CASCADE"), index=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id"))
    # queued building succeeded failed cancelled superseded abandoned
    state: Mapped[str] = mapped_column(default="queued", index=True)
    sha: Mapped[str] = mapped_column(default="")
    stack: Mapped[str] = mapped_column(default="")
    image: Mapped[str] = mapped_column(default="")
    digest: Mapped[str] = mapped_column(default="")
    source: Mapped[str] = mapped_column(default="")  # key in the ObjectStore
    procfile: Mapped[dict[str, Any]] = mapped_column(default=dict)
    dryccfile: Mapped[dict[str, Any]] = mapped_column(default=dict)
    dockerfile: Mapped[str] = mapped_column(default="")
    reason: Mapped[str] = mapped_column(default="")  # why it did not succeed
    release_uuid: Mapped[UUID | None]  # what a follower waits for
    started: Mapped[datetime | None]
    finished: Mapped[datetime | None]


class BuildLine(Base):
    __tablename__ = "build_log"

    build_id: Mapped[int] = mapped_column(sa.ForeignKey("builds.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    text: Mapped[str]
    source: Mapped[str] = mapped_column(default="")  # the one-off that printed it: build | release; "" = ours
    offset: Mapped[int] = mapped_column(sa.BigInteger(), default=0)  # into that one-off's output
