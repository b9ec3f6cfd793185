"""One database and one loop for all examples of the property test."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drycc.backends.db import Database
from tests.conftest import MIGRATIONS
from tests.core.actual import empty
from tests.core.machine import Bench, Platform
from tests.core.story import Story

DEPLOY_TIMEOUT = 0.02  # seconds: of a roll-out that never becomes ready


@contextmanager
def bench(url: str, directory: Path) -> Iterator[type[Platform]]:
    """The machine on this database, which is migrated and emptied."""
    db = Database(url)
    with asyncio.Runner() as runner:
        runner.run(db.migrate(MIGRATIONS))
        story = runner.run(Story.begin(db, directory, deploy_timeout=DEPLOY_TIMEOUT))

        runner.run(empty(db))

        class OnThis(Platform):
            bench = Bench(runner.run, story)
            steps = 0

        try:
            yield OnThis
        finally:
            runner.run(db.close())
