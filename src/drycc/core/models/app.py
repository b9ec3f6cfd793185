"""Apps, with their settings."""

import time

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from drycc.core.models.base import Base, Identified


class App(Identified, Base):
    __tablename__ = "apps"

    id: Mapped[str] = mapped_column(unique=True)
    uid: Mapped[int] = mapped_column(unique=True)
    owner_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id"), index=True)
    workspace_id: Mapped[str] = mapped_column(sa.ForeignKey("workspaces.id"))
    data_key: Mapped[bytes]  # wrapped with the keyring
    # The fence: grows with every change of a workload and every take-over of a job. It starts above that
    # of any former app of the name.
    generation: Mapped[int] = mapped_column(sa.BigInteger(), default=lambda: time.time_ns() // 1_000_000)
    is_destroyed: Mapped[bool] = mapped_column(default=False)  # asked for; the row goes when all else has
    routable: Mapped[bool] = mapped_column(default=True)
    autodeploy: Mapped[bool] = mapped_column(default=True)
    autorollback: Mapped[bool] = mapped_column(default=True)
