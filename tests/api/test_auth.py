"""Logging in with a password, tokens and their end, who one is."""

import asyncio
import re
from uuid import uuid4

import pytest
import sqlalchemy as sa

from drycc.api.schemas.auth import LoginKey, NewToken, Token, User
from drycc.api.schemas.base import Listing
from drycc.core import identity, tokens
from drycc.core import models as m
from tests.api.conftest import PASSWORD, Api

BAD = {"non_field_errors": ["Unable to log in with provided credentials."]}


async def log_in(api: Api, username: str, password: str = PASSWORD) -> str:
    answer = await api.call("POST", "/v2/auth/login/", {"username": username, "password": password})
    assert answer.status == 200, answer
    return LoginKey.model_validate(answer.json()).key


async def test_from_a_password_to_a_token_and_its_end(api: Api) -> None:
    await identity.create_user(api.db, "carol", PASSWORD)
    key = await log_in(api, "carol")
    assert re.fullmatch("[0-9a-f]{32}", key)
    assert (await api.call("GET", f"/v2/auth/token/{uuid4().hex}/")).body == b""

    answer = await api.call("GET", f"/v2/auth/token/{key}/?alias=workflow-cli")
    made = NewToken.model_validate(answer.json())
    assert re.fullmatch("[0-9a-fA-F]{32}[a-zA-Z]{96}", made.token)
    assert made.username == "carol"

    again = await api.call("GET", f"/v2/auth/token/{key}?alias=other")
    assert again.json() == answer.json()
    listed = (await api.call("GET", "/v2/tokens/", token=made.token)).json()
    page = Listing[Token].model_validate(listed)
    assert [(t.uuid, t.alias, t.owner) for t in page.results] == [(made.uuid, "workflow-cli", "carol")]
    assert page.results[0].fuzzy_key == f"{made.token[:14]}...{made.token[-14:]}"

    me = User.model_validate((await api.call("GET", "/v2/auth/whoami", token=made.token)).json())
    assert (me.username, me.is_superuser, me.groups) == ("carol", False, [])
    assert me.last_login is not None
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", me.last_login)

    assert (await api.call("DELETE", f"/v2/tokens/{made.uuid}/", token=made.token)).status == 204
    gone = await api.call("GET", "/v2/tokens/", token=made.token)
    assert (gone.status, gone.json()) == (401, {"detail": "Invalid token."})
    revived = await api.call("GET", f"/v2/auth/token/{key}/")
    assert (revived.status, revived.body) == (404, b"")


async def test_a_token_collected_by_many_at_once_is_one(api: Api) -> None:
    await api.add_user("carol")
    key = await tokens.open_login(api.db, api.needs.keyring, api.users["carol"])
    path = f"/v2/auth/token/{key}/"
    answers = await asyncio.gather(*(api.call("GET", path) for _ in range(8)))
    assert len({answer.json()["token"] for answer in answers}) == 1
    assert await api.count(m.Token, m.Token.alias == "") == 1


async def test_tokens_of_others_are_out_of_reach(api: Api, alice: str, bob: str) -> None:
    mine = (await api.call("GET", "/v2/tokens/", token=bob)).json()["results"][0]["uuid"]
    for uuid in (mine, str(uuid4()), "no-uuid"):
        answer = await api.call("DELETE", f"/v2/tokens/{uuid}/", token=alice)
        assert (answer.status, answer.json()) == (404, "No Token matches the given query.")
    assert (await api.call("GET", "/v2/tokens/", token=bob)).status == 200


async def test_a_login_that_ended_gives_no_token(api: Api) -> None:
    await api.add_user("carol")
    key = await tokens.open_login(api.db, api.needs.keyring, api.users["carol"])

    async def end(session: object) -> None:
        await session.execute(sa.update(m.Login).values(expires=m.user.now().replace(year=2020)))  # type: ignore[attr-defined]

    await api.db.write(end)
    assert (await api.call("GET", f"/v2/auth/token/{key}/")).status == 404
    await tokens.open_login(api.db, api.needs.keyring, api.users["carol"])
    assert await api.count(m.Login) == 1


NO_LOGINS = [
    ({"username": "carol", "password": "wrong"}, BAD),
    ({"username": "nobody", "password": PASSWORD}, BAD),
    ({"username": "carol", "password": f" {PASSWORD} "}, BAD),
    ({"username": "", "password": "x"}, {"username": ["This field may not be blank."]}),
    ({"username": "carol", "password": ""}, {"password": ["This field may not be blank."]}),
    ({"username": ["carol"], "password": "x"}, {"username": ["Not a valid string."]}),
]


async def test_what_is_no_login(api: Api) -> None:
    await identity.create_user(api.db, "carol", PASSWORD)
    for body, answer in NO_LOGINS:
        refused = await api.call("POST", "/v2/auth/login/", body)
        assert (refused.status, refused.json()) == (400, answer), body


async def test_the_browsers_way_says_that_it_comes_later(api: Api) -> None:
    for body in (None, {}, {"username": "carol"}, {"password": "x"}):
        answer = await api.call("POST", "/v2/auth/login", body)
        assert answer.status == 400
        assert "-u -p" in answer.json()["non_field_errors"][0]


async def test_guessing_ends_after_ten_tries(api: Api) -> None:
    await identity.create_user(api.db, "carol", PASSWORD)
    guesses = [
        await api.call("POST", "/v2/auth/login/", {"username": "carol", "password": f"guess {n}"})
        for n in range(11)
    ]
    assert [guess.status for guess in guesses] == [400] * 10 + [429]
    assert int(guesses[-1].headers["retry-after"]) > 500
    right = await api.call("POST", "/v2/auth/login/", {"username": "carol", "password": PASSWORD})
    assert right.status == 429


async def test_an_inactive_user_is_nobody(api: Api) -> None:
    token = await api.add_user("carol")
    assert (await api.call("GET", "/v2/apps/", token=token)).status == 200

    async def disable(session: object) -> None:
        await session.execute(sa.update(m.User).values(is_active=False))  # type: ignore[attr-defined]

    await api.db.write(disable)
    await api.needs.nudges.send(tokens.TOPIC, "carol")
    await asyncio.sleep(0)
    answer = await api.call("GET", "/v2/apps/", token=token)
    assert (answer.status, answer.json()) == (401, {"detail": "User inactive or deleted."})


async def test_credentials_that_do_not_hold_are_refused_where_none_are_needed(api: Api) -> None:
    body = {"username": "carol", "password": PASSWORD}
    answer = await api.call("POST", "/v2/auth/login/", body, token="x" * 128)
    assert (answer.status, answer.json()) == (401, {"detail": "Invalid token."})


async def test_se02_no_token_stands_in_clear_in_the_database_or_the_log(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "drycc")
    await identity.create_user(api.db, "carol", PASSWORD)
    key = await log_in(api, "carol")
    token = (await api.call("GET", f"/v2/auth/token/{key}/?alias=x&token=abc")).json()["token"]
    await api.call("GET", "/v2/auth/whoami/", token=token)
    assert caplog.text.count("GET /v2/auth/token/***") == 1
    for secret in (key, token, PASSWORD, "abc"):
        assert secret not in caplog.text
    stored = str(await api.db.read(sa.select(m.Token.digest, m.Token.fuzzy_key)))
    stored += str(await api.db.read(sa.select(m.Login.digest)))
    stored += str(await api.db.read(sa.select(m.User.password)))
    assert token not in stored
    assert key not in stored
    assert PASSWORD not in stored


async def test_a_long_or_odd_alias_is_cut(api: Api) -> None:
    await api.add_user("carol")
    key = await tokens.open_login(api.db, api.needs.keyring, api.users["carol"])
    answer = await api.call("GET", f"/v2/auth/token/{key}/?alias=a%00b{'c' * 60}")
    assert answer.status == 200
    listed = (await api.call("GET", "/v2/tokens/", token=answer.json()["token"])).json()["results"]
    assert {"ab" + "c" * 30} <= {token["alias"] for token in listed}
