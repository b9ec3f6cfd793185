"""Releases: build + config, v1, v2, …"""

from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from drycc.core.models.base import Base, Identified


class Release(Identified, Base):
    __tablename__ = "releases"
    __table_args__ = (sa.UniqueConstraint("app_uuid", "version"),)

    app_uuid: Mapped[UUID] = mapped_column(sa.ForeignKey("apps.uuid", ondelete="CASCADE"))
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id"))
    version: Mapped[int]
    build_id: Mapped[int | None] = mapped_column(sa.ForeignKey("builds.id"))
    config_uuid: Mapped[UUID] = mapped_column(sa.ForeignKey("configs.uuid"))
    state: Mapped[str] = mapped_column(default="created")  # created | crashed | succeed
    failed: Mapped[bool] = mapped_column(default=False)
    exception: Mapped[str | None]
    summary: Mapped[str] = mapped_column(default="")
    conditions: Mapped[list[Any]] = mapped_column(default=list)  # newest first
    deployed_ptypes: Mapped[list[Any]] = mapped_column(default=list)
