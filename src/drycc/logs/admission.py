"""Who may read an app's lines: the same for websockets and for requests."""

from starlette.requests import HTTPConnection

from drycc.backends.db import Database
from drycc.core import apps, policy, tokens
from drycc.core.apps import AppRef
from drycc.core.secrets import Keyring
from drycc.errors import Unauthenticated


async def find_app(db: Database, keyring: Keyring, connection: HTTPConnection) -> AppRef:
    """The app of the path, when its credentials may view it; raises what the door translates."""
    header = dict(connection.scope["headers"]).get(b"authorization")
    identity = await tokens.authenticate(db, keyring, header)
    if identity is None:
        raise Unauthenticated("Authentication credentials were not provided.")
    app = await apps.find(db, connection.path_params["app"])
    policy.require(identity, app, "view")
    return app
