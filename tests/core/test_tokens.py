"""Tokens beneath the API: what is remembered, and that a revocation wins every race."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends.db import Database
from drycc.backends.nudges.memory import MemoryNudges
from drycc.core import tokens, workspaces
from drycc.core.identity import Identity
from drycc.core.models import Token, User, Workspace
from drycc.core.secrets import Keyring
from drycc.core.tokens import Collected
from drycc.errors import NotFound, Unauthenticated


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring.create(tmp_path / "keyring")


async def add_user(db: Database, name: str) -> Identity:
    async def body(session: AsyncSession) -> Identity:
        user = User(username=name, password="-")
        session.add(user)
        await session.flush()
        return Identity(user.id, name)

    return await db.write(body)


async def collect(db: Database, keyring: Keyring, user: Identity) -> Collected:
    found = await tokens.collect(db, keyring, await tokens.open_login(db, keyring, user), "test")
    assert found
    return found


async def test_a_known_token_costs_no_statement_until_something_is_revoked(
    db: Database, keyring: Keyring
) -> None:
    user = await add_user(db, "carol")
    first, second = await collect(db, keyring, user), await collect(db, keyring, user)
    said: list[object] = []
    sa.event.listen(db.engines[0].sync_engine, "before_cursor_execute", lambda *args: said.append(args[2]))
    for _ in range(3):
        assert await tokens.identify(db, keyring, first.token) == user
        assert await tokens.identify(db, keyring, second.token) == user
    assert len(said) == 2
    await tokens.revoke(db, MemoryNudges(), user, first.uuid)
    with pytest.raises(Unauthenticated, match="Invalid token"):
        await tokens.identify(db, keyring, first.token)
    assert await tokens.identify(db, keyring, second.token) == user
    with pytest.raises(NotFound, match="No Token matches"):
        await tokens.revoke(db, MemoryNudges(), user, first.uuid)


async def test_a_look_that_began_before_a_revocation_is_not_remembered(
    db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await add_user(db, "carol")
    made = await collect(db, keyring, user)
    read, has_read, may_go_on = db.read_one, asyncio.Event(), asyncio.Event()

    async def slow(*args: Any, **values: Any) -> Any:
        row = await read(*args, **values)
        has_read.set()
        await may_go_on.wait()
        return row

    monkeypatch.setattr(db, "read_one", slow)
    looking = asyncio.create_task(tokens.identify(db, keyring, made.token))
    await has_read.wait()
    monkeypatch.setattr(db, "read_one", read)
    await tokens.revoke(db, MemoryNudges(), user, made.uuid)
    may_go_on.set()
    await looking
    with pytest.raises(Unauthenticated):
        await tokens.identify(db, keyring, made.token)


async def test_no_key_brings_a_revoked_token_back(db: Database, keyring: Keyring) -> None:
    user = await add_user(db, "carol")
    for _ in range(10):
        key = await tokens.open_login(db, keyring, user)
        made = await tokens.collect(db, keyring, key, "")
        assert made
        looks = [tokens.collect(db, keyring, key, "") for _ in range(3)]
        results = await asyncio.gather(tokens.revoke(db, MemoryNudges(), user, made.uuid), *looks)
        del results
        assert await tokens.collect(db, keyring, key, "") is None
        with pytest.raises(Unauthenticated):
            await tokens.identify(db, keyring, made.token)
    rows = await db.read(sa.select(sa.func.count()).select_from(Token))
    assert rows[0][0] == 0


def test_a_token_follows_from_keyring_and_key(tmp_path: Path) -> None:
    first, second = Keyring.create(tmp_path / "a"), Keyring.create(tmp_path / "b")
    made = {tokens.derive_token(ring, key) for ring in (first, second) for key in ("k1", "k2")}
    assert len(made) == 4
    assert {len(token) for token in made} == {128}
    assert tokens.derive_token(first, "k1") == tokens.derive_token(Keyring.load(tmp_path / "a"), "k1")


@pytest.mark.parametrize(
    ("username", "id"),
    [
        ("alice", "alice"),
        ("Alice.Doe@example.com", "alicedoeexamplecom"),
        ("bob", "bob00"),
        ("@+-", "00000"),
        ("drycc", "drycc1"),
        ("default", "default1"),
        ("x" * 150, "x" * 140),
    ],
)
async def test_a_personal_workspace_is_made_once(db: Database, username: str, id: str) -> None:
    user, other = await add_user(db, username), await add_user(db, username.swapcase() + "-")

    def ensure(who: Identity) -> Callable[[AsyncSession], Awaitable[str]]:
        return lambda session: workspaces.ensure_personal(session, who)

    assert await db.write(ensure(user)) == id
    second = await db.write(ensure(other))
    assert second != id
    assert await db.write(ensure(user)) == id
    rows = await db.read(sa.select(Workspace.id).order_by(Workspace.id))
    assert {row.id for row in rows} == {id, second}
