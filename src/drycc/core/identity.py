"""Users, and who an asker is: accounts, passwords, and the throttle in front of them."""

import re
import secrets
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends.db import Database
from drycc.core.models import User
from drycc.errors import Conflict, Invalid, NotFound, Throttled
from drycc.kit.crypto import hash_password, is_password

USERNAME = re.compile(r"[\w.@+-]{1,150}")
LONGEST_PASSWORD = 4096
MOST_ATTEMPTS = 10
WINDOW = 600.0  # seconds
MOST_KEYS = 10_000
# A hash that no password has, so that a login as nobody takes as long as any other.
NOBODY = "$argon2id$v=19$m=32768,t=2,p=1$bm9ib2R5LWF0LWFsbCE$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


@dataclass(frozen=True, slots=True)
class Identity:
    """A user as far as permissions go."""

    id: int
    username: str
    is_superuser: bool = False
    is_staff: bool = False
    is_active: bool = True


COLUMNS = (User.id, User.username, User.is_superuser, User.is_staff, User.is_active)


class Throttle:
    """Attempts by account and by address within the last minutes; the oldest are forgotten first."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._attempts: dict[str, list[float]] = {}

    def take(self, *keys: str) -> None:
        """Count an attempt under each key; raises `Throttled` when one of them has had its share."""
        now = self._clock()
        recent = {key: [at for at in self._attempts.get(key, ()) if now - at < WINDOW] for key in keys}
        for attempts in recent.values():
            if len(attempts) >= MOST_ATTEMPTS:
                seconds = WINDOW - (now - attempts[0])
                text = f"Request was throttled. Expected available in {seconds:.0f} seconds."
                raise Throttled(text, seconds=seconds)
        for key, attempts in recent.items():
            self._attempts.pop(key, None)
            self._attempts[key] = [*attempts, now]
        while len(self._attempts) > MOST_KEYS:
            del self._attempts[next(iter(self._attempts))]

    def forget(self, *keys: str) -> None:
        """The last attempt succeeded: nothing stands against these keys any more."""
        for key in keys:
            self._attempts.pop(key, None)


async def log_in(db: Database, throttle: Throttle, username: str, password: str, address: str) -> Identity:
    """Who has this name and password; raises `Invalid` with one text for every reason, or `Throttled`."""
    account, source = f"account {username}", f"address {address}"
    throttle.take(account, source)
    row = await db.read_one(_with_password, username=username)
    is_right = await is_password(row.password if row else NOBODY, password[:LONGEST_PASSWORD])
    if row is None or not is_right or not row.is_active:
        raise Invalid("Unable to log in with provided credentials.", field="non_field_errors")
    throttle.forget(account, source)
    return Identity(row.id, row.username, row.is_superuser, row.is_staff, row.is_active)


async def create_user(
    db: Database, username: str, password: str, *, is_superuser: bool = False, if_absent: bool = False
) -> bool:
    """Add an account; says whether it is new. An existing one is a `Conflict` without `if_absent`."""
    if not USERNAME.fullmatch(username):
        text = (
            "Enter a valid username. This value may contain only letters, numbers and @/./+/-/_ characters."
        )
        raise Invalid(text, field="username")
    hashed = await _hash(password)

    async def body(session: AsyncSession) -> None:
        user = User(username=username, password=hashed, is_superuser=is_superuser, is_staff=is_superuser)
        session.add(user)

    try:
        await db.write(body)
    except IntegrityError:
        if if_absent:
            return False
        raise Conflict("A user with that username already exists.") from None
    return True


async def set_password(db: Database, username: str, password: str) -> None:
    """Replace the password. Tokens stay valid: they are revoked one by one."""
    hashed = await _hash(password)

    async def body(session: AsyncSession) -> None:
        changed = sa.update(User).where(User.username == username).values(password=hashed)
        if (await session.execute(changed.returning(User.id))).first() is None:
            raise NotFound("No User matches the given query.")

    await db.write(body)


def make_password() -> str:
    """A password of 20 letters and digits."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(20))


async def list_users(db: Database) -> Sequence[sa.Row[Any]]:
    """All accounts by name, with their flags."""
    return await db.read(_users)


async def _hash(password: str) -> str:
    if not 0 < len(password) <= LONGEST_PASSWORD:
        raise Invalid(f"A password has 1 to {LONGEST_PASSWORD} characters.", field="password")
    return await hash_password(password)


_with_password = sa.select(*COLUMNS, User.password).where(User.username == sa.bindparam("username"))
_users = sa.select(*COLUMNS, User.email, User.last_login, User.date_joined).order_by(User.username)
