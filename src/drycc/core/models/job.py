"""Jobs: rows that say what is to be done; the row is the truth, a nudge only says "look"."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from drycc.core.models.base import Base
from drycc.kit.ids import now

RUNNING = sa.text("state = 'running'")


class Job(Base):
    __tablename__ = "jobs"
    __table_args__ = (
        sa.Index(
            "ix_jobs_running",
            "app_uuid",
            "lane",
            unique=True,
            sqlite_where=RUNNING,
            postgresql_where=RUNNING,
        ),
        sa.Index("ix_jobs_due", "state", "run_at"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]  # build | deploy | apply | destroy
    lane: Mapped[str]  # build | deploy: one running job per app and lane
    app_uuid: Mapped[UUID] = mapped_column(sa.ForeignKey("apps.uuid", ondelete="CASCADE"))
    key: Mapped[str] = mapped_column(default="")  # what it is about: a build's id, a release's uuid
    payload: Mapped[dict[str, Any]] = mapped_column(default=dict)
    state: Mapped[str] = mapped_column(
        default="queued"
    )  # queued running succeeded failed cancelled superseded abandoned
    run_at: Mapped[datetime] = mapped_column(default=now)
    attempts: Mapped[int] = mapped_column(default=0)
    lease_owner: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    generation: Mapped[int] = mapped_column(default=0)  # grows with every claim: the fence of its writes
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    result: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created: Mapped[datetime] = mapped_column(default=now)
    finished: Mapped[datetime | None]
