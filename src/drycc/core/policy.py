"""Who may do what with an app."""

from typing import Literal, Protocol

from drycc.core.identity import Identity
from drycc.errors import Forbidden

Action = Literal["view", "change", "delete"]


class Owned(Protocol):
    @property
    def owner_id(self) -> int: ...


def may(identity: Identity, app: Owned, action: Action) -> bool:
    """Superusers, staff and the app's owner may do everything; nobody else anything yet."""
    is_allowed = identity.is_superuser or identity.is_staff or identity.id == app.owner_id
    return identity.is_active and is_allowed


def require(identity: Identity, app: Owned, action: Action) -> None:
    """Raises `Forbidden`."""
    if not may(identity, app, action):
        raise Forbidden("You do not have permission to perform this action.")
