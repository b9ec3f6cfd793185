"""One line of history, whose end is what the models say, on both databases."""

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from drycc.backends.db import Database
from drycc.core.models import Base
from tests.conftest import MIGRATIONS


def test_db04_there_is_one_line_numbered_in_its_order() -> None:
    history = [script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()]
    assert len(ScriptDirectory(str(MIGRATIONS)).get_heads()) == 1
    assert history == sorted(history, reverse=True)


async def test_the_migrated_schema_is_what_the_models_say(db: Database) -> None:
    def compare(connection: sa.Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, Base.metadata))

    reads, _ = db.engines
    async with reads.connect() as connection:
        assert await connection.run_sync(compare) == []


async def test_migrating_twice_changes_nothing(db: Database) -> None:
    before = await db.revision()
    await db.migrate(MIGRATIONS)
    assert await db.revision() == before
