"""`dryccd backup` and `dryccd restore`: open what they need, and say what was done and what is next."""

import asyncio
from pathlib import Path
from time import monotonic

from drycc import main
from drycc.backends.db import Database, is_migrated, open_database
from drycc.backends.objects import open_objects
from drycc.backup import restore as restoring
from drycc.backup.archive import STORE, open_source
from drycc.backup.create import Platform, create_backup
from drycc.backup.manifest import Manifest
from drycc.errors import Conflict, NotFound
from drycc.settings import Settings


async def backup(settings: Settings, target: str) -> None:
    """Back up to the directory `target` or to `objects:`; a running `serve` goes on."""
    began = monotonic()
    async with open_database(settings.database_url) as db:
        await _check_rows(db)
        async with main.open_keyring(settings, db) as keyring:
            platform = Platform(settings, db, keyring, await open_objects(settings.objects_url))
            shown, made = await create_backup(platform, target)
    main.say(f"Backed up to {shown} in {monotonic() - began:.1f} s: {describe(made)}")
    main.say(f"It holds no keys: keep a copy of {settings.keyring} elsewhere ({', '.join(made.keys)}).")
    if target == STORE and platform.is_on_one_disk:
        main.say("The object store is a part of the data directory, and would be lost with its disk.")


async def restore(settings: Settings, source: str) -> None:
    """Restore from a directory, from `objects:<name>`, or the newest with `objects:`."""
    began = monotonic()
    rows = await _find_rows(settings)
    await asyncio.to_thread(restoring.check_empty, settings, rows)
    objects = await open_objects(settings.objects_url)
    opened = await open_source(source, objects)
    with main.lock_data(settings):
        read = await restoring.restore(settings, rows, objects, opened, main.migrations())
    taken = f"{monotonic() - began:.1f} s"
    main.say(f"Restored {opened.shown}, of {read.at}, to {settings.data} in {taken}: {describe(read)}")
    for venv in await asyncio.to_thread(restoring.find_broken, Path(settings.data)):
        main.say(f"{venv} needs an interpreter that is not here; install it, or push its app again.")
    main.say("Next: dryccd serve")


def describe(made: Manifest) -> str:
    counts = {kind: made.count(kind) for kind in ("images", "venvs", "repos", "objects", "logs")}
    listed = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    return f"{made.size / 1024**2:.1f} MiB, rows, {listed}"


async def _check_rows(db: Database) -> None:
    if not await asyncio.to_thread(db.file().exists):
        raise NotFound(f"there is no database at {db.file()}: there is nothing to back up")
    if not is_migrated(await db.revision(), main.migrations()):
        raise Conflict(f"the database {db.file()} is of an older version: run `dryccd migrate` first")


async def _find_rows(settings: Settings) -> Path:
    async with open_database(settings.database_url) as db:
        return db.file()
