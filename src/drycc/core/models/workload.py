"""Workloads: the desired state of one process type, pointing at a release."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from drycc.core.models.base import Base, Dated


class Workload(Dated, Base):
    __tablename__ = "workloads"

    app_uuid: Mapped[UUID] = mapped_column(sa.ForeignKey("apps.uuid", ondelete="CASCADE"), primary_key=True)
    ptype: Mapped[str] = mapped_column(primary_key=True)
    release_uuid: Mapped[UUID] = mapped_column(sa.ForeignKey("releases.uuid"))
    replicas: Mapped[int]
    restarted_at: Mapped[datetime | None]
    is_held: Mapped[bool] = mapped_column(default=False)  # its roll-out failed: keep what runs, start nothing
