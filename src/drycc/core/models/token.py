"""API tokens, and the one-time keys of a login that a token is collected with."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from drycc.core.models.base import Base, Identified


class Token(Identified, Base):
    __tablename__ = "tokens"

    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id", ondelete="CASCADE"), index=True)
    alias: Mapped[str] = mapped_column(default="")
    digest: Mapped[bytes] = mapped_column(unique=True)  # HMAC of the token
    fuzzy_key: Mapped[str]


class Login(Base):
    __tablename__ = "logins"

    digest: Mapped[bytes] = mapped_column(primary_key=True)  # HMAC of the login's key
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id", ondelete="CASCADE"))
    expires: Mapped[datetime]
