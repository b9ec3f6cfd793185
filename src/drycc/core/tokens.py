"""API tokens: collected with the one-time key of a login, kept as digests, revoked at once."""

import secrets
import string
from dataclasses import dataclass, field
from uuid import UUID
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends.db import Database, db_now
from drycc.backends.nudges.base import Nudges
from drycc.core import workspaces
from drycc.core.identity import COLUMNS, Identity
from drycc.core.models import Login, Token, User
from drycc.core.secrets import Keyring
from drycc.errors import NotFound, Unauthenticated
from drycc.kit.ids import now

TOPIC = "tokens"
LOGIN_LIFE = 1800  # seconds
LONGEST_ALIAS = 32
MOST_KNOWN = 10_000
HEX = "0123456789abcdef0123456789ABCDEF"  # a digit of 16 with a random case


@dataclass(frozen=True, slots=True)
class Collected:
    uuid: UUID
    token: str = field(repr=False)
    username: str


@dataclass(slots=True)
class _Known:
    """Whom tokens speak for, remembered until anything is revoked; `age` counts revocations."""

    age: int = 0
    identities: dict[bytes, Identity] = field(default_factory=dict)


_known: WeakKeyDictionary[Database, _Known] = WeakKeyDictionary()


async def open_login(db: Database, keyring: Keyring, user: Identity) -> str:
    """A new one-time key: 32 hex digits with which a token can be collected for half an hour."""
    key = secrets.token_hex(16)

    async def body(session: AsyncSession) -> None:
        await session.execute(sa.delete(Login).where(Login.expires <= db_now(0)))
        expires = db_now(LOGIN_LIFE)
        session.add(Login(digest=_digest_login(keyring, key), user_id=user.id, expires=expires))
        await session.execute(sa.update(User).where(User.id == user.id).values(last_login=now()))

    await db.write(body)
    return key


async def collect(db: Database, keyring: Keyring, key: str, alias: str) -> Collected | None:
    """The token of a login; None while there is no such login.

    The token follows from the key, so asking again gives the same one, of which there is one row.
    """
    login = _digest_login(keyring, key)
    token = derive_token(keyring, key)
    found = await db.read_one(_collected, login=login, token=keyring.digest(token))
    if found is None:
        return None
    uuid = found.uuid or await _record(db, keyring, login, token, _clean(alias))
    return Collected(uuid, token, found.username) if uuid else None


async def identify(db: Database, keyring: Keyring, token: str) -> Identity:
    """Whom the token speaks for; raises `Unauthenticated`."""
    known = _known.setdefault(db, _Known())
    digest = keyring.digest(token)
    identity = known.identities.get(digest) or await _look_up(db, known, digest)
    if not identity.is_active:
        raise Unauthenticated("User inactive or deleted.")
    return identity


async def authenticate(db: Database, keyring: Keyring, header: bytes | None) -> Identity | None:
    """Read an `Authorization` header; None for no credentials, `Unauthenticated` for bad ones."""
    scheme, *words = (header or b"").split() or [b""]
    if scheme.lower() == b"bearer":
        raise Unauthenticated("Verify token fail.", scheme="bearer")
    if scheme.lower() != b"token":
        return None
    if not words:
        raise Unauthenticated("Invalid token header. No credentials provided.")
    if len(words) > 1:
        raise Unauthenticated("Invalid token header. Token string should not contain spaces.")
    if not words[0].isascii():
        text = "Invalid token header. Token string should not contain invalid characters."
        raise Unauthenticated(text)
    return await identify(db, keyring, words[0].decode())


async def revoke(db: Database, nudges: Nudges, user: Identity, uuid: UUID) -> None:
    """End a token of the user's; raises `NotFound`. Open logins go too: no key collects it again."""

    async def body(session: AsyncSession) -> None:
        token = await session.get(Token, uuid)
        if token is None or token.user_id != user.id:
            raise NotFound("No Token matches the given query.")
        await session.delete(token)
        await session.execute(sa.delete(Login).where(Login.user_id == user.id))

    await db.write(body)
    forget(db)
    await nudges.send(TOPIC, str(uuid))


def forget(db: Database) -> None:
    """Something was revoked: whom tokens speak for is looked up again."""
    known = _known.setdefault(db, _Known())
    known.age += 1
    known.identities.clear()


def derive_token(keyring: Keyring, key: str) -> str:
    """128 characters that only the keyring and the login's key give: 32 hex digits, 96 letters."""
    number = int.from_bytes(b"".join(keyring.digest(f"token {part} {key}") for part in range(4)))
    characters = []
    for alphabet in [HEX] * 32 + [string.ascii_letters] * 96:
        number, index = divmod(number, len(alphabet))
        characters.append(alphabet[index])
    return "".join(characters)


async def _look_up(db: Database, known: _Known, digest: bytes) -> Identity:
    age = known.age
    row = await db.read_one(_owner, digest=digest)
    if row is None:
        raise Unauthenticated("Invalid token.")
    identity = Identity(*row)
    if known.age == age:
        if len(known.identities) >= MOST_KNOWN:
            known.identities.clear()
        known.identities[digest] = identity
    return identity


async def _record(db: Database, keyring: Keyring, login: bytes, token: str, alias: str) -> UUID | None:
    digest = keyring.digest(token)

    async def body(session: AsyncSession) -> UUID | None:
        row = (await session.execute(_open_login, {"login": login})).first()
        if row is None:  # revoked between the look and the write
            return None
        user = Identity(*row)
        await workspaces.ensure_personal(session, user)
        found = await session.scalar(sa.select(Token.uuid).where(Token.digest == digest))
        if found is None:
            made = Token(user_id=user.id, alias=alias, digest=digest, fuzzy_key=_shorten(token))
            session.add(made)
            await session.flush()
            found = made.uuid
        return found

    return await db.write(body)


def _digest_login(keyring: Keyring, key: str) -> bytes:
    return keyring.digest(f"login {key}")


def _clean(alias: str) -> str:
    """Cut rather than refused: the client takes every refusal for "not yet" and asks for ten minutes."""
    return "".join(char for char in alias if char.isprintable())[:LONGEST_ALIAS]


def _shorten(token: str) -> str:
    return f"{token[:14]}...{token[-14:]}"


_is_open = sa.and_(Login.digest == sa.bindparam("login"), Login.expires > db_now(0), User.is_active)
_open_login = (
    sa.select(*COLUMNS).join(Login, Login.user_id == User.id).where(_is_open).with_for_update(of=Login)
)
_collected = (
    sa.select(User.username, Token.uuid)
    .join(Login, Login.user_id == User.id)
    .outerjoin(Token, Token.digest == sa.bindparam("token"))
    .where(_is_open)
)
_owner = (
    sa.select(*COLUMNS).join(Token, Token.user_id == User.id).where(Token.digest == sa.bindparam("digest"))
)
