"""Secrets at rest: a keyring file that wraps one data key per app, and keyed digests."""

import json
import os
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol
from uuid import UUID

from drycc.errors import Unavailable
from drycc.kit.crypto import SealBroken, digest, seal, unseal
from drycc.kit.disk import guarded, write_secret

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
        data = json.loads(path.read_text())
        keys = {id: b64decode(key) for id, key in data["keys"].items()}
        return cls(keys, data["newest"], b64decode(data["digest"]))

    @classmethod
    def create(cls, path: Path) -> "Keyring":
        """Write a new keyring, readable by us alone; an existing file is never touched."""
        id = os.urandom(ID_LENGTH // 2).hex()
        content = {"newest": id, "keys": {id: _random_key()}, "digest": _random_key()}
        with guarded():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_secret(path, json.dumps(content).encode())
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
    """The text without these values and without passwords in URLs."""
    for value in values:
        if len(value) >= SHORTEST_MASKED and value in text:
            text = text.replace(value, "[masked]")
    return _URL_PASSWORD.sub(r"\1[masked]@", text)


_URL_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s@]+@", re.IGNORECASE)


def _random_key() -> str:
    return b64encode(os.urandom(32)).decode()


def _wrap_place(app: UUID) -> str:
    return f"{app}/apps.data_key"


__all__ = ["Keyring", "SealBroken", "mask"]
