"""Accounts, passwords, and how many tries there are."""

import re
from statistics import median
from time import process_time

import pytest

from drycc.backends.db import Database
from drycc.core import identity
from drycc.core.identity import NOBODY, Throttle
from drycc.errors import Conflict, Invalid, NotFound, Throttled
from drycc.kit.crypto import hash_password

PASSWORD = "correct horse battery"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def log_in(
    db: Database, name: str, password: str, throttle: Throttle | None = None
) -> identity.Identity:
    return await identity.log_in(db, throttle or Throttle(), name, password, "192.0.2.1")


async def test_an_account_and_its_passwords(db: Database) -> None:
    assert await identity.create_user(db, "admin", PASSWORD, is_superuser=True)
    assert not await identity.create_user(db, "admin", "another", if_absent=True)
    with pytest.raises(Conflict, match="already exists"):
        await identity.create_user(db, "admin", "another")
    found = await log_in(db, "admin", PASSWORD)
    assert (found.username, found.is_superuser, found.is_active) == ("admin", True, True)
    assert PASSWORD not in repr(await identity.list_users(db))

    await identity.set_password(db, "admin", "new  one ")
    for wrong in (PASSWORD, "new  one", "another"):
        with pytest.raises(Invalid, match="Unable to log in with provided credentials"):
            await log_in(db, "admin", wrong)
    assert await log_in(db, "admin", "new  one ") == found
    with pytest.raises(NotFound, match="No User matches"):
        await identity.set_password(db, "nobody", PASSWORD)
    with pytest.raises(Invalid, match="1 to 4096"):
        await identity.set_password(db, "admin", "")
    assert [user.username for user in await identity.list_users(db)] == ["admin"]


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a\n", "x" * 151, "a:b"])
async def test_names_that_nobody_may_have(name: str) -> None:
    with pytest.raises(Invalid, match="Enter a valid username") as refused:
        await identity.create_user(Database("sqlite+aiosqlite:////no/such/file"), name, PASSWORD)
    assert refused.value.field == "username"


async def test_an_unknown_name_takes_as_long_as_a_wrong_password(db: Database) -> None:
    """The hash that stands for nobody has the parameters of a real one."""
    parameters = re.compile(r"\$argon2id\$v=\d+\$m=\d+,t=\d+,p=\d+\$")
    real = await hash_password("x")
    assert parameters.match(NOBODY).group() == parameters.match(real).group()  # type: ignore[union-attr]
    await identity.create_user(db, "carol", PASSWORD)

    async def measure(name: str) -> float:
        started = process_time()
        with pytest.raises(Invalid, match="Unable to log in"):
            await log_in(db, name, "wrong")
        return process_time() - started

    known = median([await measure("carol") for _ in range(7)])
    unknown = median([await measure("nobody") for _ in range(7)])
    assert 0.5 < known / unknown < 2


def test_ten_tries_in_ten_minutes() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    for _ in range(10):
        throttle.take("account carol", "address a")
        clock.now += 1
    with pytest.raises(Throttled) as refused:
        throttle.take("account carol", "address b")
    assert refused.value.seconds == 590
    with pytest.raises(Throttled):
        throttle.take("account dave", "address a")
    throttle.take("account dave", "address b")  # what was refused has counted nowhere
    clock.now += 590
    throttle.take("account carol", "address a")
    with pytest.raises(Throttled):
        throttle.take("account carol", "address a")


def test_a_success_clears_the_account_and_the_table_is_bounded() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    for _ in range(9):
        throttle.take("account carol")
    throttle.forget("account carol")
    for _ in range(10):
        throttle.take("account carol")
    for number in range(identity.MOST_KEYS + 5):
        throttle.take(f"account {number}")
    assert len(throttle._attempts) == identity.MOST_KEYS
    throttle.take("account carol")


async def test_a_throttled_login_is_not_hashed(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []

    async def count(known: str, password: str) -> bool:
        hashed.append(password)
        return False

    monkeypatch.setattr(identity, "is_password", count)
    throttle = Throttle()
    for number in range(20):
        with pytest.raises((Invalid, Throttled)):
            await log_in(db, "carol", f"guess {number}", throttle)
    assert len(hashed) == 10


def test_a_made_up_password_is_long() -> None:
    assert re.fullmatch("[a-zA-Z0-9]{20}", identity.make_password())
    assert identity.make_password() != identity.make_password()
