"""The two doors to the database, `read` and `write`, on SQLite and PostgreSQL, and its migration.

This is the only module that may ask which database it is.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import Any, TypeVar
from uuid import UUID

import aiosqlite
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Dialect, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

from drycc.backends.db_errors import translated
from drycc.errors import Conflict, Invalid, NoSpace, NotFound, Unavailable

T = TypeVar("T")
MIGRATION_LOCK = 0x64727963  # any number of ours
MIGRATION_WAIT = 30.0  # seconds for which one process waits for another's migration
CLOSING = 1.0  # seconds for a connection's thread to end
BUSY_MS = 5_000  # for which one writer may keep the next waiting
# A process that stands still in the midst of a write, even of a statement, must not hold its rows.
_STILL = ("idle_in_transaction_session_timeout", "statement_timeout")
TURN_WITHIN = 10.0  # seconds in which a statement must get a connection
ANSWER_WITHIN = 30.0  # seconds for a server to answer a statement
CONNECT_WITHIN = 10.0  # seconds for a server to take a connection
REFUSAL_COUNTS = 10.0  # seconds for which a write that was refused speaks against readiness
WAL_BYTES = 64 * 1024 * 1024  # to which SQLite's log shrinks when it begins anew: its bound
_writing: ContextVar[bool] = ContextVar("writing", default=False)


class Timestamp(sa.types.TypeDecorator[datetime]):
    """An aware UTC time on both databases."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value


class db_now(GenericFunction[datetime]):
    """The database's clock with `seconds` added: what every lease is measured by."""

    type = Timestamp()
    inherit_cache = True
    name = "db_now"


@compiles(db_now, "sqlite")
def _sqlite_now(element: db_now, compiler: SQLCompiler, **options: Any) -> str:
    (seconds,) = element.clauses
    added = compiler.process(seconds, **options)
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', ({added}) || ' seconds')"


@compiles(db_now, "postgresql")
def _postgresql_now(element: db_now, compiler: SQLCompiler, **options: Any) -> str:
    (seconds,) = element.clauses
    added = compiler.process(seconds, **options)
    return f"(clock_timestamp() + make_interval(secs => ({added})::float8))"


class Database:
    """Two pools over one database: reads that commit each statement, and writes one after another."""

    def __init__(self, url: str) -> None:
        self.url = _parse_url(url)
        self._threads: list[Thread] = []
        if self.is_sqlite:
            self._reads = create_async_engine(
                self.url, isolation_level="AUTOCOMMIT", pool_size=4, hide_parameters=True
            )
            self._writes = create_async_engine(
                self.url, pool_size=1, max_overflow=0, pool_timeout=TURN_WITHIN, hide_parameters=True
            )
            for engine in self.engines:
                event.listen(engine.sync_engine, "do_connect", self._open_sqlite)
            event.listen(self._reads.sync_engine, "connect", _prepare_sqlite_reader)
            event.listen(self._writes.sync_engine, "connect", _prepare_sqlite_writer)
            event.listen(self._writes.sync_engine, "begin", _begin_immediate)
        else:
            pool: dict[str, Any] = {"pool_size": 8, "pool_pre_ping": True, "pool_timeout": TURN_WITHIN}
            self._reads = create_async_engine(
                self.url,
                isolation_level="AUTOCOMMIT",
                hide_parameters=True,
                pool_reset_on_return=None,
                connect_args=_bounds({"default_transaction_read_only": "on"}),
                **pool,
            )
            self._writes = create_async_engine(
                self.url,
                hide_parameters=True,
                connect_args=_bounds(dict.fromkeys(_STILL, str(BUSY_MS))),
                **pool,
            )
        self._refusal: tuple[float, Unavailable] | None = None

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    async def read(self, statement: sa.Executable, **values: Any) -> Sequence[sa.Row[*tuple[Any, ...]]]:
        """All rows of one statement, which sees every commit before it; it cannot write."""
        async with translated(), self._reads.connect() as connection:
            return (await connection.execute(statement, values)).all()

    async def read_one(self, statement: sa.Executable, **values: Any) -> sa.Row[*tuple[Any, ...]] | None:
        """The first row, or None."""
        rows = await self.read(statement, **values)
        return rows[0] if rows else None

    async def write(self, body: Callable[[AsyncSession], Awaitable[T]], *, app: UUID | None = None) -> T:
        """Run `body(session)` in one transaction that a cancelled caller does not interrupt.

        With `app` that app's row is locked first; `NotFound` when there is none. `body` awaits
        nothing but statements, and opens no second write: that raises at once.
        """
        if _writing.get():
            raise RuntimeError("a write is already open in this task")
        task = asyncio.create_task(self._write(body, app))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task])
            if not task.cancelled():
                task.exception()  # seen; the caller is gone
            raise

    async def _write(self, body: Callable[[AsyncSession], Awaitable[T]], app: UUID | None) -> T:
        _writing.set(True)
        async with (
            self._noted(),
            translated(),
            AsyncSession(self._writes, expire_on_commit=False) as session,
            session.begin(),
        ):
            if app is not None:
                await self._lock_app(session, app)
            return await body(session)

    async def _lock_app(self, session: AsyncSession, app: UUID) -> None:
        lock = "" if self.is_sqlite else " for no key update"
        statement = sa.text(f"select 1 from apps where uuid = :uuid{lock}")  # noqa: S608 - no input in it
        found = await session.execute(statement.bindparams(sa.bindparam("uuid", app, sa.Uuid())))
        if found.first() is None:
            raise NotFound("No App matches the given query.")

    @asynccontextmanager
    async def _noted(self) -> AsyncIterator[None]:
        """Keep what stood against the latest write, where reads go on all the same."""
        try:
            yield
        except Unavailable as error:
            if self.is_sqlite or isinstance(error, NoSpace):
                self._refusal = monotonic(), error
            raise
        if self._refusal and not isinstance(self._refusal[1], NoSpace):  # there is always space for nothing
            self._refusal = None

    async def ping(self) -> None:
        """Raises `Unavailable` when the database does not answer, or took no write a moment ago."""
        await self.read(sa.select(sa.literal(1)))
        if self._refusal and monotonic() - self._refusal[0] < REFUSAL_COUNTS:
            raise Unavailable(str(self._refusal[1]))

    async def end_silent(self) -> None:
        """End our sessions that are silent in the midst of a statement: their process stands still.

        PostgreSQL ends by itself those that are silent between two statements only, see `_STILL`.
        """
        if not self.is_sqlite:
            await self.read(_silent, seconds=BUSY_MS / 1000)

    async def revision(self) -> str | None:
        """The schema's revision, None for an empty database."""
        async with translated(), self._reads.connect() as connection:
            return await connection.run_sync(_revision)

    async def migrate(self, scripts: Path) -> None:
        """Bring the schema to the newest revision; of several that try at once, one does it.

        Raises `Conflict` when the schema is newer than `scripts`.
        """
        if self.is_sqlite and self.url.database:
            await asyncio.to_thread(Path(self.url.database).parent.mkdir, parents=True, exist_ok=True)
        async with translated(), asyncio.timeout(MIGRATION_WAIT):
            while not is_migrated(await self.revision(), scripts):
                try:
                    async with translated(), self._migrating() as connection:
                        await connection.run_sync(_upgrade, scripts)
                except Unavailable as error:  # a new file that another process makes its own just now
                    if not self.is_sqlite or isinstance(error, NoSpace):
                        raise
                    await asyncio.sleep(0.1)

    @asynccontextmanager
    async def _migrating(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that one process at a time can hold, in which tables may be made anew."""
        if not self.is_sqlite:
            async with self._writes.begin() as connection:
                await connection.execute(sa.text("set local statement_timeout = 0"))
                await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
                yield connection
            return
        # Batch mode drops a table and makes it anew: with foreign keys on, what hangs on it would go too.
        engine = create_async_engine(self.url, poolclass=sa.NullPool, hide_parameters=True)
        event.listen(engine.sync_engine, "connect", _prepare_sqlite_migration)
        event.listen(engine.sync_engine, "begin", _begin_immediate)
        async with engine.begin() as connection:
            yield connection
            broken = (await connection.execute(sa.text("pragma foreign_key_check"))).all()
            if broken:
                raise Conflict(f"the migration would leave {len(broken)} rows that point at nothing")

    def file(self) -> Path:
        """Where the rows are; raises `Invalid` for a database on a server."""
        if not self.is_sqlite or not self.url.database:
            raise Invalid(
                "the rows are in PostgreSQL: back them up with pgBackRest or pg_dump; "
                "`dryccd backup` and `restore` are for the embedded database"
            )
        return Path(self.url.database)

    async def snapshot(self, target: Path) -> None:
        """Write all rows, as of one moment, to the new SQLite file `target`, while others read and write."""
        await asyncio.to_thread(_vacuum_into, self.file(), target)

    async def close(self) -> None:
        await self._reads.dispose()
        await self._writes.dispose()
        for thread in self._threads:
            await asyncio.to_thread(thread.join, CLOSING)

    def _open_sqlite(self, dialect: object, record: object, arguments: object, options: Any) -> None:
        """Know the connection's thread: one that could not connect still calls our loop as it ends."""

        def connect(*arguments: Any, **options: Any) -> aiosqlite.Connection:
            connection = aiosqlite.connect(*arguments, **options)
            connection._thread.daemon = True
            alive = [thread for thread in self._threads if thread.is_alive()]
            self._threads = [*alive, connection._thread]
            return connection

        options["async_creator_fn"] = connect

    @property
    def engines(self) -> tuple[AsyncEngine, AsyncEngine]:
        return self._reads, self._writes


@asynccontextmanager
async def open_database(url: str) -> AsyncIterator[Database]:
    db = Database(url)
    try:
        yield db
    finally:
        await db.close()


def is_migrated(revision: str | None, scripts: Path) -> bool:
    """Whether `revision` is the newest of `scripts`; raises `Conflict` when it is newer than all of them."""
    newest = max(_revisions(scripts))
    if revision is not None and revision > newest:
        raise Conflict(
            f"the database's schema ({revision}) is newer than this program's ({newest}): "
            "install the newer dryccd"
        )
    return revision == newest


def _revisions(scripts: Path) -> list[str]:
    """Numbers in front of the scripts' names: the one line of history, in order."""
    return [script.name.partition("_")[0] for script in (scripts / "versions").glob("[0-9]*_*.py")]


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(sa.text("select version_num from alembic_version"))
    return revision


def _upgrade(connection: sa.Connection, scripts: Path) -> None:
    from alembic import command  # 40 MB and 0.4 s that only a migration needs
    from alembic.config import Config

    if is_migrated(_revision(connection), scripts):  # by another process, while we waited
        return
    config = Config()
    config.set_main_option("script_location", str(scripts))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _vacuum_into(source: Path, target: Path) -> None:
    """SQLite's own copy of a file in use; a damaged database raises, so none is kept as a backup."""
    try:
        with closing(sqlite3.connect(source, timeout=BUSY_MS / 1000)) as connection:
            connection.execute("vacuum into ?", [str(target)])
        with closing(sqlite3.connect(target)) as connection:
            found = connection.execute("pragma quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        raise Unavailable(f"the database cannot be copied: {error}") from error
    if found != ("ok",):
        raise Unavailable(f"the copy of the database is damaged: {found}")


def _prepare_sqlite_reader(connection: Any, record: object) -> None:
    cursor = connection.cursor()
    cursor.execute(f"pragma busy_timeout = {BUSY_MS}")
    cursor.execute("pragma query_only = on")
    cursor.close()


def _prepare_sqlite_writer(connection: Any, record: object) -> None:
    connection.isolation_level = None  # the driver must not begin by itself
    cursor = connection.cursor()
    cursor.execute(f"pragma busy_timeout = {BUSY_MS}")
    cursor.execute("pragma journal_mode")
    if cursor.fetchone() != ("wal",):  # kept in the file; the change needs it for itself
        cursor.execute("pragma journal_mode = wal")
    cursor.execute("pragma synchronous = full")
    cursor.execute("pragma foreign_keys = on")
    cursor.execute(f"pragma journal_size_limit = {WAL_BYTES}")
    cursor.close()


def _prepare_sqlite_migration(connection: Any, record: object) -> None:
    _prepare_sqlite_writer(connection, record)
    cursor = connection.cursor()
    cursor.execute("pragma foreign_keys = off")
    cursor.close()


_silent = sa.text(
    "select pg_terminate_backend(pid) from pg_stat_activity"
    " where datname = current_database() and usename = current_user"
    " and state = 'active' and wait_event = 'ClientRead'"
    " and state_change < clock_timestamp() - make_interval(secs => :seconds)"
)


def _parse_url(url: str) -> sa.URL:
    """Its text is in no message: there may be a password in it."""
    try:
        return make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise Invalid("DRYCC_DATABASE_URL is no URL of a database") from None


def _bounds(server_settings: dict[str, str]) -> dict[str, Any]:
    return {
        "timeout": CONNECT_WITHIN,
        "command_timeout": ANSWER_WITHIN,
        "server_settings": server_settings,
    }


def _begin_immediate(connection: sa.Connection) -> None:
    connection.exec_driver_sql("begin immediate")


__all__ = [
    "AsyncConnection",
    "AsyncSession",
    "Database",
    "Timestamp",
    "db_now",
    "is_migrated",
    "open_database",
]
