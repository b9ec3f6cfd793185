"""Every route of the API against every kind of asker. A route that is not listed here fails."""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.routing import APIRoute

from drycc.api.role import ROUTERS
from drycc.core import models as m
from drycc.core import tokens
from drycc.logs.routers import lines
from tests.api.conftest import Api

ASKERS = ("anonymous", "stranger", "owner", "staff", "superuser", "inactive")
# Who gets past the door; everybody else is told 401 without a good token, else 403.
ALL = set(ASKERS)
OPEN = ALL - {"inactive"}  # needs no token, refuses one that does not hold
USERS = {"stranger", "owner", "staff", "superuser"}
APP = {"owner", "staff", "superuser"}
APP_PATH = "/v2/apps/{app}"

EXPECTED: dict[tuple[str, str], set[str]] = {
    ("GET", "/healthz"): ALL,
    ("GET", "/readiness"): ALL,
    ("GET", "/v2/"): USERS,
    ("POST", "/v2/auth/login/"): OPEN,
    ("GET", "/v2/auth/token/{key}/"): OPEN,
    ("GET", "/v2/auth/whoami/"): USERS,
    ("GET", "/v2/tokens/"): USERS,
    ("DELETE", "/v2/tokens/{uuid}/"): USERS,
    ("GET", "/v2/keys/"): USERS,
    ("POST", "/v2/keys/"): USERS,
    ("GET", "/v2/keys/{id}/"): USERS,
    ("DELETE", "/v2/keys/{id}/"): USERS,
    ("GET", "/v2/apps/"): USERS,
    ("POST", "/v2/apps/"): USERS,
    ("GET", f"{APP_PATH}/"): APP,
    ("DELETE", f"{APP_PATH}/"): APP,
    ("GET", f"{APP_PATH}/settings/"): APP,
    ("GET", f"{APP_PATH}/domains/"): APP,
    ("GET", f"{APP_PATH}/build/"): APP,
    ("GET", f"{APP_PATH}/builds/"): APP,
    ("GET", f"{APP_PATH}/builds/{{build}}/"): APP,
    ("GET", f"{APP_PATH}/builds/{{build}}/log/"): APP,
    ("POST", f"{APP_PATH}/builds/{{build}}/cancel/"): APP,
    ("GET", f"{APP_PATH}/config/"): APP,
    ("POST", f"{APP_PATH}/config/"): APP,
    ("GET", f"{APP_PATH}/releases/"): APP,
    ("GET", f"{APP_PATH}/releases/v{{version}}/"): APP,
    ("POST", f"{APP_PATH}/releases/deploy/"): APP,
    ("POST", f"{APP_PATH}/releases/rollback/"): APP,
    ("GET", f"{APP_PATH}/pods/"): APP,
    ("GET", f"{APP_PATH}/lines/"): APP,
    ("GET", f"{APP_PATH}/ptypes/"): APP,
    ("POST", f"{APP_PATH}/ptypes/scale/"): APP,
    ("POST", f"{APP_PATH}/ptypes/restart/"): APP,
}
DENIED = {"detail": "You do not have permission to perform this action."}


def list_routes() -> Iterator[tuple[str, str]]:
    for module in (*ROUTERS, lines):
        for route in module.router.routes:
            assert isinstance(route, APIRoute)
            for method in route.methods or ():
                yield method, route.path_format


@pytest.fixture
async def askers(api: Api) -> dict[str, str | None]:
    made: dict[str, str | None] = {"anonymous": None}
    for name in ("stranger", "owner", "staff", "superuser", "inactive"):
        flags = {f"is_{name}": True} if name in ("staff", "superuser") else {}
        made[name] = await api.add_user(name, **flags)
    inactive = sa.update(m.User).where(m.User.username == "inactive").values(is_active=False)

    async def disable(session: Any) -> None:
        await session.execute(inactive)

    await api.db.write(disable)
    tokens.forget(api.db)
    return made


def test_every_route_is_listed() -> None:
    assert set(list_routes()) == set(EXPECTED)


async def test_every_route_against_every_asker(api: Api, askers: dict[str, str | None]) -> None:
    owner = askers["owner"]
    assert owner
    await api.add_app(owner)
    values = {"app": "shop", "key": "x" * 32, "uuid": "x", "id": "x", "version": "1", "build": "1"}
    for method, path in EXPECTED:
        for asker in ASKERS:
            async with api.working():
                answer = await api.call(method, path.format(**values), token=askers[asker])
            if (method, path, answer.status) == ("DELETE", f"{APP_PATH}/", 204):
                await api.add_app(owner)
            told = (asker, method, path, answer)
            if asker in EXPECTED[method, path]:
                assert answer.status not in (401, 403), told
            elif asker in ("anonymous", "inactive"):
                assert answer.status == 401, told
            else:
                assert (answer.status, answer.json()) == (403, DENIED), told


async def test_what_is_denied_changes_nothing(api: Api, askers: dict[str, str | None]) -> None:
    owner, stranger = askers["owner"], askers["stranger"]
    assert owner
    await api.add_app(owner)
    value = {"values": [{"name": "A", "value": "1", "group": "global"}]}
    for method, path, body in (("POST", "config/", value), ("DELETE", "", None)):
        assert (await api.call(method, f"/v2/apps/shop/{path}", body, token=stranger)).status == 403
    assert await api.count(m.Release) == 1
    assert await api.count(m.Job) == 0
    assert (await api.call("GET", "/v2/apps/", token=stranger)).json()["count"] == 0
    assert (await api.call("GET", "/v2/apps/none/", token=stranger)).status == 404
