"""What a route may ask for in its signature: the ports, who asks, and the app with a permission on it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Path, Request

import drycc.kit.paths  # noqa: F401 - registers what stands in the routes' paths
from drycc.backends.cluster.base import Cluster
from drycc.backends.db import Database
from drycc.backends.logstore.base import LogStore
from drycc.backends.nudges.base import Nudges
from drycc.core import apps, policy, tokens
from drycc.core.apps import AppRef
from drycc.core.identity import Identity
from drycc.core.policy import Action
from drycc.core.secrets import Keyring
from drycc.errors import Unauthenticated
from drycc.roles import Health
from drycc.settings import Settings


@dataclass(frozen=True, slots=True)
class Needs:
    settings: Settings
    db: Database
    keyring: Keyring
    cluster: Cluster
    nudges: Nudges
    logs: LogStore
    health: Health


async def get_ports(request: Request) -> Needs:
    needs: Needs = request.app.state.needs
    return needs


Ports = Annotated[Needs, Depends(get_ports)]


async def identify(request: Request, ports: Ports) -> Identity | None:
    """Credentials that do not hold are refused, also where none are needed."""
    header = dict(request.scope["headers"]).get(b"authorization")
    return await tokens.authenticate(ports.db, ports.keyring, header)


Anyone = Annotated[Identity | None, Depends(identify)]


async def require_user(user: Anyone) -> Identity:
    if user is None:
        raise Unauthenticated("Authentication credentials were not provided.")
    return user


AnyUser = Annotated[Identity, Depends(require_user)]


def find_app(action: Action, *, even_destroyed: bool = False) -> Callable[..., Awaitable[AppRef]]:
    async def find(
        app: Annotated[str, Path(description="The app's id")], user: AnyUser, ports: Ports
    ) -> AppRef:
        found = await apps.find(ports.db, app, even_destroyed=even_destroyed)
        policy.require(user, found, action)
        return found

    return find


ViewApp = Annotated[AppRef, Depends(find_app("view"))]
ChangeApp = Annotated[AppRef, Depends(find_app("change"))]
DeleteApp = Annotated[AppRef, Depends(find_app("delete"))]
EndApp = Annotated[AppRef, Depends(find_app("delete", even_destroyed=True))]  # ended twice is ended once
