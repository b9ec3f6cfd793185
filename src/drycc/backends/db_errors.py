"""What stands against a database, said in a sentence: away, locked, full, or of no use to us."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection

from drycc.errors import NoSpace, Unavailable

AWAY = "the database does not answer, try again later"
LOCKED = "the database is locked by another process, try again later"
NO_SPACE = "no space is left for the database; the same works again when there is some"

_SQLITE = {
    sqlite3.SQLITE_BUSY: Unavailable(LOCKED),
    sqlite3.SQLITE_LOCKED: Unavailable(LOCKED),
    sqlite3.SQLITE_IOERR: Unavailable(AWAY),
    sqlite3.SQLITE_CANTOPEN: Unavailable(AWAY),
    sqlite3.SQLITE_FULL: NoSpace(NO_SPACE),
}
_SQLITE_BROKEN = frozenset(
    {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}
)
_POSTGRESQL_FULL = "53100"
_POSTGRESQL_AWAY = ("08", "53", "57", "58")  # connection, resources, operator or timeout, system
_POSTGRESQL_BROKEN = ("28", "3D")  # not with this name and password, no such database


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Raise `Unavailable` or `NoSpace` for what is no fault of the statement's."""
    try:
        yield
    except Exception as error:
        if trouble := _find_trouble(error):
            raise type(trouble)(*trouble.args) from error
        raise


def _find_trouble(error: Exception) -> Unavailable | None:
    if isinstance(error, NoConnection | OSError | TimeoutError):
        return Unavailable(AWAY)
    cause = error.orig if isinstance(error, DBAPIError) else error
    if _is_unusable(cause):  # waiting helps nothing
        return Unavailable(f"the database cannot be used: {(cause and cause.__cause__) or cause}")
    if (code := _sqlite_code(cause)) is not None:
        return _SQLITE.get(code)
    state = _sql_state(cause)
    if state == _POSTGRESQL_FULL:
        return NoSpace(NO_SPACE)
    return Unavailable(AWAY) if state.startswith(_POSTGRESQL_AWAY) or _is_gone(error) else None


def _is_gone(error: Exception) -> bool:
    if isinstance(error, OperationalError | InterfaceError):
        return True
    return isinstance(error, DBAPIError) and error.connection_invalidated


def _is_unusable(cause: BaseException | None) -> bool:
    return _sqlite_code(cause) in _SQLITE_BROKEN or _sql_state(cause).startswith(_POSTGRESQL_BROKEN)


def _sqlite_code(cause: BaseException | None) -> int | None:
    code: int | None = getattr(cause, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _sql_state(cause: BaseException | None) -> str:
    return getattr(cause, "sqlstate", None) or ""
