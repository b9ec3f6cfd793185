"""SSH public keys."""

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from drycc.core.models.base import Base, Identified


class Key(Identified, Base):
    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(unique=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id", ondelete="CASCADE"), index=True)
    public: Mapped[str]
    sha256: Mapped[str] = mapped_column(unique=True)  # fingerprint of the blob as OpenSSH writes it
    fingerprint: Mapped[str]  # MD5, colon separated, for display
