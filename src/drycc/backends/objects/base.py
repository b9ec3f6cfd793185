"""The ObjectStore port."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Protocol


class ObjectStore(Protocol):
    async def put(self, key: str, data: AsyncIterator[bytes]) -> int:
        """Store whole and durably, or not at all; gives the size in bytes. An existing object is replaced."""

    async def path(self, key: str) -> Path:
        """A local file with the object's bytes, for reading only; raises `NotFound`."""

    async def list(self, prefix: str) -> Sequence[str]:
        """Keys that begin with the prefix, sorted."""

    async def delete(self, key: str) -> None:
        """Forget the object; an unknown key is fine."""
