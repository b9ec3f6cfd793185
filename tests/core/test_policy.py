"""Who may do what with an app."""

from dataclasses import dataclass, replace

import pytest

from drycc.core import policy
from drycc.core.identity import Identity
from drycc.core.policy import Action
from drycc.errors import Forbidden

ACTIONS: tuple[Action, ...] = ("view", "change", "delete")


@dataclass(frozen=True)
class Owned:
    owner_id: int


def test_the_owner_staff_and_superusers_may_and_nobody_else() -> None:
    app = Owned(1)
    for action in ACTIONS:
        for who in (
            Identity(1, "owner"),
            Identity(2, "s", is_staff=True),
            Identity(3, "r", is_superuser=True),
        ):
            policy.require(who, app, action)
            with pytest.raises(Forbidden, match="You do not have permission to perform this action"):
                policy.require(replace(who, is_active=False), app, action)
        assert not policy.may(Identity(4, "stranger"), app, action)
