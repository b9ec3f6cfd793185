"""One line of history, whose end is what the models say, on both databases."""

import shutil
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from drycc.backends.db import Database
from drycc.core.models import Base, Config, Release
from drycc.errors import Conflict
from tests.conftest import MIGRATIONS
from tests.core.story import Story


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


DROP = """
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = depends_on = None


def upgrade():
    with op.batch_alter_table("apps") as batch:
        batch.drop_column("routable")
"""


async def test_db05_a_column_of_apps_goes_and_a_thousand_releases_stay(db: Database, tmp_path: Path) -> None:
    """Batch mode makes the table anew on SQLite; nothing below it may be lost on the way."""
    uuid = await Story.make_app(db, "shop")

    async def release(session: AsyncSession) -> None:
        config = (await session.scalars(sa.select(Config.uuid))).one()
        for version in range(2, 1001):
            session.add(Release(app_uuid=uuid, user_id=1, version=version, config_uuid=config))

    async def orphan(session: AsyncSession) -> None:
        session.add(Release(app_uuid=uuid4(), user_id=1, version=1, config_uuid=uuid4()))

    await db.write(release)
    scripts = shutil.copytree(MIGRATIONS, tmp_path / "migrations")
    (scripts / "versions" / "0002_drop.py").write_text(DROP)
    await db.migrate(scripts)
    assert await db.revision() == "0002"
    assert (await db.read(sa.text("select count(*) from releases")))[0][0] == 1000
    assert (await db.read(sa.text("select count(*) from apps")))[0][0] == 1
    with pytest.raises(IntegrityError):
        await db.write(orphan)
    with pytest.raises(Conflict, match="newer than this program"):
        await db.migrate(MIGRATIONS)
