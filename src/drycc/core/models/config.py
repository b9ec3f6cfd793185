"""Configs: never edited, replaced."""

from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from drycc.core.models.base import Base, Identified


class Config(Identified, Base):
    __tablename__ = "configs"

    app_uuid: Mapped[UUID] = mapped_column(sa.ForeignKey("apps.uuid", ondelete="CASCADE"), index=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id"))
    sealed_values: Mapped[bytes]  # [{name, value, group | ptype}, …] as JSON, sealed with the app's data key
    values_refs: Mapped[dict[str, Any]] = mapped_column(default=dict)
    limits: Mapped[dict[str, Any]] = mapped_column(default=dict)
