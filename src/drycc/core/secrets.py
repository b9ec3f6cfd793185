"""Secrets at rest: a keyring file that wraps one data key per app, and keyed digests."""

import json
import os
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Protocol
from uuid import UUID

from drycc.errors import Conflict, Unavailable
from drycc.kit.crypto import SealBroken, digest, seal, unseal
from drycc.kit.files import create_whole

ID_LENGTH = 8  # hex digits of a key's id, in front of everything it wraps
SHORTEST_MASKED = 6  # shorter values would mask ordinary words


class HasDataKey(Protocol):
    @property
    def uuid(self) -> UUID: ...
    @property
    def data_key(self) -> bytes: ...


class Keyring:
    """Keys of 32 bytes by id; the newest wraps, all of them unwrap."""

    def __init__(self, keys: dict[str, bytes], newest: str, digest_key: bytes) -> None:
        self._keys = keys
        self._newest = newest
        self._digest_key = digest_key

    @classmethod
    def load(cls, path: Path) -> "Keyring":
        """Raises `Conflict` for a file that is no keyring or cannot be read."""
        try:
            data = json.loads(path.read_bytes())
            keys = {id: b64decode(key, validate=True) for id, key in data["keys"].items()}
            found = cls(keys, data["newest"], b64decode(data["digest"], validate=True))
        except OSError as error:
            raise Conflict(f"the keyring {path} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Conflict(f"{path} is no keyring: put back the one that was there") from None
        if data["newest"] not in keys:
            raise Conflict(f"the keyring {path} lacks its newest key: put back the one that was there")
        return found

    @classmethod
    def create(cls, path: Path) -> "Keyring":
        """Write a new keyring, readable by us alone; an existing file is never touched."""
        id = os.urandom(ID_LENGTH // 2).hex()
        content = {"newest": id, "keys": {id: _random_key()}, "digest": _random_key()}
        path.parent.mkdir(parents=True, exist_ok=True)
        create_whole(path, json.dumps(content).encode())
        return cls.load(path)

    @property
    def ids(self) -> list[str]:
        """Of all keys; a backup refers to them."""
        return sorted(self._keys)

    def has(self, wrapped: bytes) -> bool:
        """Whether the key that wrapped this is here."""
        return wrapped[:ID_LENGTH].decode("ascii", "replace") in self._keys

    def digest(self, text: str) -> bytes:
        """What is stored instead of a token, and looked up by."""
        return digest(self._digest_key, text)

    def new_data_key(self, app: UUID) -> bytes:
        """A new data key, wrapped, for that app only."""
        wrapped = seal(self._keys[self._newest], os.urandom(32), _wrap_place(app))
        return self._newest.encode() + wrapped

    def seal(self, app: HasDataKey, data: bytes, place: str) -> bytes:
        """Encrypt with the app's data key; `place` is table, column and row."""
        return seal(self._unwrap(app), data, f"{app.uuid}/{place}")

    def unseal(self, app: HasDataKey, sealed: bytes, place: str) -> bytes:
        """Raises `SealBroken` when the bytes were changed or stand in another place."""
        return unseal(self._unwrap(app), sealed, f"{app.uuid}/{place}")

    def _unwrap(self, app: HasDataKey) -> bytes:
        key = self._keys.get(app.data_key[:ID_LENGTH].decode("ascii", "replace"))
        if key is None:
            raise Unavailable("the key that encrypts this app's secrets is not in the keyring")
        return unseal(key, app.data_key[ID_LENGTH:], _wrap_place(app.uuid))


def mask(text: str, values: Iterable[str]) -> str:
    """The line of text without these values, also where they overlap, and without passwords in URLs.

    Of a value of several lines, each line is one.
    """
    hidden = bytearray(len(text))
    for secret in {line.strip() for value in values for line in value.split("\n")}:
        at = text.find(secret) if len(secret) >= SHORTEST_MASKED else -1
        while at >= 0:
            hidden[at : at + len(secret)] = b"1" * len(secret)
            at = text.find(secret, at + 1)
    if any(hidden):
        pairs = groupby(zip(text, hidden, strict=True), key=itemgetter(1))
        text = "".join("[masked]" if is_hidden else "".join(c for c, _ in run) for is_hidden, run in pairs)
    return _URL_PASSWORD.sub(r"\1[masked]@", text)


_URL_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s@]+@", re.IGNORECASE)


def _random_key() -> str:
    return b64encode(os.urandom(32)).decode()


def _wrap_place(app: UUID) -> str:
    return f"{app}/apps.data_key"


__all__ = ["Keyring", "SealBroken", "mask"]
