"""The manifest: what a backup consists of, when and where it was made, and which keys it needs."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath

from drycc.errors import Conflict, Invalid

FILE = "manifest.json"
FORMAT = 1
DATABASE = "database.zst"
OBJECTS, OBJECT = "objects/", ".zst"  # objects/<key>.zst
TREE = ".tar.zst"  # <directory below the data directory>.tar.zst


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a backup as it is stored."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    at: str  # the moment that the rows are of
    version: str  # of the program
    revision: str  # of the database's schema
    data: str  # the data directory: virtual environments work there alone
    keyring: str  # where it was
    keys: list[str]  # ids of its keys
    access: int  # bytes of access lines that the apps' logs have, or gave up
    parts: Mapping[str, Part]

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts.values())

    def count(self, directory: str) -> int:
        """Parts below this directory."""
        return sum(name.startswith(f"{directory}/") for name in self.parts)


def dump(manifest: Manifest) -> bytes:
    body = asdict(manifest)
    return json.dumps({"format": FORMAT, "sha256": _digest(body), "backup": body}, indent=1).encode()


def parse(data: bytes) -> Manifest:
    """Raises `Invalid` unless every byte that matters is as it was written, `Conflict` for a newer format."""
    try:
        content = json.loads(data)
        if content["format"] != FORMAT:
            raise Conflict(f"the backup has format {content['format']}: install the newer dryccd")
        body = content["backup"]
        if content["sha256"] != _digest(body):
            raise ValueError
        parts = {_checked(name): Part(**part) for name, part in body["parts"].items()}
        return Manifest(**body | {"parts": parts})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Invalid("the backup's manifest is damaged") from None


def _digest(body: object) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _checked(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or str(path) != name:
        raise ValueError(name)
    return name
