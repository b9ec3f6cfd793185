"""SSH public keys: read, identified by fingerprint, found by the builder."""

import hashlib
import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends.db import Database
from drycc.core.identity import COLUMNS, Identity
from drycc.core.models import Key, User
from drycc.errors import Invalid, NotFound

TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
LONGEST = 16_384  # characters
SHORTEST_RSA = 2048  # bits
IN_USE = "Public Key is already in use"
BAD_BASE64 = "Key contains invalid base64 chars"
USE_INSTEAD = "make one with `ssh-keygen -t ed25519`"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """`text` is trimmed; `md5` is shown to users, `sha256` is what `ssh-keygen -l` prints."""

    text: str
    sha256: str
    md5: str


def parse(text: str) -> PublicKey:
    """One line of a `.pub` file; raises `Invalid` for anything that no client could log in with."""
    text = text.strip()
    kind, blob = _split(text)
    _check(kind, blob)
    digest = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    sha256 = b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return PublicKey(text, f"SHA256:{sha256}", ":".join(re.findall("..", digest)))


async def add(db: Database, user: Identity, id: str, public: str) -> Key:
    """Keep a key under an id; raises `Invalid` when either is taken, by whomever."""
    key = parse(public)
    made = Key(id=id, user_id=user.id, public=key.text, sha256=key.sha256, fingerprint=key.md5)

    async def body(session: AsyncSession) -> None:
        session.add(made)

    try:
        await db.write(body)
    except IntegrityError:
        if await db.read_one(_by_sha256, sha256=key.sha256):
            raise Invalid(IN_USE, field="public") from None
        raise Invalid("SSH Key with this id already exists.", field="id") from None
    return made


async def remove(db: Database, user: Identity, id: str) -> None:
    """Forget a key of the user's; raises `NotFound`."""

    async def body(session: AsyncSession) -> None:
        gone = sa.delete(Key).where(Key.id == id, Key.user_id == user.id).returning(Key.uuid)
        if (await session.execute(gone)).first() is None:
            raise NotFound("No Key matches the given query.")

    await db.write(body)


async def list_of_user(db: Database, username: str) -> Sequence[sa.Row[Any]]:
    """Id, type and comment (`public`) and fingerprints of a user's keys, by id."""
    return await db.read(_of_user, username=username)


async def find_owner(db: Database, sha256: str) -> Identity | None:
    """The active user whose key has this fingerprint, `SHA256:…` as OpenSSH writes it."""
    row = await db.read_one(_owner, sha256=sha256)
    return Identity(*row) if row else None


def _split(text: str) -> tuple[str, bytes]:
    if len(text) > LONGEST or not text.isprintable():
        raise Invalid("Give one key on one line: type, base64 text, comment.", field="public")
    kind, *words = text.split() or [""]
    if kind not in TYPES and any(word in TYPES for word in words):
        raise Invalid("Options in front of a key are not supported; give the key alone.", field="public")
    if kind == "ssh-dss":
        raise Invalid(f"DSA keys are no longer safe; {USE_INSTEAD}", field="public")
    try:
        blob = b64decode(words[0], validate=True) if words else b""
    except Base64Error:
        blob = b""
    if not blob:
        raise Invalid(BAD_BASE64, field="public")
    if kind not in TYPES:
        raise Invalid(f"{kind[:40]} is no supported type of key; {USE_INSTEAD}", field="public")
    return kind, blob


def _check(kind: str, blob: bytes) -> None:
    try:
        key = load_ssh_public_key(f"{kind} {b64encode(blob).decode()}".encode())
    except (ValueError, UnsupportedAlgorithm):
        raise Invalid(f"This is no complete {kind} key; give the whole .pub file", field="public") from None
    if isinstance(key, RSAPublicKey) and key.key_size < SHORTEST_RSA:
        text = f"An RSA key needs {SHORTEST_RSA} bits, this one has {key.key_size}; {USE_INSTEAD}"
        raise Invalid(text, field="public")


_by_sha256 = sa.select(Key.uuid).where(Key.sha256 == sa.bindparam("sha256"))
_owner = (
    sa.select(*COLUMNS)
    .join(Key, Key.user_id == User.id)
    .where(Key.sha256 == sa.bindparam("sha256"), User.is_active)
)
_of_user = (
    sa.select(Key.id, Key.public, Key.sha256, Key.fingerprint)
    .join(User, User.id == Key.user_id)
    .where(User.username == sa.bindparam("username"))
    .order_by(Key.id)
)
