"""Names and numbers that must not repeat, and digests of them."""

import hashlib
import secrets
import string
from datetime import UTC, datetime


def letters(count: int) -> str:
    return "".join(secrets.choice(string.ascii_lowercase) for _ in range(count))


def app_name() -> str:
    """A generated app id: six letters, a hyphen, eight letters."""
    return f"{letters(6)}-{letters(8)}"


def suffix(count: int = 5) -> str:
    """Lower-case letters and digits, for the last part of a pod's name."""
    return "".join(secrets.choice("bcdfghjklmnpqrstvwxz2456789") for _ in range(count))


def short_hash(*parts: str, length: int = 9) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:length]


def now() -> datetime:
    return datetime.now(UTC)


def stamp(moment: datetime | None) -> str | None:
    """`YYYY-MM-DDTHH:MM:SSZ`, the only form in which the API writes a time."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None
